//! The decision on a chain: which roots come into question, which rule held and which did not, signature by signature.

use super::general_name::GeneralName;
use super::parsed::Certificate;
use super::path::Path;
use super::refusal::{Place, Problem, Refusal};
use super::signature::{SignatureCheck, VerifySignature};
use super::subject::{Subject, SubjectError};
use super::trust_anchor::TrustAnchor;
use super::x5c::check_sizes;
use super::{DEFAULT_MAX_INTERMEDIATES, Rules};
use crate::crypto::CryptoError;
use crate::time::UnixTime;

/// So many signature checks may fail, for roots that share a name, beyond those that the longest path needs.
const SPARE_SIGNATURES: usize = 8;

impl Rules {
    /// The rules for a device that authenticates at `at`.
    pub fn for_device(at: UnixTime) -> Self {
        Self { at, max_intermediates: DEFAULT_MAX_INTERMEDIATES, client_auth: true }
    }
}

/// A chain that is valid: every rule held and every signature verified. There is no other way to get one than
/// [`validate`].
#[derive(Clone, Debug)]
pub struct ValidChain<'a> {
    leaf: Certificate<'a>,
    intermediates: Vec<Certificate<'a>>,
    anchor: Certificate<'a>,
    anchor_position: usize,
    alternative_names: Vec<GeneralName<'a>>,
}

impl<'a> ValidChain<'a> {
    /// The device's certificate.
    pub fn leaf(&self) -> &Certificate<'a> {
        &self.leaf
    }

    /// The CAs between the device and the root, the device's issuer first.
    pub fn intermediates(&self) -> &[Certificate<'a>] {
        &self.intermediates
    }

    /// The root.
    pub fn anchor(&self) -> &Certificate<'a> {
        &self.anchor
    }

    /// Where the root stands in the list of anchors.
    pub fn anchor_position(&self) -> usize {
        self.anchor_position
    }

    /// Every certificate that the decision rests on, the device's first and the root last: all of them can be denied.
    pub fn certificates(&self) -> impl Iterator<Item = &Certificate<'a>> {
        [&self.leaf].into_iter().chain(&self.intermediates).chain([&self.anchor])
    }

    /// The subjectAltNames of the device's certificate.
    pub fn alternative_names(&self) -> &[GeneralName<'a>] {
        &self.alternative_names
    }

    /// What names the device.
    pub fn subject(&self) -> Result<Subject, SubjectError> {
        Subject::of(self.leaf.subject())
    }
}

/// A decision, and how it came about.
#[derive(Clone, Debug)]
pub struct Decision<'a> {
    /// What was found, in order.
    pub steps: Vec<Step>,
    /// The valid chain, or the refusal that says most about a chain that has none.
    pub verdict: Result<ValidChain<'a>, Refusal>,
}

/// A step towards a decision.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// The chain could be read and is in order.
    Read {
        /// How many certificates it has.
        certificates: usize,
    },
    /// A root that may have issued the chain is looked at.
    Root {
        /// Where it stands in the list of anchors.
        position: usize,
        /// How many intermediates there are up to it. What follows them in the chain is not needed.
        intermediates: usize,
    },
    /// Everything that can be told without a signature is as it should be.
    RulesHold,
    /// The signature on this certificate verified.
    SignatureHolds(Place),
    /// The names are allowed, and so are the policies.
    NamesAndPoliciesHold,
    /// A rule did not hold.
    Refused(Refusal),
}

/// How far a path came before it was refused. Of several roots, the one with which it came furthest explains best why
/// the chain is not valid: a root of the same name and another key says nothing.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Reached {
    RootSignature,
    Rules,
    Signatures,
    Names,
}

/// Decides whether `chain` is valid: DER certificates, the device's first, each issued by the next (RFC 7515 §4.1.6), up
/// to one of `anchors`, which may itself stand at the end. What comes after the certificate that an anchor issued is not
/// needed, and must only be in order: so a device can go on sending a root, or a cross-certificate of it, that has since
/// been replaced.
///
/// # Errors
/// Only when the platform's cryptography fails. A chain that is not valid is a [`Decision`].
pub async fn validate<'a, V: VerifySignature>(
    verifier: &V,
    chain: &'a [impl AsRef<[u8]>],
    anchors: &'a [TrustAnchor],
    rules: &Rules,
) -> Result<Decision<'a>, CryptoError> {
    let certificates = match read(chain, rules) {
        Ok(certificates) => certificates,
        Err(refusal) => return Ok(Decision { steps: Vec::new(), verdict: Err(refusal) }),
    };
    let mut steps = vec![Step::Read { certificates: certificates.len() }];
    let mut signatures = SignatureBudget(rules.max_intermediates.saturating_add(1 + SPARE_SIGNATURES));
    let mut best: Option<(Reached, Refusal)> = None;
    for Candidate { position, anchor, length } in candidates(&certificates, anchors) {
        steps.push(Step::Root { position, intermediates: length.saturating_sub(1) });
        let refused = match (anchor.certificate(), certificates.get(..length)) {
            (Ok(anchor), Some(path)) => {
                let path = Path { anchor_position: position, anchor: &anchor, certificates: path };
                match check(verifier, &path, rules, &mut signatures, &mut steps).await? {
                    Ok(names) => return Ok(valid(certificates, length, (position, anchor), names, steps)),
                    Err(refused) => refused,
                }
            }
            (Err(problem), _) => (Reached::Rules, Place::Anchor(position).refuses(problem)),
            (_, None) => (Reached::Rules, Place::Chain.refuses(Problem::Empty)),
        };
        steps.push(Step::Refused(refused.1.clone()));
        if best.as_ref().is_none_or(|(reached, _)| *reached < refused.0) {
            best = Some(refused);
        }
    }
    let refusal = match best {
        Some((_, refusal)) => refusal,
        None => Place::Certificate(certificates.len().saturating_sub(1)).refuses(Problem::UnknownIssuer),
    };
    Ok(Decision { steps, verdict: Err(refusal) })
}

/// Reads the chain: its size first, and then whether it is one.
fn read<'a>(chain: &'a [impl AsRef<[u8]>], rules: &Rules) -> Result<Vec<Certificate<'a>>, Refusal> {
    check_sizes(chain.iter().map(|der| der.as_ref().len()), rules)?;
    let certificates = chain
        .iter()
        .enumerate()
        .map(|(position, der)| {
            Certificate::read(der.as_ref()).map_err(|problem| Place::Certificate(position).refuses(problem))
        })
        .collect::<Result<Vec<_>, _>>()?;
    for (position, certificate) in certificates.iter().enumerate() {
        let place = Place::Certificate(position);
        let mut before = certificates.iter().take(position);
        if before.any(|earlier| earlier.tbs() == certificate.tbs()) {
            return Err(place.refuses(Problem::Repeated));
        }
        let below = position.checked_sub(1).and_then(|below| certificates.get(below));
        if below.is_some_and(|below| below.issuer() != certificate.subject()) {
            return Err(place.refuses(Problem::NotInOrder));
        }
    }
    Ok(certificates)
}

/// An anchor that may have issued a certificate of the chain.
struct Candidate<'a> {
    position: usize,
    anchor: &'a TrustAnchor,
    /// How many certificates of the chain the path up to it has.
    length: usize,
}

/// The anchors that come into question, those of shorter paths first. Within the chain only an anchor with the key of the
/// next certificate can have issued one, because that next certificate did.
fn candidates<'a>(certificates: &[Certificate<'_>], anchors: &'a [TrustAnchor]) -> Vec<Candidate<'a>> {
    let mut candidates = Vec::new();
    for (index, certificate) in certificates.iter().enumerate() {
        let issuer = certificate.issuer().canonical();
        let next = certificates.get(index + 1);
        candidates.extend(
            anchors
                .iter()
                .enumerate()
                .filter(|(_, anchor)| {
                    anchor.has_name(&issuer) && next.is_none_or(|next| anchor.has_key_of(next))
                })
                .map(|(position, anchor)| Candidate { position, anchor, length: index + 1 }),
        );
    }
    candidates
}

struct SignatureBudget(usize);

/// Checks a path, and gives the device's alternative names.
async fn check<'a, V: VerifySignature>(
    verifier: &V,
    path: &Path<'_, 'a>,
    rules: &Rules,
    budget: &mut SignatureBudget,
    steps: &mut Vec<Step>,
) -> Result<Result<Vec<GeneralName<'a>>, (Reached, Refusal)>, CryptoError> {
    let checks = match path.check_rules(rules) {
        Ok(checks) => checks,
        Err(refusal) => return Ok(Err((Reached::Rules, refusal))),
    };
    steps.push(Step::RulesHold);
    let mut reached = Reached::RootSignature;
    for check in &checks {
        if let Err(refusal) = verify(verifier, path, check, budget).await? {
            return Ok(Err((reached, refusal)));
        }
        steps.push(Step::SignatureHolds(check.place));
        reached = Reached::Signatures;
    }
    let names = path.check_names_and_policies().map_err(|refusal| (Reached::Names, refusal));
    if names.is_ok() {
        steps.push(Step::NamesAndPoliciesHold);
    }
    Ok(names)
}

async fn verify<V: VerifySignature>(
    verifier: &V,
    path: &Path<'_, '_>,
    check: &SignatureCheck<'_>,
    budget: &mut SignatureBudget,
) -> Result<Result<(), Refusal>, CryptoError> {
    let Some(left) = budget.0.checked_sub(1) else {
        return Ok(Err(Place::Chain.refuses(Problem::TooManySignatures)));
    };
    budget.0 = left;
    match verifier.verify_signature(check).await {
        Ok(true) => Ok(Ok(())),
        Ok(false) => Ok(Err(check.place.refuses(Problem::BadSignature))),
        Err(CryptoError::BadKey) => Ok(Err(path.signer_of(check.place).refuses(Problem::BadKey))),
        Err(failure) => Err(failure),
    }
}

fn valid<'a>(
    mut certificates: Vec<Certificate<'a>>,
    length: usize,
    (anchor_position, anchor): (usize, Certificate<'a>),
    alternative_names: Vec<GeneralName<'a>>,
    steps: Vec<Step>,
) -> Decision<'a> {
    certificates.truncate(length);
    let mut certificates = certificates.into_iter();
    let verdict = match certificates.next() {
        Some(leaf) => {
            let intermediates = certificates.collect();
            Ok(ValidChain { leaf, intermediates, anchor, anchor_position, alternative_names })
        }
        None => Err(Place::Chain.refuses(Problem::Empty)),
    };
    Decision { steps, verdict }
}
