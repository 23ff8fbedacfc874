-- How guessing passwords is slowed down, and how a forgotten one is replaced (api.md §4).

-- What has failed lately, by a hash of what it counts for: an account, whether there is one or not; an account from one
-- network; a network.
create table sign_in_failure (
    key           bytea primary key check (octet_length(key) = 32),
    -- As of `counted_at`: each period that passes forgives one.
    failures      integer not null check (failures between 0 and 1000),
    counted_at    timestamptz not null,
    -- Until then every attempt is wrong.
    delayed_until timestamptz not null
);
create index sign_in_failure_age on sign_in_failure (greatest(counted_at, delayed_until));

-- Where a person has signed in from. The delays that strangers bring upon an account do not apply there.
create table sign_in_network (
    org_id       text collate "C" not null,
    user_id      uuid not null,
    -- The SHA-256 of the network and the person's id.
    network      bytea not null check (octet_length(network) = 32),
    last_used_at timestamptz not null,
    primary key (user_id, network),
    foreign key (org_id, user_id) references sso_user (org_id, id) on delete cascade on update cascade
);
create index sign_in_network_org on sign_in_network (org_id, user_id);
create index sign_in_network_age on sign_in_network (last_used_at);

-- Codes with which a person sets a new password. Used up, they are gone.
create table password_reset (
    org_id     text collate "C" not null,
    -- A new code ends the one before.
    user_id    uuid primary key,
    hash       bytea not null unique check (octet_length(hash) = 32),
    created_at timestamptz not null,
    expires_at timestamptz not null,
    foreign key (org_id, user_id) references sso_user (org_id, id) on delete cascade on update cascade
);
create index password_reset_org on password_reset (org_id, user_id);
create index password_reset_expiry on password_reset (expires_at);
