-- Comparing KV with the database, marking everything, removing a publisher key at once, and one pace for all publishers.

-- The version of the document that was written last: with the digest, what a listing of KV must show. None where an older
-- version of Keypost wrote it.
alter table publication add column published_version bigint;

-- Work on all documents that goes on in the background: at most one of a kind at a time. It is done in pieces, each of
-- them a transaction that also moves `after`, so that whoever comes after a crash goes on from there.
create table sync_job (
    id          uuid primary key,
    kind        text not null check (kind in ('rebuild', 'verify')),
    state       text not null check (state in ('running', 'done', 'failed')),
    started_at  timestamptz not null,
    finished_at timestamptz,
    -- The last key that has been dealt with.
    after       text collate "C" not null default '',
    -- Where the next page of KV's list begins, as KV says it; none for the first.
    list_cursor text,
    checked     bigint not null default 0,
    marked      bigint not null default 0,
    missing     bigint not null default 0,
    differing   bigint not null default 0,
    unowned     bigint not null default 0,
    -- Left alone because it is just being written, and because it is not Keypost's.
    skipped     bigint not null default 0,
    strange     bigint not null default 0,
    attempts    integer not null default 0,
    last_error  text,
    check ((finished_at is null) = (state = 'running'))
);
create unique index sync_job_running on sync_job (kind) where state = 'running';
create index sync_job_latest on sync_job (kind, started_at desc);

-- Publisher keys that were removed before their time. What they have signed is signed again; the row goes when none of it
-- is left.
create table removed_publisher_key (
    kid        text collate "C" primary key,
    removed_at timestamptz not null
);

-- When the next call to KV may be made: its limit is the account's, not a process's.
create table kv_pace (
    id             boolean primary key default true check (id),
    next_call_at   timestamptz not null,
    next_resign_at timestamptz not null,
    quiet_until    timestamptz not null
);
insert into kv_pace (next_call_at, next_resign_at, quiet_until) values ('epoch', 'epoch', 'epoch');
