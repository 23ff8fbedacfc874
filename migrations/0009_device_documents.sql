-- Every device has a document from now on: those that are there already get theirs.

insert into publication (key, pool_id, generation, published_generation, priority, marked_at)
select wanted.key, wanted.pool_id, 1, 0, 2, now()
  from (select 'v1/device/' || p.id || '/' || d.id as key, p.id as pool_id
          from device d
          join client_pool p on p.org_id = d.org_id and p.env_id = d.env_id) as wanted
 order by wanted.key collate "C"
on conflict (key) do nothing;
