-- The lists of the pools that are there already; and their clients, so that each gets a place in them.
insert into publication (key, pool_id, generation, published_generation, priority, marked_at)
select 'v1/revoked/' || p.id || '/' || n, p.id, 1, 0, 1, now() from client_pool p, generate_series(0, 7) n
union all
select 'v1/status/' || p.id || '/0', p.id, 1, 0, 1, now() from client_pool p
on conflict (key) do nothing;

insert into client_sweep (pool_id, after, marked_at)
select id, '', now() from client_pool
on conflict (pool_id) do update set after = '';
