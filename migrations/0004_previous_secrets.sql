-- What housekeeping looks for in oauth_client.

create index oauth_client_previous_secret on oauth_client (previous_secret_expires_at)
    where previous_secret_expires_at is not null;
