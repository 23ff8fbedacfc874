-- OpenID Connect: what an app gets for a person whose browser it sent here, and which browsers are signed in.

create table authorization_code (
    -- The code is 256 random bits.
    hash            bytea primary key check (octet_length(hash) = 32),
    org_id          text collate "C" not null,
    session_id      uuid not null,
    -- For which app it is.
    client_app_id   uuid not null,
    redirect_uri    text not null check (char_length(redirect_uri) <= 2100),
    code_challenge  bytea not null check (octet_length(code_challenge) = 32),
    scope           text not null,
    nonce           text check (char_length(nonce) <= 512),
    -- Whether the session was begun with it; otherwise its tokens make it no longer.
    extends_session boolean not null,
    created_at      timestamptz not null,
    expires_at      timestamptz not null,
    used_at         timestamptz,
    -- Codes go with what they are for: they last a minute, and nobody asks about them later.
    foreign key (org_id, session_id) references sso_session (org_id, id) on delete cascade,
    foreign key (org_id, client_app_id) references client_app (org_id, id) on delete cascade
);
create index authorization_code_session on authorization_code (org_id, session_id);
create index authorization_code_app on authorization_code (org_id, client_app_id);
create index authorization_code_expiry on authorization_code (expires_at);

-- A browser in which somebody is signed in to the apps of an organization.
create table browser_sign_in (
    -- The cookie is 256 random bits.
    hash       bytea primary key check (octet_length(hash) = 32),
    org_id     text collate "C" not null,
    session_id uuid not null,
    created_at timestamptz not null,
    foreign key (org_id, session_id) references sso_session (org_id, id) on delete cascade
);
create index browser_sign_in_session on browser_sign_in (org_id, session_id);
