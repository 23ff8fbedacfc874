use std::time::Duration;

use keypost::config::KvConfig;
use keypost::kv::Metadata;
use keypost_shared::crypto::Crypto;
use keypost_shared::document::{Document, TrustDocument, UnverifiedDocument, Verified};
use keypost_shared::host::HostCrypto;
use keypost_shared::jwk::EcPublicJwk;
use keypost_shared::kv_key::KvKey;
use keypost_shared::secret::SecretText;
pub(crate) use kv_stand_in::Fault;
use kv_stand_in::{CallKind, KvStandIn, Limits, NAMESPACE, Options, Report};
use serde_json::{Value, json};
use tokio::time::Instant;

/// Cloudflare's KV, or what stands in for it.
pub(crate) struct KvServer {
    stand_in: KvStandIn,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Stored {
    pub(crate) value: String,
    pub(crate) metadata: Metadata,
}

/// A call that wrote or deleted.
#[derive(Clone, Debug)]
pub(crate) struct Call {
    pub(crate) at: Instant,
    pub(crate) keys: Vec<String>,
    pub(crate) delete: bool,
}

impl KvServer {
    /// The publisher's clock is a test's here, so nobody can ask of it that a second lies between two writes. Pages of a
    /// list are short, so that there is more than one.
    pub(crate) async fn start() -> Self {
        Self::start_with(Limits { write_interval: Duration::ZERO, page: 3, ..Limits::default() })
    }

    pub(crate) fn start_with(limits: Limits) -> Self {
        let stand_in = KvStandIn::start(Options { limits, ..Options::default() });
        Self { stand_in }
    }

    pub(crate) fn token(&self) -> &str {
        self.stand_in.token()
    }

    pub(crate) fn config(&self) -> KvConfig {
        KvConfig {
            api_url: self.stand_in.api_url().parse().unwrap(),
            namespace_id: NAMESPACE.to_owned(),
            api_token: Some(SecretText::new(self.stand_in.token().to_owned())),
            batch_size: 500,
            timeout: Duration::from_secs(20),
        }
    }

    /// What happens to the next calls, one after the other.
    pub(crate) fn fail_next(&self, faults: impl IntoIterator<Item = Fault>) {
        self.stand_in.fail_next(faults);
    }

    /// From now on every call is carried out.
    pub(crate) fn recover(&self) {
        self.stand_in.recover();
    }

    /// Carries out, late, all calls that hung.
    pub(crate) fn land_lost_calls(&self) {
        self.stand_in.land_lost_calls();
    }

    pub(crate) fn get(&self, key: &KvKey) -> Option<Stored> {
        let entry = self.stand_in.get(&key.to_string())?;
        Some(Stored { value: entry.value, metadata: serde_json::from_value(entry.metadata).unwrap() })
    }

    /// What stands at a key of any kind.
    pub(crate) fn value(&self, key: &str) -> Option<String> {
        Some(self.stand_in.get(key)?.value)
    }

    pub(crate) fn keys(&self) -> Vec<String> {
        self.stand_in.keys()
    }

    /// Writes a value as the edge does.
    pub(crate) fn write(&self, key: &str, value: &str) {
        self.stand_in.write(key, value, Value::Null);
    }

    /// Puts a document back that was once there.
    pub(crate) fn replay(&self, key: &KvKey, stored: &Stored) {
        self.stand_in.write(&key.to_string(), &stored.value, json!(stored.metadata));
    }

    /// Deletes a document behind the publisher's back.
    pub(crate) fn delete(&self, key: &KvKey) {
        self.stand_in.delete(&key.to_string());
    }

    pub(crate) fn calls(&self) -> Vec<Call> {
        let calls = self.stand_in.calls().into_iter().filter(|call| call.kind != CallKind::Read);
        calls
            .map(|call| Call { at: call.at.into(), keys: call.keys, delete: call.kind == CallKind::Delete })
            .collect()
    }

    pub(crate) fn report(&self) -> Report {
        self.stand_in.report()
    }

    /// The document at `key`, if everything from the root down verifies, as the edge would have it.
    pub(crate) async fn verified<T: Document>(
        &self,
        root: &EcPublicJwk,
        key: &KvKey,
    ) -> Result<Verified<T>, String> {
        let text = |key: &KvKey| self.get(key).map(|stored| stored.value).ok_or(format!("{key} is missing"));
        let trust_text = text(&KvKey::Trust)?;
        let trust: Verified<TrustDocument> = verify(&trust_text, root, &KvKey::Trust).await?;
        let document_text = text(key)?;
        let kid = UnverifiedDocument::parse(&document_text).map_err(|error| error.to_string())?.kid().clone();
        let signer = trust.document.publisher_keys.iter().find(|listed| listed.thumbprint() == kid);
        verify(&document_text, signer.ok_or("its signer is not trusted")?, key).await
    }

    /// The trust document.
    pub(crate) async fn trust(&self, root: &EcPublicJwk) -> Result<Verified<TrustDocument>, String> {
        let stored = self.get(&KvKey::Trust).ok_or("v1/trust is missing")?;
        verify(&stored.value, root, &KvKey::Trust).await
    }
}

async fn verify<T: Document>(text: &str, signer: &EcPublicJwk, key: &KvKey) -> Result<Verified<T>, String> {
    let verifying_key = HostCrypto.import_public(signer).await.map_err(|error| error.to_string())?;
    let document = UnverifiedDocument::parse(text).map_err(|error| error.to_string())?;
    let signed = document.verify(&HostCrypto, &verifying_key).await.map_err(|error| error.to_string())?;
    signed.read(key).map_err(|error| error.to_string())
}
