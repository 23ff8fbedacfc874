//! From a chain to a device: what the certificate alone decides, before anybody looks whether the device is known.

use std::collections::BTreeMap;

use super::anchors::PoolAnchors;
use super::attributes::{Attribute, Attributes};
use super::denied::{DeniedCertificate, first_denied};
use super::policy::{ProvisioningMode, ProvisioningPolicy};
use super::refusal::DeviceRefusal;
use super::trace::Trace;
use crate::certificate::{self, Fingerprint, KeyKind, Place, Rules, ValidChain, VerifySignature};
use crate::crypto::CryptoError;
use crate::id::DeviceId;
use crate::time::UnixTime;

/// What a pool says about certificates.
#[derive(Clone, Copy, Debug)]
pub struct CertificateRules<'a> {
    /// Its roots.
    pub anchors: &'a PoolAnchors,
    /// Who may come in.
    pub policy: &'a ProvisioningPolicy,
    /// What must not be in any chain.
    pub denied: &'a [DeniedCertificate],
}

/// Whose certificate it is, once the chain has been found valid and nothing in it is denied.
#[derive(Clone, Debug)]
pub struct DeviceIdentity {
    /// The device.
    pub device_id: DeviceId,
    /// The subject's O.
    pub organization: Option<String>,
    /// The subject's CN.
    pub common_name: Option<String>,
    /// The root that the chain leads to: SHA-256 of the whole certificate.
    pub root: Fingerprint,
    /// The device's certificate: SHA-256 of the whole, `x5t#S256`.
    pub thumbprint: Fingerprint,
    /// The device's certificate: SHA-256 of the TBSCertificate.
    pub tbs_fingerprint: Fingerprint,
    /// Its serial number, in hexadecimal.
    pub serial: String,
    /// The DER of its SubjectPublicKeyInfo.
    pub public_key: Vec<u8>,
    /// What kind of key that is.
    pub key_kind: KeyKind,
    /// The tags that the policy makes of it.
    pub tags: BTreeMap<String, String>,
    /// The rule of the policy's `match` by which the certificate may not bring in an unknown device; none where it may.
    pub unmatched: Option<&'static str>,
    /// The first second in which the whole chain is valid.
    pub not_before: UnixTime,
    /// The last one.
    pub not_after: UnixTime,
}

/// Decides on a chain as of `at`, and adds each step to `trace`.
///
/// The outcome depends on the chain, the rules, and on whether `at` lies between [`DeviceIdentity::not_before`] and
/// [`DeviceIdentity::not_after`]: an identity may be kept and used again as long as those stay the same.
///
/// # Errors
/// Only when the platform's cryptography fails.
pub async fn identify<V: VerifySignature>(
    verifier: &V,
    x5c: &[Vec<u8>],
    rules: CertificateRules<'_>,
    at: UnixTime,
    trace: &mut Trace,
) -> Result<Result<DeviceIdentity, DeviceRefusal>, CryptoError> {
    if rules.policy.mode == ProvisioningMode::Off {
        return Ok(Err(trace.refuse("mode", DeviceRefusal::CertificatesOff)));
    }
    let decision =
        certificate::validate(verifier, x5c, rules.anchors.as_slice(), &Rules::for_device(at)).await?;
    decision.steps.iter().for_each(|step| trace.chain_step(step, rules.anchors));
    Ok(match decision.verdict {
        Ok(chain) => of_chain(&chain, rules, trace),
        // The trace has the refusal of each root; a chain that could not be read at all, or that no root could have
        // issued, has none there yet.
        Err(refusal) => match decision.steps.last() {
            Some(certificate::Step::Refused(_)) => Err(refusal.into()),
            _ => Err(trace.refuse("chain", refusal.into())),
        },
    })
}

fn of_chain(
    chain: &ValidChain<'_>,
    rules: CertificateRules<'_>,
    trace: &mut Trace,
) -> Result<DeviceIdentity, DeviceRefusal> {
    if let Some(position) = first_denied(chain, rules.denied) {
        return Err(trace.refuse("denied", DeviceRefusal::Denied(position)));
    }
    trace.holds("denied", "no certificate of the chain is denied");
    let leaf = chain.leaf();
    let key_kind = leaf
        .key_kind()
        .map_err(|problem| trace.refuse("key", Place::Certificate(0).refuses(problem).into()))?;
    if !leaf.may_sign() {
        return Err(trace.refuse("key", DeviceRefusal::MayNotSign));
    }
    let attributes = Attributes::of(chain).map_err(|error| trace.refuse("subject", error.into()))?;
    trace.holds("subject", leaf.subject());
    let device_id = rules.policy.device_id_template.device_id(&attributes);
    let device_id = device_id.map_err(|error| trace.refuse("deviceIdTemplate", error.into()))?;
    trace.holds("deviceIdTemplate", format_args!("{} makes {device_id}", rules.policy.device_id_template));
    let root = chain.anchor().thumbprint();
    let times = || chain.certificates();
    Ok(DeviceIdentity {
        device_id,
        organization: attributes.one(Attribute::Organization).ok().map(str::to_owned),
        common_name: attributes.one(Attribute::CommonName).ok().map(str::to_owned),
        root,
        thumbprint: leaf.thumbprint(),
        tbs_fingerprint: leaf.tbs_fingerprint(),
        serial: leaf.serial().to_string(),
        public_key: leaf.public_key().to_vec(),
        key_kind,
        tags: rules.policy.tags_of(&attributes),
        unmatched: match &rules.policy.matching {
            Some(matching) => matching.unmet(&attributes, &root),
            None => Some("match, which is not set"),
        },
        not_before: times().map(|one| one.not_before()).max().unwrap_or(leaf.not_before()),
        not_after: times().map(|one| one.not_after()).min().unwrap_or(leaf.not_after()),
    })
}
