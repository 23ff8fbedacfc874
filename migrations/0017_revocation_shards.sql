-- In how many shards a pool's revocation list stands. None at first for pools that are there already: their lists must be
-- in KV before the edge asks for them.
alter table client_pool add column revocation_shards integer not null default 0 check (revocation_shards >= 0);
alter table client_pool alter column revocation_shards set default 8;
-- Of those there are none once their lists are published.
create index client_pool_without_lists on client_pool (id) where revocation_shards = 0;
