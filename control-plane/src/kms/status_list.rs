//! Token Status Lists that a key signs which never leaves KMS.

use keypost_shared::host;
use keypost_shared::id::Kid;
use keypost_shared::jwk::EcPublicJwk;
use keypost_shared::jws;
use keypost_shared::kms::NotAKeyArn;
use keypost_shared::status_list::StatusListClaims;

use super::{Kms, KmsError};

/// Why a list was not signed.
#[derive(Debug, thiserror::Error)]
pub enum StatusListError {
    /// KMS did not.
    #[error(transparent)]
    Kms(#[from] KmsError),
    /// It did, with a key that is not the pool's.
    #[error("it was signed with another key than the pool's")]
    OtherKey,
    /// The row names no KMS key.
    #[error("the KMS key in the database {0}")]
    Name(#[from] NotAKeyArn),
    /// It does not serialise.
    #[error("it does not serialise: {0}")]
    Json(#[from] serde_json::Error),
}

impl Kms {
    /// The Status List Token, signed by the key of this ARN, which must be the one that the pool's key set has.
    pub async fn sign_status_list(
        &self,
        kms_key_id: &str,
        (kid, public): (&Kid, &EcPublicJwk),
        claims: &StatusListClaims,
    ) -> Result<String, StatusListError> {
        let input = claims.signing_input(kid)?;
        let signature = self.sign(&kms_key_id.parse()?, input.as_bytes()).await?;
        match host::verify(public, input.as_bytes(), &signature) {
            Ok(true) => Ok(jws::append_signature(input, &signature)),
            _ => Err(StatusListError::OtherKey),
        }
    }
}
