-- The management plane: who did what, keys that rotate, and answers that are given again.
--
-- Only additions: the version before goes on working on this schema.

alter table api_key
    -- None where the version before this one made the key.
    add column updated_at          timestamptz,
    -- Written now and then, not with each request.
    add column last_used_at        timestamptz,
    -- After a rotation, the key before counts until it expires.
    add column previous_key_hash   bytea unique check (octet_length(previous_key_hash) = 32),
    add column previous_expires_at timestamptz,
    add constraint api_key_previous_check check ((previous_key_hash is null) = (previous_expires_at is null));

-- For service clients: the `aud` of their tokens, where it is not the pool's.
alter table oauth_client add column audience text[] not null default '{}';
create index oauth_client_service on oauth_client (org_id, env_id, client_id) where device_app_id is null;

-- One row per chain of audit events: where it ends. '' is the chain of what belongs to no organization.
-- No foreign keys here and below: what is told of an organization outlives it.
create table audit_chain (
    org_id      text collate "C" primary key,
    seq         bigint not null,
    hash        bytea not null check (octet_length(hash) = 32),
    -- The last event that was purged: the chain is checked from there on.
    purged_seq  bigint not null default 0,
    purged_hash bytea not null check (octet_length(purged_hash) = 32),
    check (purged_seq between 0 and seq)
);

create table audit_event (
    org_id      text collate "C" not null,
    -- 1, 2, 3... within the chain.
    seq         bigint not null check (seq > 0),
    occurred_at timestamptz not null,
    actor_kind  text not null check (actor_kind in ('api_key', 'otp', 'command', 'system')),
    actor_id    text,
    actor_name  text,
    action      text not null,
    target_kind text not null,
    target_id   text not null,
    env_id      text,
    -- json, not jsonb: the hash is of the text.
    changes     json not null,
    address     text,
    request_id  text,
    -- SHA-256 over the hash before and all of this row.
    hash        bytea not null check (octet_length(hash) = 32),
    primary key (org_id, seq)
);
create index audit_event_time on audit_event (occurred_at, org_id, seq);
create index audit_event_org_time on audit_event (org_id, occurred_at, seq);
create index audit_event_target on audit_event (org_id, target_kind, target_id, seq);
create index audit_event_actor on audit_event (org_id, actor_id, seq);

-- Answers to creating requests that came with an Idempotency-Key, for a day.
create table idempotency (
    -- An HMAC over API key, method, path and Idempotency-Key.
    id         bytea primary key check (octet_length(id) = 32),
    body_hash  bytea not null check (octet_length(body_hash) = 32),
    -- The answer, encrypted under a key that only the Idempotency-Key gives. None while the change is under way.
    answer     bytea,
    created_at timestamptz not null
);
create index idempotency_age on idempotency (created_at);
