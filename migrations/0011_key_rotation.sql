-- When somebody must look after a pool's keys. Its own migration: one table each.

alter table client_pool
    add column keys_due_at timestamptz not null default '-infinity',
    -- Until now nothing rotated, and nobody could choose the period.
    alter column rotation_period_seconds set default 2592000;
update client_pool set rotation_period_seconds = 2592000 where rotation_period_seconds = 7776000;
create index client_pool_keys_due on client_pool (keys_due_at);
