-- What verifiers need of pools that have been deleted, until their last token has expired (design §9). No foreign keys: what
-- the pools belonged to may be gone as well.

create table deleted_pool (
    pool_id    uuid primary key,
    -- The pool's document, as it is published from then on.
    document   jsonb not null,
    deleted_at timestamptz not null,
    until      timestamptz not null
);
create index deleted_pool_until on deleted_pool (until);

-- Its Token Status Lists, with every bit set: signed once, because the pool's keys are gone.
create table deleted_pool_status (
    pool_id   uuid not null references deleted_pool (pool_id) on delete cascade,
    list      integer not null check (list >= 0),
    token     text not null,
    signed_by text collate "C" not null,
    primary key (pool_id, list)
);
