//! JSON Web Signatures in compact form (RFC 7515 §3.1): building what is signed, and taking apart what is not yet
//! trusted. The cryptography is the platform's ([`crate::crypto`]).

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::id::Kid;
use crate::jwk::SigningAlg;

/// The protected header of everything that Keypost itself signs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct JwsHeader {
    /// The algorithm; there is no `none`.
    pub alg: SigningAlg,
    /// What kind of thing is signed, so that one kind never passes for another (RFC 8725 §3.11).
    pub typ: String,
    /// Which key signed.
    pub kid: Kid,
}

/// Why a text is not a JWS that Keypost could have made.
#[derive(Debug, thiserror::Error)]
pub enum JwsError {
    /// Not three parts parted by dots.
    #[error("not a compact JWS")]
    NotCompact,
    /// A part is not base64url without padding (RFC 7515 §2).
    #[error("the {part} is not base64url")]
    NotBase64 {
        /// `header`, `payload` or `signature`.
        part: &'static str,
    },
    /// The header is not the JSON that was expected.
    #[error("the header is not understood: {0}")]
    Header(serde_json::Error),
    /// The payload is not the JSON that was expected.
    #[error("the payload is not understood: {0}")]
    Payload(serde_json::Error),
}

/// `BASE64URL(header).BASE64URL(payload)`: the bytes that are signed (RFC 7515 §5.1).
pub fn signing_input(header: &JwsHeader, payload: &impl Serialize) -> Result<String, serde_json::Error> {
    let header = serde_json::to_vec(header)?;
    let payload = serde_json::to_vec(payload)?;
    let mut text = String::with_capacity((header.len() + payload.len()) * 4 / 3 + 100);
    BASE64_URL_SAFE_NO_PAD.encode_string(&header, &mut text);
    text.push('.');
    BASE64_URL_SAFE_NO_PAD.encode_string(&payload, &mut text);
    Ok(text)
}

/// Completes a signing input with its signature.
pub fn append_signature(mut signing_input: String, signature: &[u8]) -> String {
    signing_input.push('.');
    BASE64_URL_SAFE_NO_PAD.encode_string(signature, &mut signing_input);
    signing_input
}

/// A JWS that has been taken apart and not verified: nothing in it may be believed.
pub struct UnverifiedJws<'a, H = JwsHeader> {
    /// The protected header: says which key to try, and no more.
    pub header: H,
    signing_input: &'a str,
    payload: &'a str,
    signature: Vec<u8>,
}

impl<'a, H: DeserializeOwned> UnverifiedJws<'a, H> {
    /// Takes a compact JWS apart. The payload stays encoded until somebody asks for it.
    pub fn parse(text: &'a str) -> Result<Self, JwsError> {
        let (signing_input, signature) = text.rsplit_once('.').ok_or(JwsError::NotCompact)?;
        let (header, payload) = signing_input.split_once('.').ok_or(JwsError::NotCompact)?;
        if payload.contains('.') {
            return Err(JwsError::NotCompact);
        }
        let header = serde_json::from_slice(&decode(header, "header")?).map_err(JwsError::Header)?;
        Ok(Self { header, signing_input, payload, signature: decode(signature, "signature")? })
    }

    /// The bytes that the signature covers.
    pub fn signing_input(&self) -> &'a [u8] {
        self.signing_input.as_bytes()
    }

    /// The signature's bytes.
    pub fn signature(&self) -> &[u8] {
        &self.signature
    }

    /// The payload. Call it once the signature has been verified.
    pub fn payload<T: DeserializeOwned>(&self) -> Result<T, JwsError> {
        serde_json::from_slice(&decode(self.payload, "payload")?).map_err(JwsError::Payload)
    }
}

fn decode(text: &str, part: &'static str) -> Result<Vec<u8>, JwsError> {
    BASE64_URL_SAFE_NO_PAD.decode(text).map_err(|_| JwsError::NotBase64 { part })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_built_can_be_taken_apart() {
        let header = JwsHeader { alg: SigningAlg::ES256, typ: "t".into(), kid: "k".parse().unwrap() };
        let input = signing_input(&header, &serde_json::json!({"a": 1})).unwrap();
        let text = append_signature(input.clone(), b"signature");
        let jws = UnverifiedJws::<JwsHeader>::parse(&text).unwrap();
        assert_eq!(jws.header, header);
        assert_eq!(jws.signing_input(), input.as_bytes());
        assert_eq!(jws.signature(), b"signature");
        assert_eq!(jws.payload::<serde_json::Value>().unwrap(), serde_json::json!({"a": 1}));
    }

    #[test]
    fn what_is_no_jws_is_refused() {
        // {"alg":"none","typ":"t","kid":"k"} and {"alg":"ES256"}.
        let none = "eyJhbGciOiJub25lIiwidHlwIjoidCIsImtpZCI6ImsifQ.e30.";
        let bare = "eyJhbGciOiJFUzI1NiJ9.e30.AA";
        let four = "eyJhbGciOiJFUzI1NiIsInR5cCI6InQiLCJraWQiOiJrIn0.e30.e30.AA";
        assert!(UnverifiedJws::<JwsHeader>::parse(&four.replacen(".e30", "", 1)).is_ok());
        for bad in ["", ".", "..", "a.b", four, "e30.e30.=", "e30 .e30.AA", none, bare] {
            assert!(UnverifiedJws::<JwsHeader>::parse(bad).is_err(), "{bad}");
        }
    }
}
