//! Keys that sign in AWS KMS (mode `kms_sign`): the edge asks KMS itself, once for a token and at most once more.

use super::platform::{LogLevel, Platform, Post, PostError};
use super::{Context, KmsAccess};
use crate::crypto::{CryptoError, ES256_SIGNATURE_LENGTH};
use crate::kms::KmsKeyArn;
use crate::kms::sign::{self, SignError};
use crate::kms::sigv4::{self, Unsigned};

/// How long one try may take, in milliseconds. KMS usually answers in some 10 ms, more from far away.
const TRY_TIMEOUT_MS: u32 = 2_000;
/// How often KMS is asked for one token.
const TRIES: u32 = 2;

/// A key in KMS, ready to be asked.
pub(super) struct KmsSigner<V> {
    key: KmsKeyArn,
    /// The origin to ask, without a slash at the end.
    origin: String,
    access: KmsAccess,
    public: V,
}

/// Why there is no signature.
#[derive(Debug, thiserror::Error)]
pub(super) enum KmsSignError {
    #[error(transparent)]
    Sign(#[from] SignError),
    #[error("KMS: {0}")]
    Post(#[from] PostError),
    /// It is the signature of another key, or of something else. A token with it would be refused everywhere, so it is
    /// worth 0.05 ms after the milliseconds that KMS takes.
    #[error("KMS signed with another key than the one in the key set")]
    OtherKey,
    #[error(transparent)]
    Crypto(#[from] CryptoError),
    #[error("the request does not serialise: {0}")]
    Json(#[from] serde_json::Error),
}

impl KmsSignError {
    fn may_pass(&self) -> bool {
        match self {
            Self::Sign(error) => error.may_pass(),
            Self::Post(_) => true,
            Self::OtherKey | Self::Crypto(_) | Self::Json(_) => false,
        }
    }
}

impl<V> KmsSigner<V> {
    /// A key that is asked for signatures which `public` verifies. None in a part of AWS whose addresses are not known,
    /// unless one is configured.
    pub(super) fn new(key: &KmsKeyArn, access: &KmsAccess, public: V) -> Option<Self> {
        let origin = access.endpoint.clone().or_else(|| key.endpoint())?;
        Some(Self { key: key.clone(), origin, access: access.clone(), public })
    }

    pub(super) fn is_of(&self, key: &KmsKeyArn) -> bool {
        self.key == *key
    }

    /// Has KMS sign with ES256.
    pub(super) async fn sign<P: Platform<VerifyingKey = V>>(
        &self,
        context: &Context<'_, P>,
        message: &[u8],
    ) -> Result<[u8; ES256_SIGNATURE_LENGTH], KmsSignError> {
        let mut tries = 0;
        loop {
            tries += 1;
            match self.try_once(context, message).await {
                Err(error) if tries < TRIES && error.may_pass() => {
                    let detail = format!("{}: {error}; asking once more", self.key);
                    context.log(LogLevel::Warn, "kms_failed", &detail);
                }
                outcome => return outcome,
            }
        }
    }

    async fn try_once<P: Platform<VerifyingKey = V>>(
        &self,
        context: &Context<'_, P>,
        message: &[u8],
    ) -> Result<[u8; ES256_SIGNATURE_LENGTH], KmsSignError> {
        let body = String::from_utf8(sign::request(&self.key, message)?).unwrap_or_default();
        let own = [("content-type", sign::CONTENT_TYPE), ("x-amz-target", sign::TARGET)];
        let unsigned = Unsigned {
            host: self.origin.split_once("://").map_or("", |(_, host)| host),
            path: "/",
            headers: &own,
            body: body.as_bytes(),
            region: self.key.region(),
            service: "kms",
        };
        // The time of now: the request may have waited for KV since it came.
        let mut headers = sigv4::headers(&unsigned, &self.access.credentials, context.platform.now());
        headers.extend(own.map(|(name, value)| (name, value.to_owned())));
        let url = format!("{}/", self.origin);
        let post = Post { url: &url, headers: &headers, body: &body, timeout_ms: TRY_TIMEOUT_MS };
        let answer = context.platform.post(post).await?;
        let signature = sign::signature(answer.status, &answer.body)?;
        if context.platform.verify(&self.public, message, &signature).await? {
            Ok(signature)
        } else {
            Err(KmsSignError::OtherKey)
        }
    }
}
