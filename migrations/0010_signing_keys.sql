-- The life of a signing key, and what a key of AWS KMS is.

alter table signing_key
    -- When a pool document with it in its key set was first known to be in KV.
    add column published_at      timestamptz,
    -- When it stopped signing, and another one began.
    add column retired_at        timestamptz,
    -- When it left the key set, because it was gone or revoked.
    add column removed_at        timestamptz,
    -- No document that names it as the one that signs lasts longer. None: it was made by a version that knew no end.
    add column ends_at           timestamptz,
    -- Until when a token that it signed may be valid: written before a document that names it is sent.
    add column tokens_until      timestamptz,
    -- When somebody asked for its successor to sign, if anybody did.
    add column rotation_asked_at timestamptz,
    -- For aws_kms: how the private half is kept.
    add column key_mode          text check (key_mode in ('envelope', 'kms_sign')),
    -- The KMS key: the one that it is (kms_sign), or the one that encrypts its data key (envelope).
    add column kms_key_id        text check (char_length(kms_key_id) between 1 and 2048),
    -- For envelope: the data key as KMS has encrypted it.
    add column kms_data_key      bytea check (octet_length(kms_data_key) between 1 and 8192),
    add constraint signing_key_mode_check check ((backend = 'aws_kms') = (key_mode is not null)) not valid,
    add constraint signing_key_kms_check check ((backend = 'aws_kms') = (kms_key_id is not null)) not valid;

-- A key of KMS that signs serves one pool, also after it has gone.
create unique index signing_key_kms_sign on signing_key (kms_key_id) where key_mode = 'kms_sign';

-- Keys that sign now have had no end so far: they get one that is far enough away for their rotation.
update signing_key set ends_at = now() + interval '60 days' where state = 'active';
