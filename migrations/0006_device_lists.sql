-- Lists of devices by status, tag and text; and what a change of an environment still has to mark.

-- Clients whose documents must all be made anew because their environment changed: how far that has come. A change marks
-- the first some thousand itself; the rest is marked here, batch by batch, so that no transaction holds a million rows.
create table client_sweep (
    -- No foreign key: the pool may be deleted meanwhile, and then there is nothing left to mark.
    pool_id   uuid primary key,
    -- The clients up to this one have been marked.
    after     text collate "C" not null,
    marked_at timestamptz not null
);

-- For `q`: a substring of id or name, of three characters or more. pg_trgm comes with PostgreSQL (contrib) and is a trusted
-- extension: who owns the database may create it.
create extension if not exists pg_trgm;
create index device_text on device using gin (((id || E'\n' || name) collate "default") gin_trgm_ops);

create index device_status on device (org_id, env_id, status, id);

-- Which devices have a tag, in the order of their ids: a page of those that have one is a piece of the primary key, however
-- many there are and wherever they lie. An index on device.tags could find them, but not in that order. Only triggers write
-- here, so there is no foreign key to check.
create table device_tag (
    org_id    text collate "C" not null,
    env_id    text collate "C" not null,
    -- KEY=VALUE; a key has no equals sign.
    tag       text collate "C" not null,
    device_id text collate "C" not null,
    primary key (org_id, env_id, tag, device_id)
);

create function device_tag_insert() returns trigger language plpgsql as $$
begin
    insert into device_tag (org_id, env_id, tag, device_id)
    select d.org_id, d.env_id, t.key || '=' || t.value, d.id
      from added d, jsonb_each_text(d.tags) t;
    return null;
end $$;

create function device_tag_update() returns trigger language plpgsql as $$
begin
    delete from device_tag
     where org_id = old.org_id and env_id = old.env_id and device_id = old.id
       and tag in (select t.key || '=' || t.value from jsonb_each_text(old.tags) t);
    insert into device_tag (org_id, env_id, tag, device_id)
    select new.org_id, new.env_id, t.key || '=' || t.value, new.id from jsonb_each_text(new.tags) t;
    return null;
end $$;

create function device_tag_delete() returns trigger language plpgsql as $$
begin
    delete from device_tag x
     using removed d, jsonb_each_text(d.tags) t
     where x.org_id = d.org_id and x.env_id = d.env_id and x.tag = t.key || '=' || t.value and x.device_id = d.id;
    return null;
end $$;

create trigger device_tag_insert after insert on device
    referencing new table as added for each statement execute function device_tag_insert();
create trigger device_tag_update after update on device
    for each row when (old.tags is distinct from new.tags) execute function device_tag_update();
create trigger device_tag_delete after delete on device
    referencing old table as removed for each statement execute function device_tag_delete();

-- The triggers hold writers off until this has committed.
insert into device_tag (org_id, env_id, tag, device_id)
select d.org_id, d.env_id, t.key || '=' || t.value, d.id from device d, jsonb_each_text(d.tags) t;
