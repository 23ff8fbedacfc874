//! Whether an assertion is by the key of the certificate that its chain begins with, and who it says that it is for.

use super::admission::Named;
use super::denied::HexSerial;
use super::identity::DeviceIdentity;
use super::refusal::DeviceRefusal;
use super::trace::Trace;
use crate::assertion::{AssertionProblem, Claims, UnverifiedAssertion};
use crate::certificate::{Place, Problem, VerifySignature};
use crate::client_jwk::PublicJwk;
use crate::crypto::CryptoError;
use crate::id::DeviceId;

/// Checks that the assertion's header names no other certificate and that its signature is by the key of this one.
///
/// # Errors
/// Only when the platform's cryptography fails.
pub async fn prove<V: VerifySignature>(
    verifier: &V,
    assertion: &UnverifiedAssertion<'_>,
    identity: &DeviceIdentity,
    trace: &mut Trace,
) -> Result<Result<(), DeviceRefusal>, CryptoError> {
    let header = &assertion.header;
    if header.x5t_s256.as_ref().is_some_and(|named| *named != identity.thumbprint.to_base64url()) {
        return Ok(Err(trace.refuse("x5t#S256", AssertionProblem::X5tMismatch.into())));
    }
    if header.kid.as_ref().is_some_and(|kid| !names_certificate(kid, identity, &assertion.claims)) {
        return Ok(Err(trace.refuse("kid", AssertionProblem::KidMismatch.into())));
    }
    let check = match assertion.signature_check(identity.key_kind, &identity.public_key) {
        Ok(check) => check,
        Err(problem) => return Ok(Err(trace.refuse("alg", problem.into()))),
    };
    Ok(match verifier.verify_signature(&check).await {
        Ok(true) => {
            trace.holds("assertion", "it is signed by the key of the device's certificate");
            Ok(())
        }
        Ok(false) => Err(trace.refuse("assertion", AssertionProblem::BadSignature.into())),
        Err(CryptoError::BadKey) => {
            Err(trace.refuse("assertion", Place::Certificate(0).refuses(Problem::BadKey).into()))
        }
        Err(failure) => return Err(failure),
    })
}

impl Named {
    /// Who an assertion of this device says that it is for: `iss` and `sub` each name the device or one of its clients,
    /// and not two different ones.
    pub fn by_claims(claims: &Claims, device: &DeviceId) -> Result<Self, AssertionProblem> {
        let iss = Named::read(&claims.iss, device).ok_or(AssertionProblem::IssMismatch)?;
        let sub = Named::read(&claims.sub, device).ok_or(AssertionProblem::SubMismatch)?;
        match (iss, sub) {
            (Named::Device, sub) => Ok(sub),
            (Named::Client(iss), Named::Device) => Ok(Named::ClientByIss(iss)),
            (iss, sub) if iss == sub => Ok(sub),
            _ => Err(AssertionProblem::IssMismatch),
        }
    }
}

/// Whether a `kid` is a name for the certificate of the chain: its SHA-256 in either form, its serial number, its key's
/// thumbprint (RFC 7638), or the signer's own name. Any other one points elsewhere.
fn names_certificate(kid: &str, identity: &DeviceIdentity, claims: &Claims) -> bool {
    let is_fingerprint = kid.parse().is_ok_and(|fingerprint| identity.thumbprint == fingerprint);
    let is_serial = || {
        let serial = |text: &str| text.parse::<HexSerial>().ok();
        serial(kid).is_some_and(|kid| serial(&identity.serial) == Some(kid))
    };
    is_fingerprint
        || kid == identity.thumbprint.to_base64url()
        || kid == claims.iss
        || kid == claims.sub
        || kid == identity.device_id.as_str()
        || is_serial()
        || PublicJwk::from_spki(&identity.public_key).is_some_and(|key| key.thumbprint() == kid)
}
