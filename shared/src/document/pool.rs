use serde::{Deserialize, Serialize};

use super::Document;
use crate::device_certificate::{DeniedCertificate, DeviceDefaults, PoolTrustAnchor, ProvisioningPolicy};
use crate::id::Kid;
use crate::jwk::{JwkSet, SigningAlg};
use crate::kms::KmsKeyArn;

/// `v1/pool/{pool}`: all that the edge must know of a client pool.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PoolDocument {
    /// Who is in the pool.
    pub kind: PoolKind,
    /// The issuer, to the letter (RFC 8414 §2): never made from a request's `Host`.
    pub issuer: String,
    /// How long an access token lives, in seconds.
    pub token_ttl: u64,
    /// The longest lifetime, in seconds, that a token of this pool still unexpired may have had: key sets and metadata
    /// are served that much longer than `next_update`.
    pub longest_token_ttl: u64,
    /// Which claims a token carries.
    pub claims_profile: ClaimsProfile,
    /// The tokens' `aud`; with profile `rfc9068` and none here, the issuer.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub audience: Vec<String>,
    /// The keys that verifiers may meet: next, active and retiring.
    pub jwks: JwkSet,
    /// The key that signs. None where the edge signs nothing (pools of kind `sso`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signing_key: Option<PoolSigningKey>,
    /// The origins that browsers may POST from (CORS).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub cors_origins: Vec<String>,
    /// The roots that devices' certificates lead to.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub trust_anchors: Vec<PoolTrustAnchor>,
    /// The certificates that must not be in any chain.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub denied_certificates: Vec<DeniedCertificate>,
    /// What certificates may do. By default, those of registered devices may authenticate them.
    #[serde(default)]
    pub provisioning: ProvisioningPolicy,
    /// What a new device has from its environment.
    #[serde(default)]
    pub device_defaults: DeviceDefaults,
    /// Whether a token got by certificate says so: `cnf` with `x5t#S256` (RFC 8705 §3.1).
    #[serde(default)]
    pub bind_to_certificate: bool,
    /// In how many shards the pool's revocation list stands. Without one there, nothing is issued. 0 in documents from
    /// before there was one.
    #[serde(default)]
    pub revocation_shards: u32,
    /// How many Token Status Lists the pool has.
    #[serde(default)]
    pub status_lists: u32,
    /// For pools of kind `sso`: the control plane's public URL, at which people sign in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sign_in_url: Option<String>,
    /// Whether the pool has been deleted: what verifies its tokens is still there, and nothing else.
    #[serde(default)]
    pub deleted: bool,
}

/// The longest that a token may live, in seconds. A pool document that says more does not count: a stolen publisher key
/// must not make anything that outlives `v1/trust` by more than this.
pub const MAX_TOKEN_TTL: u64 = 86_400;

/// Who is in a pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PoolKind {
    /// Devices and service clients of one environment.
    Device,
    /// The people of one organization: only the control plane signs for them.
    Sso,
}

/// The shape of an access token's claims (api.md §3).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ClaimsProfile {
    /// `typ` `JWT`, `scope` as an array.
    Device,
    /// RFC 9068: `typ` `at+jwt`, `scope` as a string, `aud` always there.
    Rfc9068,
}

/// The pool's active key, as the edge can use it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "PoolSigningKeyMembers")]
pub struct PoolSigningKey {
    /// Its id in the key set.
    pub kid: Kid,
    /// What it signs with.
    pub alg: SigningAlg,
    /// Its private half, or who has that.
    #[serde(flatten)]
    pub private: PrivateHalf,
}

/// The same, read member by member, as [`crate::jwk::Jwk`] is.
#[derive(Deserialize)]
struct PoolSigningKeyMembers {
    kid: Kid,
    alg: SigningAlg,
    jwe: Option<String>,
    kms: Option<KmsKeyArn>,
}

impl TryFrom<PoolSigningKeyMembers> for PoolSigningKey {
    type Error = &'static str;

    fn try_from(members: PoolSigningKeyMembers) -> Result<Self, Self::Error> {
        let PoolSigningKeyMembers { kid, alg, jwe, kms } = members;
        let private = match (jwe, kms) {
            (Some(jwe), None) => PrivateHalf::Jwe(jwe),
            (None, Some(key)) => PrivateHalf::Kms(key),
            (None, None) | (Some(_), Some(_)) => return Err("a signing key has either jwe or kms"),
        };
        Ok(Self { kid, alg, private })
    }
}

/// Where the private half of a signing key is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PrivateHalf {
    /// Here, encrypted under the Worker's sealing key: a compact JWE ([`crate::jwe`]).
    Jwe(String),
    /// In AWS KMS, which the edge asks to sign (mode `kms_sign`).
    Kms(KmsKeyArn),
}

impl Document for PoolDocument {
    const TYP: &'static str = "keypost-pool+jws";
    const EXPIRES: bool = true;
}
