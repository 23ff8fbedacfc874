-- People and keys of single sign-on act too. Old rows need no look: the old list is part of the new one.
alter table audit_event
    drop constraint audit_event_actor_kind_check,
    add constraint audit_event_actor_kind_check
        check (actor_kind in ('api_key', 'otp', 'user', 'sso_key', 'command', 'system')) not valid;
