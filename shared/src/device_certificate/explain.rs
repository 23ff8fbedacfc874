//! The whole decision at once, step by step, for whoever asks why a device does not come up. It issues nothing and uses
//! nothing up: whether an assertion has been used before only the edge knows.

use super::admission::{Admission, Named, admit};
use super::identity::{CertificateRules, DeviceIdentity, identify};
use super::policy::ProvisioningMode;
use super::proof::prove;
use super::refusal::DeviceRefusal;
use super::trace::{Trace, TraceStep};
use crate::assertion::{AssertionProblem, UnverifiedAssertion};
use crate::certificate::{Rules, VerifySignature, decode_x5c};
use crate::crypto::CryptoError;
use crate::document::DeviceDocument;
use crate::id::{DeviceId, PoolId};
use crate::time::UnixTime;

/// What is to be explained.
#[derive(Clone, Copy, Debug)]
pub enum Question<'a> {
    /// A chain, as the entries of `x5c`: would an assertion of this device get a token?
    Chain(&'a [String]),
    /// An assertion at the pool of this issuer.
    Assertion {
        /// The assertion.
        text: &'a str,
        /// The pool's issuer.
        issuer: &'a str,
    },
}

/// A decision and how it came about.
#[derive(Clone, Debug)]
pub struct Explanation {
    /// The steps, in order. The last one is the refusal, if there is one.
    pub steps: Vec<TraceStep>,
    /// Whose certificate it is, if the chain says so.
    pub identity: Option<DeviceIdentity>,
    /// Who would get the token, or why nobody.
    pub outcome: Result<Admission, DeviceRefusal>,
}

/// Explains a decision as of `at`. `record` gives the device's document, as it is or would be published.
///
/// # Errors
/// When the platform's cryptography fails, or `record` does.
pub async fn explain<V: VerifySignature, E: From<CryptoError>>(
    verifier: &V,
    pool: PoolId,
    rules: CertificateRules<'_>,
    question: Question<'_>,
    at: UnixTime,
    record: impl AsyncFnOnce(&DeviceId) -> Result<Option<DeviceDocument>, E>,
) -> Result<Explanation, E> {
    let mut trace = Trace::kept();
    let mut identity = None;
    let outcome = decide(verifier, pool, rules, question, at, record, &mut trace, &mut identity).await?;
    Ok(Explanation { steps: trace.into_steps(), identity, outcome })
}

#[expect(clippy::too_many_arguments, reason = "what `explain` takes, and where it collects")]
async fn decide<V: VerifySignature, E: From<CryptoError>>(
    verifier: &V,
    pool: PoolId,
    rules: CertificateRules<'_>,
    question: Question<'_>,
    at: UnixTime,
    record: impl AsyncFnOnce(&DeviceId) -> Result<Option<DeviceDocument>, E>,
    trace: &mut Trace,
    found: &mut Option<DeviceIdentity>,
) -> Result<Result<Admission, DeviceRefusal>, E> {
    if rules.policy.mode == ProvisioningMode::Off {
        return Ok(Err(trace.refuse("mode", DeviceRefusal::CertificatesOff)));
    }
    let assertion = match question {
        Question::Chain(_) => None,
        Question::Assertion { text, issuer } => match read(text, issuer, at) {
            Ok(assertion) => {
                trace.holds("claims", "aud, exp, iat, nbf and jti are as they should be");
                Some(assertion)
            }
            Err(problem) => return Ok(Err(trace.refuse("assertion", problem.into()))),
        },
    };
    let x5c = match (question, &assertion) {
        (Question::Chain(x5c), _) => Some(x5c),
        (_, assertion) => assertion.as_ref().and_then(|assertion| assertion.header.x5c.as_deref()),
    };
    let Some(x5c) = x5c else {
        return Ok(Err(trace.refuse("x5c", AssertionProblem::X5cMissing.into())));
    };
    let ders = match decode_x5c(x5c, &Rules::for_device(at)) {
        Ok(ders) => ders,
        Err(refusal) => return Ok(Err(trace.refuse("chain", refusal.into()))),
    };
    let identity = match identify(verifier, &ders, rules, at, trace).await? {
        Ok(identity) => found.insert(identity),
        Err(refusal) => return Ok(Err(refusal)),
    };
    let named = match &assertion {
        None => Named::Device,
        Some(assertion) => {
            if let Err(refusal) = prove(verifier, assertion, identity, trace).await? {
                return Ok(Err(refusal));
            }
            match Named::by_claims(&assertion.claims, &identity.device_id) {
                Ok(named) => named,
                Err(problem) => return Ok(Err(trace.refuse("claims", problem.into()))),
            }
        }
    };
    let record = record(&identity.device_id).await?;
    Ok(admit(pool, rules, identity, record.as_ref(), &named, trace))
}

fn read<'a>(text: &'a str, issuer: &str, at: UnixTime) -> Result<UnverifiedAssertion<'a>, AssertionProblem> {
    let assertion = UnverifiedAssertion::parse(text)?;
    assertion.claims.check(&[issuer, &format!("{issuer}/oauth2/token")], at)?;
    Ok(assertion)
}
