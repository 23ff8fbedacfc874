//! The rules of a path, from its anchor down to the device (RFC 5280 §6.1). The cheap ones come first and end in a list
//! of signatures to check; name constraints and policies, which a hostile CA could make costly, wait until those have
//! verified.

use super::Rules;
use super::general_name::GeneralName;
use super::name_constraint::{COMPARISONS, Names};
use super::parsed::{Certificate, VERSION_1, VERSION_3};
use super::policy::PolicyState;
use super::public_key::KeyKind;
use super::refusal::{Place, Problem, Refusal};
use super::signature::SignatureCheck;

/// The longest serial number in octets, without one that only carries the sign (§4.1.2.2).
const SERIAL_NUMBER_LENGTH: usize = 20;

/// A path that may or may not be valid.
pub(crate) struct Path<'p, 'a> {
    /// Where the anchor stands in its list.
    pub(crate) anchor_position: usize,
    pub(crate) anchor: &'p Certificate<'a>,
    /// The device's certificate first.
    pub(crate) certificates: &'p [Certificate<'a>],
}

/// What holds for the next certificate down the path.
pub(crate) struct Above<'a> {
    key: (KeyKind, &'a [u8]),
    /// How many more intermediates there may be, self-issued ones aside; `None` for any number.
    path_length: Option<u32>,
}

impl<'p, 'a> Path<'p, 'a> {
    /// Everything but signatures, names and policies. The signatures to check are in the order in which to check them:
    /// the anchor's first, because whoever has no certificate at all cannot get past it.
    pub(crate) fn check_rules(&self, rules: &Rules) -> Result<Vec<SignatureCheck<'a>>, Refusal> {
        let intermediates = self.certificates.len().saturating_sub(1);
        if intermediates > rules.max_intermediates {
            let problem =
                Problem::TooManyIntermediates { count: intermediates, most: rules.max_intermediates };
            return Err(Place::Chain.refuses(problem));
        }
        let mut above = self.check_anchor(rules).map_err(|problem| self.anchor_place().refuses(problem))?;
        let mut signatures = Vec::with_capacity(self.certificates.len());
        for (position, certificate) in self.certificates.iter().enumerate().rev() {
            let place = Place::Certificate(position);
            let check = check_every(certificate, rules)
                .and_then(|()| check_serial_number(certificate))
                .and_then(|()| signature_check(certificate, place, &above))
                .map_err(|problem| place.refuses(problem))?;
            signatures.push(check);
            if position == 0 {
                check_leaf(certificate, rules).map_err(|problem| place.refuses(problem))?;
            } else {
                above = check_intermediate(certificate, &above).map_err(|problem| place.refuses(problem))?;
            }
        }
        Ok(signatures)
    }

    fn check_anchor(&self, rules: &Rules) -> Result<Above<'a>, Problem> {
        check_every(self.anchor, rules)?;
        check_ca(self.anchor)
    }

    /// Name constraints (§6.1.3 (b) and (c)) and policies. To be asked once the signatures have verified. Gives what the
    /// device's certificate names beside its subject.
    pub(crate) fn check_names_and_policies(&self) -> Result<Vec<GeneralName<'a>>, Refusal> {
        let anchor =
            self.anchor.extensions.read_long().map_err(|problem| self.anchor_place().refuses(problem))?;
        let mut policies = PolicyState::below(&anchor.policy);
        let mut constraints: Vec<_> = anchor.name_constraints.into_iter().collect();
        let mut comparisons = COMPARISONS;
        for (position, certificate) in self.certificates.iter().enumerate().rev() {
            let refused = |problem| Place::Certificate(position).refuses(problem);
            let is_device = position == 0;
            let self_issued = certificate.is_self_issued();
            let long = certificate.extensions.read_long().map_err(refused)?;
            if is_device || !self_issued {
                let names = Names::of(certificate.subject(), &long.alternative_names, is_device);
                constraints
                    .iter()
                    .try_for_each(|constraints| constraints.check(&names, &mut comparisons))
                    .map_err(refused)?;
            }
            if is_device {
                policies.end(&long.policy).map_err(refused)?;
                return Ok(long.alternative_names);
            }
            policies.pass(&long.policy, self_issued).map_err(refused)?;
            constraints.extend(long.name_constraints);
        }
        Err(Place::Chain.refuses(Problem::Empty))
    }

    pub(crate) fn anchor_place(&self) -> Place {
        Place::Anchor(self.anchor_position)
    }

    /// Whose key the signature at `place` is checked with.
    pub(crate) fn signer_of(&self, place: Place) -> Place {
        match place {
            Place::Certificate(position) if position + 1 < self.certificates.len() => {
                Place::Certificate(position + 1)
            }
            _ => self.anchor_place(),
        }
    }
}

/// What holds for every certificate of a path, the anchor's included.
pub(crate) fn check_every(certificate: &Certificate<'_>, rules: &Rules) -> Result<(), Problem> {
    let extensions = &certificate.extensions;
    if rules.at < certificate.not_before() {
        return Err(Problem::NotYetValid(certificate.not_before()));
    }
    if rules.at > certificate.not_after() {
        return Err(Problem::Expired(certificate.not_after()));
    }
    if let Some(unknown) = extensions.unknown_critical {
        return Err(Problem::UnknownCriticalExtension(unknown.to_string()));
    }
    if extensions.key_identifier_critical {
        return Err(Problem::KeyIdentifierCritical);
    }
    // Enough for a CA, which may leave the choice to those below. The device's own must say clientAuth.
    if rules.client_auth
        && extensions.extended_key_usage.is_some_and(|usage| !usage.client_auth && !usage.any)
    {
        return Err(Problem::NotForClientAuthentication);
    }
    certificate.key.accepted()?;
    Ok(())
}

/// Roots are exempt: several that everybody trusts have the number 0, and theirs tells nothing apart.
fn check_serial_number(certificate: &Certificate<'_>) -> Result<(), Problem> {
    match certificate.serial().as_bytes() {
        [0] | [0x80..=0xff, ..] => Err(Problem::SerialNumber),
        [0, number @ ..] if number.len() <= SERIAL_NUMBER_LENGTH => Ok(()),
        number if number.len() <= SERIAL_NUMBER_LENGTH => Ok(()),
        _ => Err(Problem::SerialNumber),
    }
}

/// The check of a certificate's signature with the key of the CA above it.
pub(crate) fn signature_check<'a>(
    certificate: &Certificate<'a>,
    place: Place,
    above: &Above<'a>,
) -> Result<SignatureCheck<'a>, Problem> {
    certificate.algorithm.clone()?.check(place, above.key, certificate.tbs(), certificate.signature())
}

/// What makes a certificate a CA's (§6.1.4 (k) to (n)). keyUsage may be missing, as openssl leaves it.
pub(crate) fn check_ca<'a>(certificate: &Certificate<'a>) -> Result<Above<'a>, Problem> {
    if certificate.version != VERSION_3 {
        return Err(Problem::Version(certificate.version));
    }
    let constraints = certificate.extensions.basic_constraints.filter(|constraints| constraints.ca);
    let constraints = constraints.ok_or(Problem::NotACa)?;
    if certificate.extensions.key_usage.is_some_and(|usage| !usage.key_cert_sign) {
        return Err(Problem::MayNotSignCertificates);
    }
    let key = (certificate.key.accepted()?, certificate.public_key());
    Ok(Above { key, path_length: constraints.path_length })
}

/// A CA between the anchor and the device. One that certifies itself anew is not counted (§6.1.4 (l) and (m)).
fn check_intermediate<'a>(certificate: &Certificate<'a>, above: &Above<'a>) -> Result<Above<'a>, Problem> {
    let own = check_ca(certificate)?;
    let left = match above.path_length {
        Some(left) if !certificate.is_self_issued() => {
            Some(left.checked_sub(1).ok_or(Problem::PathLengthExceeded)?)
        }
        left => left,
    };
    let path_length = match (left, own.path_length) {
        (Some(left), Some(own)) => Some(left.min(own)),
        (left, own) => left.or(own),
    };
    Ok(Above { path_length, ..own })
}

/// The device's certificate: version 1 as well, because that is what openssl makes without an extension file; a CA's
/// neither by word nor by right.
fn check_leaf(leaf: &Certificate<'_>, rules: &Rules) -> Result<(), Problem> {
    let extensions = &leaf.extensions;
    if !matches!(leaf.version, VERSION_1 | VERSION_3) {
        return Err(Problem::Version(leaf.version));
    }
    if extensions.basic_constraints.is_some_and(|constraints| constraints.ca) {
        return Err(Problem::CaAsDevice);
    }
    if extensions.basic_constraints.is_some_and(|constraints| constraints.path_length.is_some())
        || extensions.key_usage.is_some_and(|usage| usage.key_cert_sign)
    {
        return Err(Problem::CaRightsWithoutCa);
    }
    if extensions.name_constraints.is_some() {
        return Err(Problem::NameConstraintsWithoutCa);
    }
    if rules.client_auth && extensions.extended_key_usage.is_some_and(|usage| !usage.client_auth) {
        return Err(Problem::NotForClientAuthentication);
    }
    // Without a subject the subjectAltName is all there is, so it must be critical (§4.2.1.6).
    if leaf.subject().is_empty() && !extensions.subject_alt_name.is_some_and(|names| names.critical) {
        return Err(Problem::SubjectEmpty);
    }
    Ok(())
}
