-- Revocation (design §4, §9): which records no longer count, which tokens were revoked, and where the status of a client's
-- tokens is found.

-- Clients and devices of which a record that once was in KV must not count any more.
create table revoked_record (
    org_id             text collate "C" not null,
    pool_id            uuid not null,
    kind               text not null check (kind in ('client', 'device')),
    id                 text collate "C" not null,
    -- In which shard of the pool's revocation list it stands.
    shard              integer not null check (shard >= 0),
    -- The least version of a record that counts.
    least_version      bigint not null check (least_version >= 0),
    -- The same from a later time on, when what was replaced ends.
    next_least_version bigint,
    next_from          timestamptz,
    noted_at           timestamptz not null,
    -- Since when no publisher key is left that has signed a record from before.
    unsigned_since     timestamptz,
    primary key (pool_id, kind, id),
    foreign key (org_id, pool_id) references client_pool (org_id, id),
    check ((next_least_version is null) = (next_from is null))
);
create index revoked_record_shard on revoked_record (pool_id, shard);
create index revoked_record_age on revoked_record (noted_at);

create table revoked_token (
    id         uuid primary key,
    org_id     text collate "C" not null,
    pool_id    uuid not null,
    client_id  text collate "C" not null,
    -- None: all that the client had.
    jti        text collate "C" check (char_length(jti) between 1 and 64),
    -- When the last of what was revoked expires.
    expires_at timestamptz not null,
    revoked_at timestamptz not null,
    -- By the client itself, at the edge, or by an administrator.
    revoked_by text not null check (revoked_by in ('client', 'administrator')),
    foreign key (org_id, pool_id) references client_pool (org_id, id)
);
create unique index revoked_token_jti on revoked_token (pool_id, jti);
create index revoked_token_pool on revoked_token (pool_id, id);
create index revoked_token_expiry on revoked_token (expires_at);

-- The blocks of the pools' Token Status Lists, counted through all lists of a pool.
create table status_block (
    org_id      text collate "C" not null,
    pool_id     uuid not null,
    number      integer not null check (number >= 0),
    -- Whose it is: a client's, or none's since its tokens were all revoked.
    client_id   text collate "C",
    bits        smallint not null check (bits between 0 and 255),
    -- From when on none of its tokens is left, and then from when on nobody remembers its bits.
    free_at     timestamptz,
    primary key (pool_id, number),
    foreign key (org_id, pool_id) references client_pool (org_id, id),
    check ((client_id is null) = (free_at is not null))
);
create unique index status_block_client on status_block (pool_id, client_id);
create index status_block_set on status_block (pool_id, number) where bits <> 0;
create index status_block_free on status_block (pool_id, free_at) where client_id is null;

-- How many blocks a pool has.
create table status_allocation (
    pool_id uuid primary key,
    org_id  text collate "C" not null,
    blocks  integer not null check (blocks >= 0),
    foreign key (org_id, pool_id) references client_pool (org_id, id)
);
