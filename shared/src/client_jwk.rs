//! The public keys that a client registered to authenticate with (`private_key_jwt`, RFC 7523 §2.2).

use base64ct::{Base64UrlUnpadded, Encoding};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::certificate::asn1::{Element, positive};
use crate::certificate::asn1_write::{BIT_STRING, SEQUENCE, tlv, unsigned};
use crate::certificate::{Curve, KeyKind, Problem, key_kind};

/// A client's keys, as its document carries them: those that Keypost can verify with, and only what it needs of each.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClientJwks {
    /// The keys, in the order in which they were registered.
    pub keys: Vec<ClientJwk>,
}

/// A public key of a client.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClientJwk {
    /// The key itself.
    #[serde(flatten)]
    pub key: PublicJwk,
    /// What the client calls it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kid: Option<String>,
    /// The one algorithm that it is for; any that suits the key where there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub alg: Option<String>,
}

/// A public key (RFC 7518 §6.2.1 and §6.3.1). Its numbers stay base64url; whether they are a key is asked where it is
/// used.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kty")]
#[allow(missing_docs, reason = "the members are those of RFC 7518")]
pub enum PublicJwk {
    /// Elliptic curve.
    EC { crv: JwkCurve, x: String, y: String },
    /// RSA.
    RSA { n: String, e: String },
}

/// The curves of [`PublicJwk`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum JwkCurve {
    /// NIST P-256.
    #[serde(rename = "P-256")]
    P256,
    /// NIST P-384.
    #[serde(rename = "P-384")]
    P384,
}

impl ClientJwks {
    /// What there is to verify with in a JWK Set (RFC 7517 §5) as it was registered. Keys of other kinds or other uses,
    /// and members that mean nothing here, are left out.
    pub fn usable(registered: &Value) -> Self {
        let keys = registered.get("keys").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
        Self { keys: keys.iter().filter(|key| verifies(key)).filter_map(read).collect() }
    }
}

/// Whether `use` and `key_ops` let a key verify (RFC 7517 §4.2 and §4.3).
fn verifies(key: &Value) -> bool {
    let by_use = key.get("use").is_none_or(|purpose| purpose == "sig");
    let by_operations = match key.get("key_ops") {
        Some(operations) => {
            operations.as_array().is_some_and(|operations| operations.iter().any(|one| one == "verify"))
        }
        None => true,
    };
    by_use && by_operations
}

fn read(key: &Value) -> Option<ClientJwk> {
    let key: ClientJwk = serde_json::from_value(key.clone()).ok()?;
    let spki = key.key.to_spki()?;
    key_kind(&spki).is_ok().then_some(key)
}

impl PublicJwk {
    /// The DER of the key's SubjectPublicKeyInfo (RFC 5480 §2, RFC 3279 §2.3.1). None where a number is not base64url or a
    /// coordinate has the wrong length.
    pub fn to_spki(&self) -> Option<Vec<u8>> {
        match self {
            Self::EC { crv, x, y } => {
                let (curve, length) = match crv {
                    JwkCurve::P256 => (P256_OID, 32),
                    JwkCurve::P384 => (P384_OID, 48),
                };
                let (x, y) = (decode(x)?, decode(y)?);
                if x.len() != length || y.len() != length {
                    return None;
                }
                let algorithm = tlv(SEQUENCE, &[EC_PUBLIC_KEY_OID, curve].concat());
                // No unused bits, and an uncompressed point (SEC 1 §2.3.3).
                let point = tlv(BIT_STRING, &[&[0, 4], x.as_slice(), y.as_slice()].concat());
                Some(tlv(SEQUENCE, &[algorithm, point].concat()))
            }
            Self::RSA { n, e } => {
                let key = tlv(SEQUENCE, &[unsigned(&decode(n)?), unsigned(&decode(e)?)].concat());
                let algorithm = tlv(SEQUENCE, RSA_ENCRYPTION_AND_NULL);
                let key = tlv(BIT_STRING, &[&[0], key.as_slice()].concat());
                Some(tlv(SEQUENCE, &[algorithm, key].concat()))
            }
        }
    }

    /// The key in the DER of a SubjectPublicKeyInfo, where it is one that Keypost accepts.
    pub fn from_spki(spki: &[u8]) -> Option<Self> {
        let text = |number: &[u8]| Base64UrlUnpadded::encode_string(number);
        let bits = spki_bits(spki)?;
        Some(match key_kind(spki).ok()? {
            KeyKind::Rsa => {
                let mut numbers = Element::only(bits, "key").ok()?.fields("key").ok()?;
                let (n, e) = (numbers.next().ok()?, numbers.next().ok()?);
                Self::RSA { n: text(positive(n.content, "n").ok()?), e: text(positive(e.content, "e").ok()?) }
            }
            KeyKind::Ec(curve) => {
                let crv = match curve {
                    Curve::P256 => JwkCurve::P256,
                    Curve::P384 => JwkCurve::P384,
                };
                let (x, y) = bits.get(1..)?.split_at_checked(curve.coordinate_length())?;
                Self::EC { crv, x: text(x), y: text(y) }
            }
        })
    }

    /// The key's thumbprint (RFC 7638), in base64url.
    pub fn thumbprint(&self) -> String {
        // RFC 7638 §3: the required members alone, in lexicographic order. Base64url needs no escapes; a text that is
        // none was never a key.
        let canonical = match self {
            Self::EC { crv: JwkCurve::P256, x, y } => {
                format!(r#"{{"crv":"P-256","kty":"EC","x":"{x}","y":"{y}"}}"#)
            }
            Self::EC { crv: JwkCurve::P384, x, y } => {
                format!(r#"{{"crv":"P-384","kty":"EC","x":"{x}","y":"{y}"}}"#)
            }
            Self::RSA { n, e } => format!(r#"{{"e":"{e}","kty":"RSA","n":"{n}"}}"#),
        };
        Base64UrlUnpadded::encode_string(&Sha256::digest(canonical.as_bytes()))
    }

    /// What kind of key it is, where it is one that Keypost accepts.
    pub fn kind(&self) -> Result<KeyKind, Problem> {
        key_kind(&self.to_spki().ok_or(Problem::BadKey)?)
    }
}

/// OBJECT IDENTIFIER 1.2.840.10045.2.1
const EC_PUBLIC_KEY_OID: &[u8] = &[0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01];
/// OBJECT IDENTIFIER 1.2.840.10045.3.1.7
const P256_OID: &[u8] = &[0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07];
/// OBJECT IDENTIFIER 1.3.132.0.34
const P384_OID: &[u8] = &[0x06, 0x05, 0x2b, 0x81, 0x04, 0x00, 0x22];
/// OBJECT IDENTIFIER 1.2.840.113549.1.1.1, NULL
const RSA_ENCRYPTION_AND_NULL: &[u8] =
    &[0x06, 0x09, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x01, 0x05, 0x00];

/// The octets of a SubjectPublicKeyInfo's key.
fn spki_bits(spki: &[u8]) -> Option<&[u8]> {
    let mut fields = Element::only(spki, "key").ok()?.fields("key").ok()?;
    fields.next().ok()?;
    fields.next().ok()?.content.get(1..)
}

fn decode(text: &str) -> Option<Vec<u8>> {
    Base64UrlUnpadded::decode_vec(text).ok()
}

#[cfg(test)]
mod tests {
    use p256::pkcs8::{DecodePublicKey, EncodePublicKey};
    use serde_json::json;

    use super::*;

    const X: &str = "MKBCTNIcKUSDii11ySs3526iDZ8AiTo7Tu6KPAqv7D4";
    const Y: &str = "4Etl6SRW2YiLUrN5vfvVHuhp7x8PxltmWWlbbM4IFyM";

    fn ec() -> Value {
        json!({"kty": "EC", "crv": "P-256", "x": X, "y": Y})
    }

    #[test]
    fn an_ec_key_becomes_the_der_that_everybody_writes() {
        let jwk: PublicJwk = serde_json::from_value(ec()).unwrap();
        let spki = jwk.to_spki().unwrap();
        assert_eq!(jwk.kind(), Ok(KeyKind::Ec(Curve::P256)));
        let key = p256::PublicKey::from_public_key_der(&spki).unwrap();
        assert_eq!(key.to_public_key_der().unwrap().as_bytes(), spki);
    }

    #[test]
    fn an_rsa_key_becomes_the_der_that_everybody_writes() {
        // 2048 bits with the highest one set, odd: a modulus by its looks, which is all that is asked here.
        let mut n = [0x5a; 256];
        (n[0], n[255]) = (0xc1, 0x03);
        let number = rsa::BigUint::from_bytes_be(&n);
        let expected = rsa::RsaPublicKey::new(number, rsa::BigUint::from(65_537_u32)).unwrap();
        let n = Base64UrlUnpadded::encode_string(&n);
        for e in ["AQAB", "AAEAAQ"] {
            let jwk = PublicJwk::RSA { n: n.clone(), e: e.to_owned() };
            assert_eq!(jwk.kind(), Ok(KeyKind::Rsa));
            let spki = jwk.to_spki().unwrap();
            assert_eq!(rsa::RsaPublicKey::from_public_key_der(&spki).unwrap(), expected);
            assert_eq!(expected.to_public_key_der().unwrap().as_bytes(), spki);
        }
    }

    #[test]
    fn a_key_is_read_back_from_its_der_and_has_the_thumbprint_of_rfc_7638() {
        let jwk: PublicJwk = serde_json::from_value(ec()).unwrap();
        assert_eq!(PublicJwk::from_spki(&jwk.to_spki().unwrap()), Some(jwk.clone()));
        // As in `jwk`: computed with Python's hashlib.
        assert_eq!(jwk.thumbprint(), "cn-I_WNMClehiVp51i_0VpOENW1upEerA8sEam5hn-s");
        // RFC 7638 §3.1.
        let n = "0vx7agoebGcQSuuPiLJXZptN9nndrQmbXEps2aiAFbWhM78LhWx4cbbfAAtVT86zwu1RK7aPFFxuhDR1L6tSoc_BJECPebWKRXjBZCiFV4n3oknjhMstn64tZ_2W-5JsGY4Hc5n9yBXArwl93lqt7_RN5w6Cf0h4QyQ5v-65YGjQR0_FDW2QvzqY368QQMicAtaSqzs8KJZgnYb9c7d0zgdAZHzu6qMQvRL5hajrn1n91CbOpbISD08qNLyrdkt-bFTWhAI4vMQFh6WeZu0fM4lFd2NcRwr3XPksINHaQ-G_xBniIqbw0Ls1jF44-csFCur-kEgU8awapJzKnqDKgw";
        let jwk = PublicJwk::RSA { n: n.to_owned(), e: "AQAB".to_owned() };
        assert_eq!(jwk.thumbprint(), "NzbLsXh8uDCcd-6MNwXF4W_7noWXFZAfHkxZsRGC9Xs");
        assert_eq!(PublicJwk::from_spki(&jwk.to_spki().unwrap()), Some(jwk));
        assert_eq!(PublicJwk::from_spki(b""), None);
    }

    #[test]
    fn only_what_can_verify_is_kept_of_a_registered_set() {
        let mut signing = ec();
        signing["kid"] = json!("one");
        signing["use"] = json!("sig");
        signing["x5t"] = json!("whatever");
        let (mut encryption, mut wrapping, mut short) = (ec(), ec(), ec());
        encryption["use"] = json!("enc");
        wrapping["key_ops"] = json!(["wrapKey"]);
        short["x"] = json!("AA");
        let okp = json!({"kty": "OKP", "crv": "Ed25519", "x": X});
        let weak = json!({"kty": "RSA", "n": "AQAB", "e": "AQAB"});
        let registered = json!({"keys": [okp, encryption, wrapping, short, weak, 7, signing]});
        let usable = ClientJwks::usable(&registered);
        assert_eq!(
            serde_json::to_value(&usable).unwrap(),
            json!({"keys": [{"kty": "EC", "crv": "P-256", "x": X, "y": Y, "kid": "one"}]})
        );
        assert_eq!(
            serde_json::from_value::<ClientJwks>(serde_json::to_value(&usable).unwrap()).unwrap(),
            usable
        );
        assert_eq!(ClientJwks::usable(&json!("rubbish")), ClientJwks::default());
    }

    #[test]
    fn a_private_key_goes_nowhere() {
        let mut private = ec();
        private["d"] = json!("hunter2");
        let usable = ClientJwks::usable(&json!({"keys": [private]}));
        assert!(!serde_json::to_string(&usable).unwrap().contains("hunter2"));
    }
}
