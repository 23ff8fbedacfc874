-- The tables of the first token: tenants, devices, clients, keys, and what KV must be told.
--
-- Rules that hold for every table here and later:
--   * `org_id` stands on every tenant table, and foreign keys carry it, so that the database itself refuses a row that
--     points into another organization.
--   * Deleting is `restrict`: what goes with what is decided by the service, where it can also mark the KV documents.
--   * Ids compare as bytes (collate "C"): fast, and the order that KV has.
--   * Times come from the control plane's clock, never from a default, so that tests can set them.
--   * From here on: expand first, contract in a later release. Released migrations are never edited.

create table organization (
    id          text collate "C" primary key check (id ~ '^[a-z0-9][a-z0-9-]{0,62}$'),
    name        text not null check (char_length(name) between 1 and 200),
    description text check (char_length(description) <= 2000),
    created_at  timestamptz not null,
    updated_at  timestamptz not null
);

create table environment (
    org_id             text collate "C" not null references organization (id),
    id                 text collate "C" not null check (id ~ '^[a-z0-9][a-z0-9-]{0,62}$'),
    name               text not null check (char_length(name) between 1 and 200),
    description        text check (char_length(description) <= 2000),
    -- The tags that every device of the environment has, with the value of a device that sets none.
    tag_defaults       jsonb not null check (jsonb_typeof(tag_defaults) = 'object'),
    -- For devices that name no servers of their own.
    primary_server_url text,
    server_urls        text[] not null,
    created_at         timestamptz not null,
    updated_at         timestamptz not null,
    primary key (org_id, id)
);

-- The defaults are the policy of a new pool.
create table client_pool (
    id                         uuid primary key,
    org_id                     text collate "C" not null references organization (id),
    -- None for the pool of an organization's people (kind sso).
    env_id                     text collate "C",
    kind                       text not null check (kind in ('device', 'sso')),
    token_ttl_seconds          integer not null default 3600 check (token_ttl_seconds between 1 and 86400),
    -- A longer lifetime that tokens still valid may have, and the time when the last of them has expired.
    earlier_token_ttl_seconds  integer check (earlier_token_ttl_seconds between 1 and 86400),
    earlier_token_ttl_until    timestamptz,
    claims_profile             text not null default 'device' check (claims_profile in ('device', 'rfc9068')),
    audience                   text[] not null default '{}',
    cors_origins               text[] not null default '{}',
    key_backend                text not null default 'local' check (key_backend in ('local', 'aws_kms')),
    key_mode                   text check (key_mode in ('envelope', 'kms_sign')),
    kms_key_id                 text,
    rotation_period_seconds    integer not null default 7776000 check (rotation_period_seconds between 1 and 157680000),
    max_staleness_seconds      integer not null default 86400 check (max_staleness_seconds between 10 and 604800),
    provisioning_mode          text not null default 'registered' check (provisioning_mode in ('off', 'registered', 'auto')),
    -- 'any' as a JSON string, or an object of o, ou, san, root; written out before the mode may be auto.
    provisioning_match         jsonb,
    provisioning_client_app_id text collate "C" not null default 'client'
                               check (provisioning_client_app_id ~ '^[a-z0-9][a-z0-9-]{0,62}$'),
    provisioning_scopes        text[] not null default '{device}',
    device_id_template         text not null default '{cn}',
    provisioning_tags          jsonb not null default '{}' check (jsonb_typeof(provisioning_tags) = 'object'),
    provisioning_max_per_hour  integer not null default 1000 check (provisioning_max_per_hour >= 0),
    bind_to_certificate        boolean not null default false,
    created_at                 timestamptz not null,
    updated_at                 timestamptz not null,
    unique (org_id, id),
    -- One pool per environment; also what a client's pool is checked against.
    unique (org_id, env_id),
    unique (org_id, env_id, id),
    foreign key (org_id, env_id) references environment (org_id, id),
    check ((kind = 'device') = (env_id is not null)),
    check ((key_backend = 'aws_kms') = (key_mode is not null)),
    check ((key_backend = 'aws_kms') = (kms_key_id is not null)),
    check ((earlier_token_ttl_seconds is null) = (earlier_token_ttl_until is null)),
    check (provisioning_mode <> 'auto' or provisioning_match is not null)
);
create unique index client_pool_sso_one_per_org on client_pool (org_id) where kind = 'sso';
-- v1/trust outlives the longest window of all pools.
create index client_pool_window on client_pool (max_staleness_seconds);

create table signing_key (
    kid            text collate "C" primary key,
    org_id         text collate "C" not null,
    pool_id        uuid not null,
    alg            text not null check (alg = 'ES256'),
    backend        text not null check (backend in ('local', 'aws_kms')),
    state          text not null check (state in ('next', 'active', 'retiring', 'gone', 'revoked')),
    public_jwk     jsonb not null,
    -- Encrypted under the master key; none where the private half never leaves a KMS, and once the key is gone.
    private_sealed bytea,
    created_at     timestamptz not null,
    activated_at   timestamptz,
    foreign key (org_id, pool_id) references client_pool (org_id, id),
    check (backend <> 'local' or state in ('gone', 'revoked') or private_sealed is not null)
);
create index signing_key_pool on signing_key (pool_id, created_at);
create unique index signing_key_one_active on signing_key (pool_id) where state = 'active';

create table device (
    org_id             text collate "C" not null,
    env_id             text collate "C" not null,
    id                 text collate "C" not null check (id ~ '^[A-Za-z0-9][A-Za-z0-9._:-]{0,127}$'),
    name               text not null check (char_length(name) between 1 and 200),
    description        text check (char_length(description) <= 2000),
    -- json, not jsonb: it is stored, returned and carried by tokens as it was sent, and jsonb would write a number like
    -- 1e300 out with all its zeros.
    metadata           json not null check (json_typeof(metadata) = 'object'),
    tags               jsonb not null check (jsonb_typeof(tags) = 'object'),
    primary_server_url text,
    server_urls        text[] not null,
    -- registered: known, never activated; active: activated at least once; disabled: may have no tokens.
    status             text not null check (status in ('registered', 'active', 'disabled')),
    last_activated_at  timestamptz,
    created_at         timestamptz not null,
    updated_at         timestamptz not null,
    primary key (org_id, env_id, id),
    foreign key (org_id, env_id) references environment (org_id, id)
);

create table device_app (
    id            uuid primary key,
    org_id        text collate "C" not null,
    env_id        text collate "C" not null,
    device_id     text collate "C" not null,
    client_app_id text collate "C" not null check (client_app_id ~ '^[a-z0-9][a-z0-9-]{0,62}$'),
    name          text check (char_length(name) between 1 and 200),
    description   text check (char_length(description) <= 2000),
    created_at    timestamptz not null,
    updated_at    timestamptz not null,
    unique (org_id, env_id, device_id, client_app_id),
    unique (org_id, env_id, id),
    unique (org_id, id),
    foreign key (org_id, env_id, device_id) references device (org_id, env_id, id)
);

create table oauth_client (
    client_id                  text collate "C" primary key,
    org_id                     text collate "C" not null,
    env_id                     text collate "C" not null,
    pool_id                    uuid not null,
    -- None for a service client.
    device_app_id              uuid unique,
    name                       text not null check (char_length(name) between 1 and 200),
    scopes                     text[] not null,
    status                     text not null check (status in ('enabled', 'disabled')),
    secret_hash                bytea check (octet_length(secret_hash) = 32),
    secret_created_at          timestamptz,
    previous_secret_hash       bytea check (octet_length(previous_secret_hash) = 32),
    previous_secret_expires_at timestamptz,
    jwks                       jsonb,
    created_at                 timestamptz not null,
    updated_at                 timestamptz not null,
    -- The client's pool is its environment's, and its app is of the same environment.
    foreign key (org_id, env_id, pool_id) references client_pool (org_id, env_id, id),
    foreign key (org_id, env_id, device_app_id) references device_app (org_id, env_id, id),
    check ((secret_hash is null) = (secret_created_at is null)),
    check ((previous_secret_hash is null) = (previous_secret_expires_at is null))
);
create index oauth_client_pool on oauth_client (pool_id, client_id);

create table otp (
    -- One per app: a new one takes the place of the old one.
    device_app_id uuid primary key,
    org_id        text collate "C" not null,
    -- HMAC under a key derived from the master key: 50 bits could be found from a plain hash.
    code_hmac     bytea not null unique check (octet_length(code_hmac) = 32),
    created_at    timestamptz not null,
    expires_at    timestamptz not null,
    used_at       timestamptz,
    wrong_tries   smallint not null check (wrong_tries >= 0),
    foreign key (org_id, device_app_id) references device_app (org_id, id)
);

create table api_key (
    id          uuid primary key,
    name        text not null check (char_length(name) between 1 and 200),
    -- None: a global admin key.
    org_id      text collate "C" references organization (id),
    -- None: all that its reach allows.
    permissions text[],
    key_hash    bytea not null unique check (octet_length(key_hash) = 32),
    prefix      text not null,
    created_at  timestamptz not null,
    expires_at  timestamptz
);
create index api_key_org on api_key (org_id);

create table root_key (
    -- There is one root.
    singleton      boolean primary key check (singleton),
    kid            text collate "C" not null,
    public_jwk     jsonb not null,
    private_sealed bytea not null,
    created_at     timestamptz not null
);

create table publisher_key (
    kid            text collate "C" primary key,
    public_jwk     jsonb not null,
    private_sealed bytea not null,
    created_at     timestamptz not null,
    -- When a v1/trust that lists it was first published.
    listed_at      timestamptz,
    -- When it began to sign.
    signs_since    timestamptz,
    check (signs_since is null or listed_at is not null)
);

-- What KV must be told: one row per KV key, kept as long as the key's version must go on growing.
-- Pending means generation > published_generation.
create table publication (
    key                  text collate "C" primary key check (octet_length(key) <= 512),
    -- No foreign key: a deleted pool's documents must still be deleted in KV.
    pool_id              uuid,
    generation           bigint not null,
    published_generation bigint not null,
    -- 0 revocation and trust, 1 change, 2 signing again.
    priority             smallint not null check (priority between 0 and 2),
    marked_at            timestamptz not null,
    leased_until         timestamptz,
    lease_id             uuid,
    attempts             integer not null default 0,
    not_before           timestamptz,
    -- Until then an earlier request whose outcome is unknown may still land.
    uncertain_until      timestamptz,
    -- The last version given to a document of this key, written before the document is sent.
    version              bigint not null default 0,
    digest               bytea check (octet_length(digest) = 32),
    publisher_kid        text collate "C",
    published_at         timestamptz,
    resign_at            timestamptz,
    last_error           text,
    check (generation >= published_generation),
    check ((leased_until is null) = (lease_id is null))
);
create index publication_pending on publication (priority, marked_at) where generation > published_generation;
create index publication_resign on publication (resign_at) where resign_at is not null;
create index publication_publisher on publication (publisher_kid) where publisher_kid is not null;
create index publication_published on publication (published_at);
