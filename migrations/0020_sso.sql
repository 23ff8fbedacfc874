-- Single sign-on (design §10): client apps, the people of an organization, their sessions and refresh tokens.

create table client_app (
    id                   uuid primary key,
    org_id               text collate "C" not null references organization (id),
    name                 text not null check (char_length(name) between 1 and 200),
    description          text check (char_length(description) <= 2000),
    redirect_uris        text[] not null default '{}',
    origins              text[] not null default '{}',
    -- Whether whoever holds the app's key may create users.
    public_signup        boolean not null default true,
    -- The members of `user_metadata` that a user may bring along; none: any.
    signup_metadata_keys text[],
    created_at           timestamptz not null,
    updated_at           timestamptz not null,
    unique (org_id, id)
);

-- What the header `apikey` may hold: an organization's key (`org_…`) or a client app's (`app_…`).
create table sso_key (
    id            uuid primary key,
    org_id        text collate "C" not null references organization (id),
    -- None: the organization's.
    client_app_id uuid,
    hash          bytea not null unique check (octet_length(hash) = 32),
    created_at    timestamptz not null,
    -- When it ends, once another has taken its place.
    expires_at    timestamptz,
    foreign key (org_id, client_app_id) references client_app (org_id, id)
);
create index sso_key_owner on sso_key (org_id, client_app_id);
create index sso_key_expiry on sso_key (expires_at) where expires_at is not null;

-- People: owners of organizations, and users of client apps.
create table sso_user (
    id                  uuid primary key,
    -- Where an owner signs in: one of the organizations that are theirs.
    org_id              text collate "C" not null references organization (id),
    -- None: an owner.
    client_app_id       uuid,
    username            text not null check (char_length(username) between 1 and 200),
    -- What usernames and addresses are compared by.
    username_key        text collate "C" not null,
    email               text not null check (char_length(email) between 3 and 254),
    email_key           text collate "C" not null,
    first_name          text check (char_length(first_name) <= 200),
    last_name           text check (char_length(last_name) <= 200),
    -- A PHC string (argon2id).
    password_hash       text not null,
    password_changed_at timestamptz not null,
    -- json, not jsonb: returned and carried by tokens as it was sent.
    user_metadata       json not null check (json_typeof(user_metadata) = 'object'),
    status              text not null check (status in ('enabled', 'disabled')),
    last_login_at       timestamptz,
    created_at          timestamptz not null,
    updated_at          timestamptz not null,
    unique (org_id, id),
    foreign key (org_id, client_app_id) references client_app (org_id, id)
);
create unique index sso_user_owner_username on sso_user (username_key) where client_app_id is null;
create unique index sso_user_owner_email on sso_user (email_key) where client_app_id is null;
create unique index sso_user_username on sso_user (client_app_id, username_key) where client_app_id is not null;
create unique index sso_user_email on sso_user (client_app_id, email_key) where client_app_id is not null;

-- Whose the organizations are.
create table org_owner (
    org_id     text collate "C" not null references organization (id),
    user_id    uuid not null references sso_user (id),
    created_at timestamptz not null,
    primary key (org_id, user_id)
);
create index org_owner_user on org_owner (user_id);

-- One sign-in, with all that comes of it.
create table sso_session (
    -- The claim `sid`.
    id            uuid primary key,
    org_id        text collate "C" not null,
    pool_id       uuid not null,
    user_id       uuid not null,
    -- Where the person signed in; none: as an owner.
    client_app_id uuid,
    user_agent    text check (char_length(user_agent) <= 400),
    address       text check (char_length(address) <= 64),
    created_at    timestamptz not null,
    last_used_at  timestamptz not null,
    -- When it ends unless it is refreshed.
    expires_at    timestamptz not null,
    ended_at      timestamptz,
    unique (org_id, id),
    foreign key (org_id, user_id) references sso_user (org_id, id),
    foreign key (org_id, pool_id) references client_pool (org_id, id),
    foreign key (org_id, client_app_id) references client_app (org_id, id)
);
create index sso_session_user on sso_session (user_id, id) where ended_at is null;
create index sso_session_app on sso_session (org_id, client_app_id) where ended_at is null;
create index sso_session_expiry on sso_session (expires_at);

-- All refresh tokens of a session are one family: a wrong use of any ends it.
create table refresh_token (
    hash            bytea primary key check (octet_length(hash) = 32),
    org_id          text collate "C" not null,
    session_id      uuid not null,
    -- For which app its pairs are; none: an owner's.
    client_app_id   uuid,
    -- Whether using it makes the session last longer. One got by exchange does not.
    extends_session boolean not null,
    -- The scopes of OpenID Connect, space-separated; none outside of its flow.
    scope           text,
    created_at      timestamptz not null,
    expires_at      timestamptz not null,
    -- When it was used, and when once more within the time in which that counts as a retry.
    rotated_at      timestamptz,
    retried_at      timestamptz,
    foreign key (org_id, session_id) references sso_session (org_id, id),
    foreign key (org_id, client_app_id) references client_app (org_id, id)
);
create index refresh_token_session on refresh_token (session_id);
create index refresh_token_app on refresh_token (org_id, client_app_id);
create index refresh_token_expiry on refresh_token (expires_at);
