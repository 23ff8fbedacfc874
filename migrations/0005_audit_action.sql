-- For the question who did one kind of thing in an organization: among a million changes of devices, the three API keys.

create index audit_event_action on audit_event (org_id, action, occurred_at, seq);
