//! Public keys as JSON Web Keys (RFC 7517, RFC 7518 §6.2), and key sets.

use base64ct::{Base64UrlUnpadded, Encoding};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::id::Kid;

/// A signature algorithm that Keypost's own keys use (RFC 7518 §3.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum SigningAlg {
    /// ECDSA with P-256 and SHA-256; the signature is r‖s, 64 bytes.
    ES256,
}

/// A public P-256 key.
///
/// The coordinates are kept in their text form: a point is checked by whoever imports it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EcPublicJwk {
    /// Always `EC`.
    pub kty: EcKeyType,
    /// Always `P-256`.
    pub crv: P256Curve,
    /// The x coordinate, 32 bytes in base64url.
    pub x: String,
    /// The y coordinate, 32 bytes in base64url.
    pub y: String,
}

/// The one `kty` that [`EcPublicJwk`] has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum EcKeyType {
    /// Elliptic curve.
    EC,
}

/// The one `crv` that [`EcPublicJwk`] has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum P256Curve {
    /// NIST P-256.
    #[serde(rename = "P-256")]
    P256,
}

impl EcPublicJwk {
    /// A key from its two coordinates, big-endian.
    pub fn from_coordinates(x: &[u8; 32], y: &[u8; 32]) -> Self {
        Self {
            kty: EcKeyType::EC,
            crv: P256Curve::P256,
            x: Base64UrlUnpadded::encode_string(x),
            y: Base64UrlUnpadded::encode_string(y),
        }
    }

    /// The coordinates, or `None` where they are not 32 bytes in base64url each. Not yet a point on the curve.
    pub fn coordinates(&self) -> Option<([u8; 32], [u8; 32])> {
        Some((decode_32(&self.x)?, decode_32(&self.y)?))
    }

    /// The key's thumbprint (RFC 7638), which is the `kid` of all of Keypost's keys.
    pub fn thumbprint(&self) -> Kid {
        // RFC 7638 §3: the required members alone, in lexicographic order, without white space. The coordinates come
        // from base64url text that `serde_json` need not escape, so the form is exact.
        let canonical = format!(r#"{{"crv":"P-256","kty":"EC","x":"{}","y":"{}"}}"#, self.x, self.y);
        Kid::from_digest(&Sha256::digest(canonical.as_bytes()).into())
    }
}

/// A public key as it stands in a key set: the key, and what it is for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "JwkMembers")]
pub struct Jwk {
    /// The key itself.
    #[serde(flatten)]
    pub key: EcPublicJwk,
    /// Its id within the set.
    pub kid: Kid,
    /// Always `sig` (RFC 7517 §4.2).
    #[serde(rename = "use")]
    pub key_use: SignatureUse,
    /// The algorithm that it is used with.
    pub alg: SigningAlg,
}

/// The same, read member by member: serde would read a flattened struct twice, by code that the edge has for nothing else.
#[derive(Deserialize)]
struct JwkMembers {
    kty: EcKeyType,
    crv: P256Curve,
    x: String,
    y: String,
    kid: Kid,
    #[serde(rename = "use")]
    key_use: SignatureUse,
    alg: SigningAlg,
}

impl From<JwkMembers> for Jwk {
    fn from(members: JwkMembers) -> Self {
        let JwkMembers { kty, crv, x, y, kid, key_use, alg } = members;
        Self { key: EcPublicJwk { kty, crv, x, y }, kid, key_use, alg }
    }
}

/// The one `use` that [`Jwk`] has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum SignatureUse {
    /// Signatures.
    #[serde(rename = "sig")]
    Sig,
}

impl Jwk {
    /// An ES256 verification key under its thumbprint.
    pub fn es256(key: EcPublicJwk) -> Self {
        Self { kid: key.thumbprint(), key, key_use: SignatureUse::Sig, alg: SigningAlg::ES256 }
    }
}

/// A JWK Set (RFC 7517 §5).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct JwkSet {
    /// The keys: `next`, `active` and `retiring` ones.
    pub keys: Vec<Jwk>,
}

fn decode_32(text: &str) -> Option<[u8; 32]> {
    let mut bytes = [0; 32];
    let length = Base64UrlUnpadded::decode(text, &mut bytes).ok()?.len();
    (length == 32).then_some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thumbprint_is_that_of_rfc_7638() {
        // The P-256 key of RFC 7517 appendix A.1; the thumbprint was computed with Python's hashlib over the
        // canonical form of RFC 7638 §3.
        let key: EcPublicJwk = serde_json::from_str(
            r#"{"kty":"EC","crv":"P-256","x":"MKBCTNIcKUSDii11ySs3526iDZ8AiTo7Tu6KPAqv7D4",
                "y":"4Etl6SRW2YiLUrN5vfvVHuhp7x8PxltmWWlbbM4IFyM"}"#,
        )
        .unwrap();
        assert_eq!(key.thumbprint().as_str(), "cn-I_WNMClehiVp51i_0VpOENW1upEerA8sEam5hn-s");
    }

    #[test]
    fn only_p256_signature_keys_are_read() {
        for bad in [
            r#"{"kty":"RSA","n":"AQAB","e":"AQAB"}"#,
            r#"{"kty":"EC","crv":"P-384","x":"AA","y":"AA"}"#,
            r#"{"kty":"oct","k":"AA"}"#,
        ] {
            assert!(serde_json::from_str::<EcPublicJwk>(bad).is_err());
        }
        let short = EcPublicJwk { x: "AA".into(), ..EcPublicJwk::from_coordinates(&[1; 32], &[2; 32]) };
        assert!(short.coordinates().is_none());
    }
}
