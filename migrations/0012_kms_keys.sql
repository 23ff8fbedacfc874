-- Which key of AWS KMS is whose, and which root signs.

create table kms_key (
    -- Account and id: the copies of a multi-region key are one key.
    material   text collate "C" primary key,
    arn        text not null,
    -- root: signs v1/trust. signing: signs tokens of a pool. envelope: encrypts the data keys of a pool.
    purpose    text not null check (purpose in ('root', 'signing', 'envelope')),
    -- No foreign key: what has signed for a pool serves no other, also when the pool is gone.
    pool_id    uuid,
    -- Whether a control plane has made it, rather than somebody named it.
    made_here  boolean not null default false,
    -- For those that sign. Material that was imported into two keys is one key as well.
    kid        text collate "C" unique,
    public_jwk jsonb,
    created_at timestamptz not null,
    check ((purpose = 'root') = (pool_id is null)),
    check ((purpose = 'envelope') = (kid is null)),
    check ((kid is null) = (public_jwk is null))
);
create index kms_key_pool on kms_key (pool_id);

-- The root that signs now, local or not.
create table root_signer (
    singleton boolean primary key check (singleton),
    kid       text collate "C" not null,
    since     timestamptz not null
);
