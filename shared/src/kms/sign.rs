//! KMS `Sign` with an ECC_NIST_P256 key.

use base64ct::{Base64, Encoding};
use der::Tag;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::KmsKeyArn;
use crate::certificate::asn1::{Element, Malformed, positive};
use crate::crypto::ES256_SIGNATURE_LENGTH;

/// The longest message that `Sign` takes as it is; of a longer one it takes the hash.
pub const MAX_RAW_MESSAGE: usize = 4_096;

/// `X-Amz-Target` of `Sign`.
pub const TARGET: &str = "TrentService.Sign";

/// The content type of requests and answers.
pub const CONTENT_TYPE: &str = "application/x-amz-json-1.1";

/// How a message goes to `Sign`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SignInput<'a> {
    /// As it is: KMS hashes it.
    Raw(&'a [u8]),
    /// Its SHA-256.
    Digest([u8; 32]),
}

impl<'a> SignInput<'a> {
    /// What `message` goes as.
    pub fn of(message: &'a [u8]) -> Self {
        if message.len() <= MAX_RAW_MESSAGE {
            Self::Raw(message)
        } else {
            Self::Digest(Sha256::digest(message).into())
        }
    }

    /// The bytes to send.
    pub fn bytes(&self) -> &[u8] {
        match self {
            Self::Raw(message) => message,
            Self::Digest(digest) => digest,
        }
    }
}

/// The body of a request to sign `message`.
pub fn request(key: &KmsKeyArn, message: &[u8]) -> Result<Vec<u8>, serde_json::Error> {
    #[derive(Serialize)]
    #[serde(rename_all = "PascalCase")]
    struct Request<'a> {
        key_id: &'a str,
        message: String,
        message_type: &'static str,
        signing_algorithm: &'static str,
    }
    let input = SignInput::of(message);
    serde_json::to_vec(&Request {
        key_id: key.as_str(),
        message: Base64::encode_string(input.bytes()),
        message_type: match input {
            SignInput::Raw(_) => "RAW",
            SignInput::Digest(_) => "DIGEST",
        },
        signing_algorithm: "ECDSA_SHA_256",
    })
}

/// What KMS has answered instead of a signature.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SignError {
    /// An error with a name, such as `ThrottlingException`.
    #[error("KMS answered {status} {name}")]
    Refused {
        /// The HTTP status.
        status: u16,
        /// The error's name; empty where the answer has none.
        name: String,
    },
    /// 200 with something that is no signature.
    #[error("KMS answered with something that is no signature")]
    Malformed,
}

impl SignError {
    /// Whether asking once more may help: KMS was too busy, or broke.
    pub fn may_pass(&self) -> bool {
        match self {
            Self::Refused { status, name } => {
                *status >= 500
                    || *status == 429
                    || matches!(
                        name.as_str(),
                        "ThrottlingException"
                            | "LimitExceededException"
                            | "KMSInternalException"
                            | "DependencyTimeoutException"
                            | "KeyUnavailableException"
                    )
            }
            Self::Malformed => false,
        }
    }
}

/// The signature in an answer, as r‖s.
pub fn signature(status: u16, body: &[u8]) -> Result<[u8; ES256_SIGNATURE_LENGTH], SignError> {
    #[derive(Deserialize)]
    struct Answer {
        #[serde(rename = "Signature")]
        signature: String,
    }
    #[derive(Deserialize)]
    struct Refusal {
        #[serde(rename = "__type")]
        name: String,
    }
    if status != 200 {
        let name =
            serde_json::from_slice(body).map_or_else(|_| String::new(), |refusal: Refusal| refusal.name);
        // Some services put a namespace before it. What is left is for the log, so it is kept short.
        let name = name.rsplit('#').next().unwrap_or_default().chars().take(60).collect();
        return Err(SignError::Refused { status, name });
    }
    let answer: Answer = serde_json::from_slice(body).map_err(|_| SignError::Malformed)?;
    let der = Base64::decode_vec(&answer.signature).map_err(|_| SignError::Malformed)?;
    raw_signature(&der).ok_or(SignError::Malformed)
}

/// An ECDSA signature of a P-256 key in DER (RFC 3279 §2.2.3) as r‖s (RFC 7518 §3.4); none where it is not exactly that.
pub fn raw_signature(der: &[u8]) -> Option<[u8; ES256_SIGNATURE_LENGTH]> {
    read(der).ok().flatten()
}

fn read(der: &[u8]) -> Result<Option<[u8; ES256_SIGNATURE_LENGTH]>, Malformed> {
    const WHAT: &str = "signature";
    let sequence = Element::only(der, WHAT)?;
    if sequence.tag != Tag::Sequence {
        return Ok(None);
    }
    let mut fields = sequence.fields(WHAT)?;
    let r = positive(fields.expect(Tag::Integer)?.content, WHAT)?;
    let s = positive(fields.expect(Tag::Integer)?.content, WHAT)?;
    fields.end()?;
    let mut raw = [0; ES256_SIGNATURE_LENGTH];
    let (left, right) = raw.split_at_mut(ES256_SIGNATURE_LENGTH / 2);
    for (half, number) in [(left, r), (right, s)] {
        let Some(start) = half.len().checked_sub(number.len()) else { return Ok(None) };
        half.iter_mut().skip(start).zip(number).for_each(|(to, from)| *to = *from);
    }
    Ok(Some(raw))
}

#[cfg(test)]
mod tests {
    use p256::ecdsa::Signature;
    use proptest::prelude::*;
    use serde_json::Value;

    use super::*;
    use crate::host::PrivateKey;

    fn arn() -> KmsKeyArn {
        "arn:aws:kms:eu-west-1:111122223333:key/abc".parse().unwrap()
    }

    #[test]
    fn a_message_goes_as_it_is_up_to_4096_bytes_and_as_its_hash_above() {
        let read = |length: usize| -> Value {
            serde_json::from_slice(&request(&arn(), &vec![7; length]).unwrap()).unwrap()
        };
        let raw = read(4_096);
        assert_eq!(raw["MessageType"], "RAW");
        assert_eq!(raw["SigningAlgorithm"], "ECDSA_SHA_256");
        assert_eq!(raw["KeyId"], arn().as_str());
        assert_eq!(Base64::decode_vec(raw["Message"].as_str().unwrap()).unwrap(), [7; 4_096]);
        let digest = read(4_097);
        assert_eq!(digest["MessageType"], "DIGEST");
        let hash: [u8; 32] = Sha256::digest([7; 4_097]).into();
        assert_eq!(Base64::decode_vec(digest["Message"].as_str().unwrap()).unwrap(), hash);
    }

    #[test]
    fn only_what_may_pass_is_asked_again() {
        let refused = |status, body: &str| signature(status, body.as_bytes()).unwrap_err();
        let throttled = refused(400, r#"{"__type":"ThrottlingException","message":"Rate exceeded"}"#);
        assert_eq!(throttled, SignError::Refused { status: 400, name: "ThrottlingException".into() });
        assert!(throttled.may_pass());
        assert!(refused(500, "").may_pass());
        assert!(refused(503, "<html>").may_pass());
        assert!(refused(400, r#"{"__type":"com.amazonaws.kms#KeyUnavailableException"}"#).may_pass());
        for name in
            ["AccessDeniedException", "DisabledException", "KMSInvalidStateException", "NotFoundException"]
        {
            assert!(!refused(400, &format!(r#"{{"__type":"{name}"}}"#)).may_pass(), "{name}");
        }
        for body in ["", "{}", r#"{"Signature":"!"}"#, r#"{"Signature":"MAA="}"#] {
            assert_eq!(signature(200, body.as_bytes()), Err(SignError::Malformed), "{body}");
        }
    }

    #[test]
    fn a_signature_in_any_other_spelling_is_none() {
        let signature = Signature::from_slice(&[0x81; 64]).unwrap();
        let der = signature.to_der();
        let der = der.as_bytes();
        assert_eq!(raw_signature(der), Some([0x81; 64]));
        let mut trailing = der.to_vec();
        trailing.push(0);
        let mut long_form = vec![0x30, 0x81, der[1]];
        long_form.extend_from_slice(&der[2..]);
        // An INTEGER with a zero too many, a negative one, zero, one of 33 bytes, and three of them.
        let padded = [&[0x30, 0x07, 0x02, 0x02, 0x00, 0x01, 0x02, 0x01, 0x01][..]].concat();
        let negative = vec![0x30, 0x06, 0x02, 0x01, 0x81, 0x02, 0x01, 0x01];
        let zero = vec![0x30, 0x06, 0x02, 0x01, 0x00, 0x02, 0x01, 0x01];
        let wide = [&[0x30, 0x26, 0x02, 0x21, 0x01][..], &[0; 32], &[0x02, 0x01, 0x01]].concat();
        let three = vec![0x30, 0x09, 0x02, 0x01, 0x01, 0x02, 0x01, 0x01, 0x02, 0x01, 0x01];
        let set = vec![0x31, 0x06, 0x02, 0x01, 0x01, 0x02, 0x01, 0x01];
        for bad in [trailing, long_form, padded, negative, zero, wide, three, set, vec![], vec![0x30]] {
            assert_eq!(raw_signature(&bad), None, "{bad:?}");
        }
        for length in 0..der.len() {
            assert_eq!(raw_signature(&der[..length]), None);
        }
    }

    proptest! {
        #[test]
        fn every_signature_comes_back_as_it_was(seed: u64, message: Vec<u8>) {
            use rand_core::SeedableRng;
            let key = PrivateKey::generate(&mut rand_chacha::ChaCha20Rng::seed_from_u64(seed));
            let raw = key.sign(&message);
            let der = Signature::from_slice(&raw).unwrap().to_der();
            prop_assert_eq!(raw_signature(der.as_bytes()), Some(raw));
        }

        #[test]
        fn short_numbers_are_filled_up_with_zeros(r in 1u64.., s in 1u64..) {
            let mut raw = [0; 64];
            raw[24..32].copy_from_slice(&r.to_be_bytes());
            raw[56..].copy_from_slice(&s.to_be_bytes());
            let der = Signature::from_slice(&raw).unwrap().to_der();
            prop_assert_eq!(raw_signature(der.as_bytes()), Some(raw));
        }
    }
}
