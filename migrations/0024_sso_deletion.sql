-- Whoever deletes a person or a client app looks for all of their sessions, also for those that have ended.

create index sso_session_of_user on sso_session (user_id);
create index sso_session_of_app on sso_session (client_app_id) where client_app_id is not null;
