-- What housekeeping looks for in otp. Its own migration: one that locks two tables can meet a transaction of the version
-- before that locks them the other way round.

create index otp_expires on otp (expires_at);
