-- What is known of a device's certificate. Its own migration: one that locks two tables can meet a transaction of the
-- version before that locks them the other way round.

alter table device
    -- None: somebody registered it.
    add column provisioned_by          text check (provisioned_by = 'certificate'),
    add column provisioned_at          timestamptz,
    -- SHA-256 of the certificate that it was first seen with.
    add column certificate_fingerprint bytea check (octet_length(certificate_fingerprint) = 32),
    -- What its certificate must have: none of it before it has been seen with one, then all, where a subject has no O or
    -- no CN just that.
    add column pinned_organization     text,
    add column pinned_common_name      text,
    add column pinned_roots            bytea[],
    add constraint device_provisioned_check check ((provisioned_by is null) = (provisioned_at is null)),
    add constraint device_pinned_check check ((certificate_fingerprint is null) = (pinned_roots is null));
