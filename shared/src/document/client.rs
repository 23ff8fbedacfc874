use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::Document;
use crate::client_jwk::ClientJwks;
use crate::id::{ClientAppId, DeviceId};
use crate::scope::Scopes;
use crate::secret::SecretHash;
use crate::status_list::StatusBlock;
use crate::time::UnixTime;

/// `v1/client/{pool}/{client_id}`: an OAuth client, and what its tokens say.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ClientDocument {
    /// Whether it may have tokens.
    pub status: ClientStatus,
    /// The hashes of the secrets that it may prove itself with: the current one, and for a while the one before.
    pub secrets: Vec<StoredSecret>,
    /// The scopes that it may ask for; without a `scope` parameter it gets them all.
    pub scopes: Scopes,
    /// Whom its tokens speak for.
    pub subject: ClientSubject,
    /// The public keys that it may prove itself with (RFC 7523 §2.2).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub jwks: Option<ClientJwks>,
    /// The `aud` of its tokens, in the place of the pool's; the pool's where there is none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub audience: Vec<String>,
    /// Where the status of its tokens is found. None until it has a place: then its tokens live five minutes at most.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status_block: Option<StatusBlock>,
}

/// Whether a client may have tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ClientStatus {
    /// It may.
    Enabled,
    /// It, or its device, has been disabled.
    Disabled,
}

/// A secret's hash and how long it counts.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct StoredSecret {
    /// The SHA-256 of the secret.
    pub sha256: SecretHash,
    /// From when on it counts no longer; none for the current one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<UnixTime>,
}

/// Whom a client's tokens speak for.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ClientSubject {
    /// A device, of which the client is an app: `sub` is the device id.
    Device(DeviceClaims),
    /// Itself, a service that is bound to no device: `sub` is the client id.
    Service,
}

/// The claims of a device's tokens that do not change from token to token (api.md §3).
///
/// Metadata and tags stay the JSON text that the control plane wrote: the edge copies them and never looks inside.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct DeviceClaims {
    /// The device: the tokens' `sub`.
    pub device_id: DeviceId,
    /// Which of the device's apps the client is.
    pub client_app_id: ClientAppId,
    /// The device's metadata, a JSON object.
    pub metadata: Box<RawValue>,
    /// The environment's tag names with the device's values, `*` where it sets none, and the device's own tags: a JSON
    /// object of strings.
    pub tags: Box<RawValue>,
    /// Where the device finds its first server.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub primary_server_url: Option<String>,
    /// Where it finds all of them.
    pub server_urls: Vec<String>,
}

impl Document for ClientDocument {
    const TYP: &'static str = "keypost-client+jws";
    const EXPIRES: bool = false;
}
