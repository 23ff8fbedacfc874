//! AWS KMS, by AWS's own library. Nothing here is used, and nothing asked for, unless the root or a pool has its key there.
//!
//! Calls are few and do not grow with devices or tokens: a signature for each `v1/trust`, one data key for a new signing
//! key and one decryption of it in each process, one key made for each rotation of a pool in mode `kms_sign`.

mod connection;
mod error;
mod failing;
mod status_list;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use aws_sdk_kms::config::Region;
use aws_sdk_kms::primitives::Blob;
use aws_sdk_kms::types::{
    DataKeySpec, KeySpec, KeyState, KeyUsageType, MessageType, SigningAlgorithmSpec, Tag,
};
use aws_sdk_kms::{Client, Config};
use keypost_shared::crypto::ES256_SIGNATURE_LENGTH;
use keypost_shared::host;
use keypost_shared::id::{Kid, PoolId};
use keypost_shared::jwk::EcPublicJwk;
use keypost_shared::kms::KmsKeyArn;
use keypost_shared::kms::sign::{SignInput, raw_signature};
use tokio::sync::OnceCell;
use tokio::time::Instant;
use zeroize::Zeroizing;

pub use self::connection::KmsAccess;
pub use self::error::{KmsError, KmsProblem};
use self::failing::Failing;
pub use self::status_list::StatusListError;
use crate::metrics::Metrics;

/// How long calls may take.
#[derive(Clone, Copy, Debug)]
pub struct KmsTimes {
    /// A single try.
    pub attempt: Duration,
    /// All tries together, with the pauses between them.
    pub operation: Duration,
}

impl Default for KmsTimes {
    fn default() -> Self {
        Self { attempt: Duration::from_secs(3), operation: Duration::from_secs(8) }
    }
}

/// AWS KMS, reached when it is first needed.
#[derive(Clone)]
pub struct Kms(Arc<Inner>);

struct Inner {
    access: KmsAccess,
    times: KmsTimes,
    config: OnceCell<Config>,
    metrics: Metrics,
    failing: Failing,
}

/// What KMS says a key is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyDescription {
    /// Its full name.
    pub arn: KmsKeyArn,
    /// What it does.
    pub kind: KeyKind,
}

/// What a KMS key that Keypost can use does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyKind {
    /// It signs with P-256 (ECC_NIST_P256, SIGN_VERIFY).
    Signing,
    /// It encrypts data keys (SYMMETRIC_DEFAULT, ENCRYPT_DECRYPT).
    Encrypting,
}

/// A data key: what it is, and what opens it again.
pub struct DataKey {
    /// 256 bits.
    pub plaintext: Zeroizing<[u8; 32]>,
    /// The same, encrypted under the KMS key.
    pub encrypted: Vec<u8>,
}

/// What a data key belongs to. KMS authenticates it, and CloudTrail shows it: it must not be secret.
#[derive(Clone, Debug)]
pub struct EncryptionContext(HashMap<String, String>);

impl EncryptionContext {
    /// That of a pool's signing key.
    pub fn of_signing_key(pool: PoolId, kid: &Kid) -> Self {
        let pairs = [("keypost:pool", pool.to_string()), ("keypost:kid", kid.to_string())];
        Self(pairs.map(|(name, value)| (name.to_owned(), value)).into())
    }
}

impl Kms {
    /// KMS as it is reached so; asked for nothing yet.
    pub fn new(access: KmsAccess, times: KmsTimes, metrics: Metrics) -> Self {
        let (config, failing) = (OnceCell::new(), Failing::default());
        Self(Arc::new(Inner { access, times, config, metrics, failing }))
    }

    /// How many keys cannot do what they are needed for: the last call for it failed, and that was not long ago.
    pub fn failing(&self) -> u64 {
        self.0.failing.count(Instant::now())
    }

    /// What a key is, by whatever name it is called: ARN, id or alias. An error where it is not enabled, or nothing that
    /// Keypost can use.
    pub async fn describe(&self, key: &str) -> Result<KeyDescription, KmsError> {
        let call = Call { operation: "DescribeKey", key, needed: false };
        self.run(call, async |client| {
            let answer = client.describe_key().key_id(key).send().await?;
            let key = answer.key_metadata.ok_or(KmsProblem::Malformed("no metadata"))?;
            let arn = key.arn.as_deref().and_then(|arn| arn.parse().ok());
            let arn = arn.ok_or(KmsProblem::Malformed("no ARN"))?;
            match key.key_state {
                None | Some(KeyState::Enabled) => {}
                Some(KeyState::Disabled) => return Err(KmsProblem::Disabled),
                Some(other) => return Err(KmsProblem::InvalidState(other.as_str().to_owned())),
            }
            let kind = match (key.key_usage, key.key_spec) {
                (Some(KeyUsageType::SignVerify), Some(KeySpec::EccNistP256)) => KeyKind::Signing,
                (Some(KeyUsageType::EncryptDecrypt), Some(KeySpec::SymmetricDefault)) => KeyKind::Encrypting,
                (usage, spec) => {
                    let usage = usage.as_ref().map_or("no usage", |usage| usage.as_str());
                    let spec = spec.as_ref().map_or("no spec", |spec| spec.as_str());
                    return Err(KmsProblem::WrongKey(format!("it is {spec}, {usage}")));
                }
            };
            Ok(KeyDescription { arn, kind })
        })
        .await
    }

    /// The public half of a key that signs.
    pub async fn public_key(&self, key: &KmsKeyArn) -> Result<EcPublicJwk, KmsError> {
        let call = Call { operation: "GetPublicKey", key: key.as_str(), needed: false };
        self.run(call, async |client| {
            let answer = client.get_public_key().key_id(key.as_str()).send().await?;
            let spki = answer.public_key.ok_or(KmsProblem::Malformed("no public key"))?;
            host::public_from_spki(spki.as_ref())
                .map_err(|_| KmsProblem::Malformed("a public key of another kind"))
        })
        .await
    }

    /// Signs with ES256, r‖s. What comes back is verified by whoever knows the public half.
    pub async fn sign(
        &self,
        key: &KmsKeyArn,
        message: &[u8],
    ) -> Result<[u8; ES256_SIGNATURE_LENGTH], KmsError> {
        let call = Call { operation: "Sign", key: key.as_str(), needed: true };
        self.run(call, async |client| {
            let input = SignInput::of(message);
            let kind = match input {
                SignInput::Raw(_) => MessageType::Raw,
                SignInput::Digest(_) => MessageType::Digest,
            };
            let answer = client
                .sign()
                .key_id(key.as_str())
                .message(Blob::new(input.bytes()))
                .message_type(kind)
                .signing_algorithm(SigningAlgorithmSpec::EcdsaSha256)
                .send()
                .await?;
            let signature = answer.signature.as_ref().and_then(|der| raw_signature(der.as_ref()));
            signature.ok_or(KmsProblem::Malformed("no signature"))
        })
        .await
    }

    /// A new data key.
    pub async fn generate_data_key(
        &self,
        key: &KmsKeyArn,
        context: &EncryptionContext,
    ) -> Result<DataKey, KmsError> {
        self.make_data_key(key, context, true).await
    }

    /// Makes a data key and opens it again, to see whether both work.
    pub async fn try_data_key(&self, key: &KmsKeyArn, pool: PoolId) -> Result<(), KmsError> {
        let pairs = [("keypost:pool", pool.to_string()), ("keypost:kid", "none, this is a test".to_owned())];
        let context = EncryptionContext(pairs.map(|(name, value)| (name.to_owned(), value)).into());
        let made = self.make_data_key(key, &context, false).await?;
        self.open_data_key(key, &made.encrypted, &context, false).await?;
        Ok(())
    }

    async fn make_data_key(
        &self,
        key: &KmsKeyArn,
        context: &EncryptionContext,
        needed: bool,
    ) -> Result<DataKey, KmsError> {
        let call = Call { operation: "GenerateDataKey", key: key.as_str(), needed };
        self.run(call, async |client| {
            let answer = client
                .generate_data_key()
                .key_id(key.as_str())
                .key_spec(DataKeySpec::Aes256)
                .set_encryption_context(Some(context.0.clone()))
                .send()
                .await?;
            let encrypted = answer.ciphertext_blob.ok_or(KmsProblem::Malformed("no data key"))?;
            Ok(DataKey { plaintext: plaintext(answer.plaintext)?, encrypted: encrypted.into_inner() })
        })
        .await
    }

    /// Opens a data key that was made under this key and for this context.
    pub async fn decrypt(
        &self,
        key: &KmsKeyArn,
        encrypted: &[u8],
        context: &EncryptionContext,
    ) -> Result<Zeroizing<[u8; 32]>, KmsError> {
        self.open_data_key(key, encrypted, context, true).await
    }

    async fn open_data_key(
        &self,
        key: &KmsKeyArn,
        encrypted: &[u8],
        context: &EncryptionContext,
        needed: bool,
    ) -> Result<Zeroizing<[u8; 32]>, KmsError> {
        let call = Call { operation: "Decrypt", key: key.as_str(), needed };
        self.run(call, async |client| {
            let answer = client
                .decrypt()
                .key_id(key.as_str())
                .ciphertext_blob(Blob::new(encrypted))
                .set_encryption_context(Some(context.0.clone()))
                .send()
                .await?;
            plaintext(answer.plaintext)
        })
        .await
    }

    /// Makes a key that signs for a pool, in the region of the pool's key before.
    pub async fn create_signing_key(&self, pool: PoolId, before: &KmsKeyArn) -> Result<KmsKeyArn, KmsError> {
        let call = Call { operation: "CreateKey", key: before.as_str(), needed: true };
        let arn = self
            .run(call, async |client| {
                let tag = |name: &str, value: String| {
                    Tag::builder()
                        .tag_key(name)
                        .tag_value(value)
                        .build()
                        .map_err(|_| KmsProblem::Malformed("a tag"))
                };
                let answer = client
                    .create_key()
                    .key_spec(KeySpec::EccNistP256)
                    .key_usage(KeyUsageType::SignVerify)
                    .description(format!("Keypost: signs the tokens of client pool {pool}"))
                    .tags(tag("keypost", "signing-key".to_owned())?)
                    .tags(tag("keypost:pool", pool.to_string())?)
                    .send()
                    .await?;
                let arn = answer.key_metadata.and_then(|key| key.arn?.parse::<KmsKeyArn>().ok());
                arn.ok_or(KmsProblem::Malformed("no ARN"))
            })
            .await?;
        tracing::info!(%pool, key = %arn, "a key has been made in KMS");
        Ok(arn)
    }

    /// Makes a call, counts it and notes how it went.
    async fn run<T>(
        &self,
        call: Call<'_>,
        ask: impl AsyncFnOnce(Client) -> Result<T, KmsProblem>,
    ) -> Result<T, KmsError> {
        let Call { operation, key, needed } = call;
        let outcome = match self.client(key).await {
            // In a box: the futures of AWS's library are large, and deeply nested.
            Ok(client) => Box::pin(ask(client)).await,
            Err(problem) => Err(problem),
        };
        self.0.metrics.kms_call(operation, outcome.as_ref().map_or_else(KmsProblem::code, |_| "ok"));
        if needed {
            self.0.failing.note(operation, key, outcome.is_err(), Instant::now());
        }
        outcome.map_err(|problem| KmsError { operation, key: key.to_owned(), problem })
    }

    /// A client for the region of the key, or the configured one where the key's name does not say it.
    async fn client(&self, key: &str) -> Result<Client, KmsProblem> {
        let config =
            self.0.config.get_or_init(|| Box::pin(connection::config(&self.0.access, self.0.times))).await;
        let region = key.parse().ok().map(|arn: KmsKeyArn| Region::new(arn.region().to_owned()));
        match region {
            Some(region) if config.region() != Some(&region) => {
                Ok(Client::from_conf(config.to_builder().region(region).build()))
            }
            None if config.region().is_none() => Err(KmsProblem::NoRegion),
            _ => Ok(Client::from_conf(config.clone())),
        }
    }
}

struct Call<'a> {
    /// As AWS names it.
    operation: &'static str,
    key: &'a str,
    /// Whether something stands still where it fails; otherwise whoever named the key hears of it.
    needed: bool,
}

fn plaintext(blob: Option<Blob>) -> Result<Zeroizing<[u8; 32]>, KmsProblem> {
    let bytes = Zeroizing::new(blob.map(Blob::into_inner).unwrap_or_default());
    let mut key = Zeroizing::new([0; 32]);
    if bytes.len() != key.len() {
        return Err(KmsProblem::Malformed("a data key that has not 32 bytes"));
    }
    key.copy_from_slice(&bytes);
    Ok(key)
}
