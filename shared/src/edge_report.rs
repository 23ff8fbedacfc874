//! What the edge tells the control plane: by `POST /api/edge/report`, and in KV under [`EdgeKey`](crate::kv_key::EdgeKey)
//! until the control plane has taken it up. Both carry an HMAC under the secret that the two share, over the time and the
//! body, so that who can write KV, or reach the control plane, cannot make a report.
//!
//! A report can be sent twice, and late: whoever takes it up must make the same of it as the first time.

use std::fmt;

use base64ct::{Base64UrlUnpadded, Encoding};
use hmac::{Hmac, Mac};
use serde::{Deserialize, Serialize};
use sha2::Sha256;

use crate::certificate::CertificateDer;
use crate::id::{ClientId, DeviceId, PoolId, TokenId};
use crate::kv_key::EdgeKey;
use crate::time::UnixTime;

/// The path at the control plane.
pub const REPORT_PATH: &str = "/api/edge/report";
/// The header with the time of the report, in Unix seconds.
pub const TIMESTAMP_HEADER: &str = "keypost-timestamp";
/// The header with the HMAC, in base64url.
pub const SIGNATURE_HEADER: &str = "keypost-signature";

/// The longest report, in bytes: a chain is the most of it.
pub const MAX_REPORT: usize = 128 * 1024;

/// How long a report waits in KV to be taken up, in seconds. A device that is still unknown by then is reported anew with
/// its next token.
pub const REPORT_TTL: u32 = 30 * 86_400;

/// What the edge reports.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum EdgeReport {
    /// A device that came with a certificate and that the control plane does not know, or has no certificate of yet.
    Device(DeviceReport),
    /// A token that its client has revoked.
    Revocation(RevocationReport),
}

/// A device that was let in by its certificate: never the assertion, and never a token.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeviceReport {
    /// The pool.
    pub pool: PoolId,
    /// The device.
    pub device_id: DeviceId,
    /// The chain, as the device sent it.
    pub x5c: Vec<CertificateDer>,
    /// When it was let in: the chain must be valid as of then.
    pub seen_at: UnixTime,
}

/// A token that the edge has verified and that its own client, or the app that a person signed in to, has revoked (RFC 7009).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RevocationReport {
    /// The pool.
    pub pool: PoolId,
    /// The token.
    pub jti: TokenId,
    /// Whose place in the status lists it uses: its client's, or its session's.
    pub client_id: ClientId,
    /// When it expires: until then the report stays in KV.
    pub exp: UnixTime,
    /// Its status list, if it has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub list: Option<u32>,
    /// Its index there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub idx: Option<u32>,
    /// When it was revoked.
    pub revoked_at: UnixTime,
}

impl EdgeReport {
    /// Where it waits in KV.
    pub fn kv_key(&self) -> EdgeKey {
        match self {
            Self::Device(report) => EdgeKey::Report(report.pool, report.device_id.clone()),
            Self::Revocation(report) => EdgeKey::Revocation(report.pool, report.jti.clone()),
        }
    }
}

/// The secret that the edge and the control plane share.
#[derive(Clone)]
pub struct SharedSecret([u8; 32]);

/// A text that is no shared secret.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("must be 32 bytes in base64url without padding, or two such secrets parted by a comma")]
pub struct SharedSecretError;

impl SharedSecret {
    /// Reads one secret, or two parted by a comma while they are being rotated. The first is the one to sign with.
    pub fn parse_list(text: &str) -> Result<Vec<Self>, SharedSecretError> {
        let secrets: Vec<_> = text.split(',').map(|one| Self::parse(one.trim())).collect::<Result<_, _>>()?;
        if secrets.len() > 2 { Err(SharedSecretError) } else { Ok(secrets) }
    }

    fn parse(text: &str) -> Result<Self, SharedSecretError> {
        let mut bytes = [0; 32];
        match Base64UrlUnpadded::decode(text, &mut bytes) {
            Ok(decoded) if decoded.len() == 32 => Ok(Self(bytes)),
            _ => Err(SharedSecretError),
        }
    }

    /// The secret's bytes.
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    fn mac(&self, timestamp: UnixTime, body: &str) -> Hmac<Sha256> {
        // A key of the block's length or less is never refused.
        let mut block = [0; 64];
        block.iter_mut().zip(self.0).for_each(|(to, from)| *to = from);
        let mut mac = Hmac::<Sha256>::new(&block.into());
        mac.update(b"keypost edge report\0");
        // Digits alone, so that the end of the time cannot be taken for the beginning of the body.
        mac.update(timestamp.to_string().as_bytes());
        mac.update(b"\0");
        mac.update(body.as_bytes());
        mac
    }
}

impl fmt::Debug for SharedSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SharedSecret(..)")
    }
}

/// A report, signed: the parts of the HTTP request, and in one line the value in KV.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SignedReport {
    /// When it was signed.
    pub timestamp: UnixTime,
    /// The HMAC in base64url.
    pub signature: String,
    /// The report as JSON. The HMAC is over these bytes, so they must not be written anew.
    pub body: String,
}

/// Why a report does not count.
#[derive(Debug, thiserror::Error)]
pub enum ReportError {
    /// More than [`MAX_REPORT`] bytes.
    #[error("the report is too large")]
    TooLarge,
    /// A value in KV that is not time, HMAC and body.
    #[error("not a signed report")]
    NotSigned,
    /// The HMAC is not by one of the secrets.
    #[error("the report's signature is wrong")]
    BadSignature,
    /// Rightly signed and not understood: by a newer edge, say.
    #[error("the report is not understood: {0}")]
    Body(#[from] serde_json::Error),
    /// Rightly signed, and found under another device's key.
    #[error("the report belongs to {0}")]
    WrongKey(EdgeKey),
}

impl SignedReport {
    /// Signs a report.
    pub fn sign(
        secret: &SharedSecret,
        report: &EdgeReport,
        now: UnixTime,
    ) -> Result<Self, serde_json::Error> {
        let body = serde_json::to_string(report)?;
        let mac: [u8; 32] = secret.mac(now, &body).finalize().into_bytes().into();
        Ok(Self { timestamp: now, signature: Base64UrlUnpadded::encode_string(&mac), body })
    }

    /// Checks the HMAC by any of the secrets, and reads the report.
    pub fn verify(&self, secrets: &[SharedSecret]) -> Result<EdgeReport, ReportError> {
        if self.body.len() > MAX_REPORT {
            return Err(ReportError::TooLarge);
        }
        let mut mac = [0; 32];
        match Base64UrlUnpadded::decode(&self.signature, &mut mac) {
            Ok(decoded) if decoded.len() == 32 => {}
            _ => return Err(ReportError::BadSignature),
        }
        let by = |secret: &SharedSecret| secret.mac(self.timestamp, &self.body).verify_slice(&mac).is_ok();
        if !secrets.iter().any(by) {
            return Err(ReportError::BadSignature);
        }
        Ok(serde_json::from_str(&self.body)?)
    }

    /// The value in KV.
    pub fn to_kv(&self) -> String {
        format!("{}.{}.{}", self.timestamp, self.signature, self.body)
    }

    /// Takes a value in KV apart. Nothing about it is believed yet.
    pub fn from_kv(text: &str) -> Result<Self, ReportError> {
        let (timestamp, rest) = text.split_once('.').ok_or(ReportError::NotSigned)?;
        let (signature, body) = rest.split_once('.').ok_or(ReportError::NotSigned)?;
        let timestamp = UnixTime(timestamp.parse().map_err(|_| ReportError::NotSigned)?);
        Ok(Self { timestamp, signature: signature.to_owned(), body: body.to_owned() })
    }

    /// Checks a value that was found in KV under `key`.
    pub fn verify_kv(text: &str, key: &EdgeKey, secrets: &[SharedSecret]) -> Result<EdgeReport, ReportError> {
        let report = Self::from_kv(text)?.verify(secrets)?;
        let own = report.kv_key();
        if own == *key { Ok(report) } else { Err(ReportError::WrongKey(own)) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: UnixTime = UnixTime(1_700_000_000);

    fn secrets(letters: &str) -> Vec<SharedSecret> {
        let one = |letter: char| format!("{}A", letter.to_string().repeat(42));
        SharedSecret::parse_list(&letters.chars().map(one).collect::<Vec<_>>().join(",")).unwrap()
    }

    fn report() -> EdgeReport {
        EdgeReport::Device(DeviceReport {
            pool: PoolId(uuid::Uuid::from_u128(7)),
            device_id: "pos.1".parse().unwrap(),
            x5c: vec![CertificateDer::new(vec![1, 2, 3])],
            seen_at: NOW,
        })
    }

    #[test]
    fn a_report_is_read_back_with_either_secret() {
        let signed = SignedReport::sign(&secrets("A")[0], &report(), NOW).unwrap();
        assert_eq!(
            signed.body,
            r#"{"kind":"device","pool":"00000000-0000-0000-0000-000000000007","device_id":"pos.1","x5c":["AQID"],"seen_at":1700000000}"#
        );
        for good in ["A", "AB", "BA"] {
            assert_eq!(signed.verify(&secrets(good)).unwrap(), report());
        }
        assert!(matches!(signed.verify(&secrets("B")), Err(ReportError::BadSignature)));
    }

    #[test]
    fn a_report_changed_in_any_byte_does_not_count() {
        let text = SignedReport::sign(&secrets("A")[0], &report(), NOW).unwrap().to_kv();
        let key = report().kv_key();
        assert_eq!(SignedReport::verify_kv(&text, &key, &secrets("A")).unwrap(), report());
        for position in 0..text.len() {
            let mut bytes = text.clone().into_bytes();
            bytes[position] = if bytes[position] == b'A' { b'B' } else { b'A' };
            let changed = String::from_utf8(bytes).unwrap();
            assert!(SignedReport::verify_kv(&changed, &key, &secrets("A")).is_err(), "position {position}");
        }
    }

    #[test]
    fn a_report_counts_only_under_its_own_key() {
        let text = SignedReport::sign(&secrets("A")[0], &report(), NOW).unwrap().to_kv();
        let other = EdgeKey::Report(PoolId(uuid::Uuid::from_u128(7)), "pos.2".parse().unwrap());
        let moved = SignedReport::verify_kv(&text, &other, &secrets("A"));
        assert!(matches!(moved, Err(ReportError::WrongKey(_))));
    }

    #[test]
    fn an_hmac_is_the_standard_one() {
        // Computed with Python's hmac module.
        let signed = SignedReport::sign(&secrets("A")[0], &report(), NOW).unwrap();
        assert_eq!(signed.signature, "Wr2wmnQec_m2SJpjzfmZzRe-idatYZHF5IFg7y23oGg");
    }

    #[test]
    fn a_secret_does_not_print() {
        assert_eq!(format!("{:?}", secrets("A")), "[SharedSecret(..)]");
        for bad in ["", "short", "x,y"] {
            assert!(SharedSecret::parse_list(bad).is_err());
        }
    }
}
