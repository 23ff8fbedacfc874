-- Until when KV's rate limit has been used up: calls that somebody waits for may go ahead of their places, by so much.
alter table kv_pace add column spent_until timestamptz not null default 'epoch';
