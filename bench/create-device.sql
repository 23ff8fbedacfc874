-- What the control plane does in PostgreSQL to create a device, for pgbench: the statements of one transaction as the server
-- has logged them (log_statement = all), with other values. :pool comes from the command line. The audit event's hash is any
-- 32 bytes here, which nobody checks. Where a text has a colon before a letter, a blank stands between them, or pgbench would
-- take it for a variable.
\set n random(1, 1000000000000000)
begin;
insert into device
       (org_id, env_id, id, name, description, metadata, tags, primary_server_url, server_urls, status,
        last_activated_at, created_at, updated_at)
   values ('bench', 'production', concat('pgbench-', :n::bigint), 'A terminal', null,
           '{"terminal_type":"kiosk","location":"checkout-3"}'::text::json, '{"state": "NY", "app_id": "pos"}'::jsonb,
           'http://localhost:6140', '{http://localhost:6140,http://localhost:6141}'::text[], 'registered', null, now(), now());
delete from refused_device
 where org_id = 'bench' and pool_id = (:pool)::uuid and device_id = concat('pgbench-', :n::bigint);
select distinct r.pool_id, r.shard
  from unnest(array[:pool]::uuid[], '{device}'::text[], array[concat('pgbench-', :n::bigint)]) as wanted (pool_id, kind, id)
  join revoked_record r on r.pool_id = wanted.pool_id and r.kind = wanted.kind and r.id = wanted.id;
with marked as (
    insert into publication as p (key, pool_id, generation, published_generation, priority, marked_at)
    select distinct on (wanted.key collate "C") wanted.key, wanted.pool_id, 1, 0, 1, now()
      from unnest(array[concat('v1/device/', (:pool)::text, '/pgbench-', :n::bigint)], array[:pool]::uuid[]) as wanted (key, pool_id)
     order by wanted.key collate "C"
    on conflict (key) do update
       set generation = p.generation + 1,
           pool_id = excluded.pool_id,
           priority = case when p.generation > p.published_generation
                           then least(p.priority, excluded.priority) else excluded.priority end,
           marked_at = case when p.generation > p.published_generation
                            then least(p.marked_at, excluded.marked_at) else excluded.marked_at end,
           not_before = case when p.attempts > 0 then p.not_before end
    returning key, generation, version
)
select key, generation, version from marked cross join pg_notify('keypost_publication', '');
select seq, encode(hash, 'hex') as hash from audit_chain where org_id = 'bench' for update \gset
\set next :seq + 1
with chain as (update audit_chain set seq = :next::bigint, hash = decode(:hash, 'hex') where org_id = 'bench')
insert into audit_event
       (org_id, seq, occurred_at, actor_kind, actor_id, actor_name, action, target_kind, target_id, env_id,
        changes, address, request_id, hash)
select 'bench', e.seq, e.occurred_at, e.actor_kind, e.actor_id, e.actor_name, e.action, e.target_kind, e.target_id,
       e.env_id, e.changes::json, e.address, e.request_id, e.hash
  from unnest(array[:next]::bigint[], array[now()], '{api_key}'::text[], '{6411e819-fb3e-4728-92a8-607369771e0c}'::text[],
              '{KEYPOST_ADMIN_API_KEY}'::text[], '{device.create}'::text[], '{device}'::text[],
              array[concat('pgbench-', :n::bigint)], '{production}'::text[],
              array['{"after":{"certificateFingerprint": null,"createdAt":"2026-11-22T17:04:07.056Z","description": null,"id":"pgbench","lastActivatedAt": null,"metadata":{"terminal_type":"kiosk"},"name":"A terminal","primaryServerUrl": null,"provisionedAt": null,"provisionedBy": null,"serverUrls":["http://localhost:6140"],"status":"registered","tags":{"app_id":"pos","state":"NY"}}}'],
              '{127.0.0.1}'::text[], '{06e6a310-9267-4807-84e8-a32887039864}'::text[], array[decode(:hash, 'hex')])
       as e (seq, occurred_at, actor_kind, actor_id, actor_name, action, target_kind, target_id, env_id,
             changes, address, request_id, hash);
commit;
