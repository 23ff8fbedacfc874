-- Devices that authenticate by certificate: what a pool trusts and what it has denied, and what is remembered of devices
-- that came by themselves.

create table trust_anchor (
    org_id      text collate "C" not null,
    pool_id     uuid not null,
    -- SHA-256 of the certificate.
    fingerprint bytea not null check (octet_length(fingerprint) = 32),
    -- DER.
    certificate bytea not null check (octet_length(certificate) between 1 and 32768),
    subject     text not null,
    not_before  timestamptz not null,
    not_after   timestamptz not null,
    filename    text check (char_length(filename) between 1 and 200),
    -- The root that this one takes the place of. No foreign key: it goes on meaning that when the old one has gone.
    replaces    bytea check (octet_length(replaces) = 32 and replaces <> fingerprint),
    created_at  timestamptz not null,
    primary key (pool_id, fingerprint),
    foreign key (org_id, pool_id) references client_pool (org_id, id)
);

create table denied_certificate (
    id          uuid primary key,
    org_id      text collate "C" not null,
    pool_id     uuid not null,
    -- Either this, or the two that follow.
    fingerprint bytea check (octet_length(fingerprint) = 32),
    issuer      text check (char_length(issuer) between 1 and 2048),
    serial      text check (serial ~ '^[0-9a-f]{1,40}$'),
    reason      text not null check (char_length(reason) between 1 and 2000),
    created_at  timestamptz not null,
    check ((issuer is null) = (serial is null)),
    check ((issuer is null) <> (fingerprint is null)),
    foreign key (org_id, pool_id) references client_pool (org_id, id)
);
create index denied_certificate_pool on denied_certificate (pool_id, id);
create unique index denied_certificate_fingerprint on denied_certificate (pool_id, fingerprint);
create unique index denied_certificate_serial on denied_certificate (pool_id, serial, md5(issuer));

-- How many devices have come to exist by certificate in an hour of the clock.
create table provisioning_hour (
    org_id  text collate "C" not null,
    pool_id uuid not null,
    -- Its first second.
    hour    timestamptz not null,
    devices integer not null check (devices >= 0),
    primary key (pool_id, hour),
    foreign key (org_id, pool_id) references client_pool (org_id, id)
);
create index provisioning_hour_age on provisioning_hour (hour);

-- Devices that the edge let in and the control plane did not: they are kept out by a document that says so, until every
-- edge has the rules by which they were refused.
create table refused_device (
    org_id     text collate "C" not null,
    pool_id    uuid not null,
    device_id  text collate "C" not null,
    code       text not null,
    refused_at timestamptz not null,
    until      timestamptz not null,
    primary key (pool_id, device_id),
    foreign key (org_id, pool_id) references client_pool (org_id, id)
);
create index refused_device_until on refused_device (until);

-- Devices that were deleted: a report from before that is void.
create table deleted_device (
    org_id     text collate "C" not null,
    pool_id    uuid not null,
    device_id  text collate "C" not null,
    deleted_at timestamptz not null,
    primary key (pool_id, device_id),
    foreign key (org_id, pool_id) references client_pool (org_id, id)
);
create index deleted_device_age on deleted_device (deleted_at);
