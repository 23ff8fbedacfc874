//! Where a pool's signing keys are kept: here, or with AWS KMS (design §7). Only who reaches everything may name a KMS key:
//! this control plane's credentials reach them all.

use keypost_shared::id::PoolId;
use keypost_shared::kms::KmsKeyArn;
use sqlx::PgConnection;
use time::OffsetDateTime;

use super::access::GlobalScope;
use super::{ChangeError, Context};
use crate::key_maker::{KeyBackend, KmsMode};
use crate::kms::{KeyKind, KmsError};
use crate::store;
use crate::store::client_pool::ClientPool;
use crate::store::kms_key::KmsSigningKey;

/// The field that names the KMS key.
const KMS_KEY_ID: &str = "kmsKeyId";

/// What is to change; none leaves it as it is, and an inner none takes it away.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KeyPatch {
    /// `local` or `aws_kms`.
    pub backend: Option<Backend>,
    /// How KMS is used.
    pub mode: Option<Option<KmsMode>>,
    /// The KMS key, by whatever name.
    pub kms_key_id: Option<Option<String>>,
}

/// Who keeps keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Backend {
    /// The database, under the master key.
    Local,
    /// AWS KMS.
    AwsKms,
}

/// What KMS says of the key that is to be a pool's.
pub(super) enum CheckedKey {
    /// It signs.
    Signing(KmsSigningKey),
    /// It encrypts data keys.
    Encrypting(KmsKeyArn),
}

impl CheckedKey {
    fn arn(&self) -> &KmsKeyArn {
        match self {
            Self::Signing(key) => &key.arn,
            Self::Encrypting(arn) => arn,
        }
    }
}

/// The backend that the pool is to have, where that is another than it has.
pub(super) fn wanted(before: &ClientPool, patch: &KeyPatch) -> Result<Option<KeyBackend>, ChangeError> {
    let wrong = |field, detail: &str| ChangeError::Wrong { field, detail: detail.to_owned() };
    let named =
        |sent: bool| if sent { "is for keyBackend aws_kms" } else { "is required with keyBackend aws_kms" };
    let is = &before.keys;
    let backend = patch.backend.unwrap_or(match is {
        KeyBackend::Local => Backend::Local,
        KeyBackend::AwsKms { .. } => Backend::AwsKms,
    });
    let (mode_is, key_is) = match is {
        KeyBackend::Local => (None, None),
        KeyBackend::AwsKms { mode, key_id } => (Some(*mode), Some(key_id.clone())),
    };
    let wanted = match backend {
        Backend::Local => {
            if patch.mode.flatten().is_some() {
                return Err(wrong("keyMode", named(true)));
            }
            if patch.kms_key_id.as_ref().is_some_and(Option::is_some) {
                return Err(wrong(KMS_KEY_ID, named(true)));
            }
            KeyBackend::Local
        }
        Backend::AwsKms => KeyBackend::AwsKms {
            mode: patch.mode.unwrap_or(mode_is).ok_or_else(|| wrong("keyMode", named(false)))?,
            key_id: patch
                .kms_key_id
                .clone()
                .unwrap_or(key_is)
                .ok_or_else(|| wrong(KMS_KEY_ID, named(false)))?,
        },
    };
    Ok((wanted != *is).then_some(wanted))
}

/// Asks KMS whether the key can be what it is named for. To be asked outside of any transaction.
pub(super) async fn check(
    context: &Context,
    _: &GlobalScope,
    pool: PoolId,
    mode: KmsMode,
    name: &str,
) -> Result<CheckedKey, ChangeError> {
    let wrong = |detail: String| ChangeError::Wrong { field: KMS_KEY_ID, detail };
    let told = |error: KmsError| {
        tracing::warn!(%pool, %error, "a KMS key cannot be a pool's");
        if error.problem.is_of_the_key() {
            wrong(format!("cannot be used: {}", error.problem))
        } else {
            ChangeError::KmsUnavailable(error.problem.to_string())
        }
    };
    let key = context.kms.describe(name).await.map_err(told)?;
    match (mode, key.kind) {
        (KmsMode::KmsSign, KeyKind::Signing) => {
            let public = context.kms.public_key(&key.arn).await.map_err(told)?;
            Ok(CheckedKey::Signing(KmsSigningKey { arn: key.arn, public }))
        }
        (KmsMode::Envelope, KeyKind::Encrypting) => {
            context.kms.try_data_key(&key.arn, pool).await.map_err(told)?;
            Ok(CheckedKey::Encrypting(key.arn))
        }
        (KmsMode::KmsSign, KeyKind::Encrypting) => {
            Err(wrong("must be a key of kind ECC_NIST_P256, SIGN_VERIFY for keyMode kms_sign".to_owned()))
        }
        (KmsMode::Envelope, KeyKind::Signing) => Err(wrong(
            "must be a key of kind SYMMETRIC_DEFAULT, ENCRYPT_DECRYPT for keyMode envelope".to_owned(),
        )),
    }
}

/// Makes the key the pool's, and nobody else's. Answers with the backend as the pool keeps it.
pub(super) async fn claim(
    tx: &mut PgConnection,
    pool: PoolId,
    mode: KmsMode,
    key: &CheckedKey,
    now: OffsetDateTime,
) -> Result<KeyBackend, ChangeError> {
    let claimed = match key {
        CheckedKey::Signing(key) => {
            if store::kms_key::has_ended(tx, &key.public.thumbprint()).await? {
                let detail = "has signed for this pool and does so no more: a key serves once".to_owned();
                return Err(ChangeError::Wrong { field: KMS_KEY_ID, detail });
            }
            store::kms_key::claim_signing(tx, pool, key, now).await?
        }
        CheckedKey::Encrypting(arn) => store::kms_key::claim_encrypting(tx, pool, arn, now).await?,
    };
    if !claimed {
        let detail = "is taken: a KMS key serves one client pool, or is the root";
        return Err(ChangeError::Taken { field: KMS_KEY_ID, detail });
    }
    Ok(KeyBackend::AwsKms { mode, key_id: key.arn().to_string() })
}
