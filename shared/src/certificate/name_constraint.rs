//! Name constraints (RFC 5280 §4.2.1.10): which names a CA may certify, directly or through CAs below it.
//!
//! Compared are directoryName, dNSName, iPAddress, rfc822Name and uniformResourceIdentifier. Where another form is
//! constrained, a name of that form is refused, and so is a name of a constrained form that cannot be read without doubt.

use std::borrow::Cow;

use der::{Tag, TagNumber};

use super::asn1::{Fields, constructed};
use super::extension::sequence;
use super::general_name::{GeneralName, NameForm};
use super::name::{CanonicalName, Name};
use super::oid;
use super::refusal::Problem;

/// So many times may a name of a chain be compared with a constraint of its form. OpenSSL and BoringSSL stop at the same
/// number.
pub(crate) const COMPARISONS: usize = 1 << 20;

const WHAT: &str = "nameConstraints";

/// The extension.
#[derive(Clone, Debug)]
pub(crate) struct NameConstraints<'a> {
    permitted: Vec<Subtree<'a>>,
    excluded: Vec<Subtree<'a>>,
}

/// The base of a subtree.
#[derive(Clone, Debug)]
enum Subtree<'a> {
    Directory(CanonicalName),
    Dns(&'a str),
    IpAddress {
        network: &'a [u8],
        mask: &'a [u8],
    },
    /// One mailbox.
    Mailbox(Mailbox<'a>),
    /// Every mailbox of the hosts.
    Mailboxes(Hosts<'a>),
    Uri(Hosts<'a>),
    Unread(NameForm),
}

/// A host, or every host below a domain.
#[derive(Clone, Copy, Debug)]
enum Hosts<'a> {
    Only(&'a str),
    Below(&'a str),
}

#[derive(Clone, Copy, Debug)]
struct Mailbox<'a> {
    local: &'a str,
    host: &'a str,
}

/// A name of a certificate, ready to compare.
enum Comparable<'a> {
    Directory(CanonicalName),
    Dns(&'a str),
    IpAddress(&'a [u8]),
    Mailbox(Mailbox<'a>),
    UriHost(&'a str),
}

/// Which list a subtree is in. It decides for a wildcard name, which stands for names on both sides of a border.
#[derive(Clone, Copy, PartialEq, Eq)]
enum List {
    Permitted,
    Excluded,
}

impl<'a> NameConstraints<'a> {
    pub(crate) fn read(value: &'a [u8]) -> Result<Self, Problem> {
        let mut fields = sequence(value, WHAT)?;
        let mut list = |number| match fields.optional(constructed(number))? {
            Some(subtrees) => read_subtrees(subtrees.fields(WHAT)?),
            None => Ok(Vec::new()),
        };
        let (permitted, excluded) = (list(TagNumber::N0)?, list(TagNumber::N1)?);
        fields.end()?;
        // An empty extension is as wrong as an empty list in it.
        if permitted.is_empty() && excluded.is_empty() {
            return Err(Problem::Malformed(WHAT));
        }
        Ok(Self { permitted, excluded })
    }

    /// Checks the names of a certificate: none in an excluded subtree, each in a permitted one where its form has any
    /// (§6.1.3 (b) and (c)). `comparisons` is what is left of the budget.
    pub(crate) fn check(&self, names: &Names<'_>, comparisons: &mut usize) -> Result<(), Problem> {
        for form in FORMS {
            let names = names.of_form(form);
            if names.is_empty() {
                continue;
            }
            let (permitted, excluded) = (of_form(&self.permitted, form), of_form(&self.excluded, form));
            let constraints = permitted.len() + excluded.len();
            // Counted before anything is compared, so that it does not matter which comparison ends the search.
            *comparisons = names
                .len()
                .checked_mul(constraints)
                .and_then(|needed| comparisons.checked_sub(needed))
                .ok_or(Problem::TooManyNameComparisons)?;
            if constraints == 0 {
                continue;
            }
            for name in names {
                let name = name.comparable().ok_or(Problem::NameNotComparable(form))?;
                if excluded.iter().any(|subtree| subtree.contains(&name, List::Excluded)) {
                    return Err(Problem::NameExcluded(form));
                }
                if !permitted.is_empty()
                    && !permitted.iter().any(|subtree| subtree.contains(&name, List::Permitted))
                {
                    return Err(Problem::NameNotPermitted(form));
                }
            }
        }
        Ok(())
    }
}

fn of_form<'s, 'a>(subtrees: &'s [Subtree<'a>], form: NameForm) -> Vec<&'s Subtree<'a>> {
    subtrees.iter().filter(|subtree| subtree.form() == form).collect()
}

const FORMS: [NameForm; 9] = [
    NameForm::DirectoryName,
    NameForm::DnsName,
    NameForm::IpAddress,
    NameForm::Rfc822Name,
    NameForm::Uri,
    NameForm::OtherName,
    NameForm::X400Address,
    NameForm::EdiPartyName,
    NameForm::RegisteredId,
];

fn read_subtrees(mut fields: Fields<'_>) -> Result<Vec<Subtree<'_>>, Problem> {
    let mut subtrees = Vec::new();
    if fields.is_empty() {
        return Err(Problem::Malformed(WHAT));
    }
    while !fields.is_empty() {
        let mut subtree = fields.expect(Tag::Sequence)?.fields(WHAT)?;
        let base = GeneralName::read(&subtree.next()?)?;
        // minimum is always 0, which DER leaves out, and maximum is never there (§4.2.1.10).
        subtree.end()?;
        subtrees.push(Subtree::of(base).ok_or(Problem::Malformed(WHAT))?);
    }
    Ok(subtrees)
}

impl<'a> Subtree<'a> {
    /// `None` where the base is not written as its form asks.
    fn of(base: GeneralName<'a>) -> Option<Self> {
        match base {
            GeneralName::Directory(name) => Some(Self::Directory(name.canonical())),
            GeneralName::Dns(base) => {
                // RFC 5280 knows no leading dot; everybody takes it for the names below, without the name itself.
                let name = base.strip_prefix('.').unwrap_or(base);
                (base.is_empty() || is_dns_name(name)).then_some(Self::Dns(base))
            }
            GeneralName::IpAddress(range) => ip_range(range),
            GeneralName::Rfc822(base) if base.contains('@') => Mailbox::of(base).map(Self::Mailbox),
            GeneralName::Rfc822(base) => Hosts::of(base).map(Self::Mailboxes),
            GeneralName::Uri(base) => Hosts::of(base).map(Self::Uri),
            GeneralName::Other(form) => Some(Self::Unread(form)),
        }
    }

    fn form(&self) -> NameForm {
        match self {
            Self::Directory(_) => NameForm::DirectoryName,
            Self::Dns(_) => NameForm::DnsName,
            Self::IpAddress { .. } => NameForm::IpAddress,
            Self::Mailbox(_) | Self::Mailboxes(_) => NameForm::Rfc822Name,
            Self::Uri(_) => NameForm::Uri,
            Self::Unread(form) => *form,
        }
    }

    fn contains(&self, name: &Comparable<'_>, list: List) -> bool {
        match (self, name) {
            (Self::Directory(base), Comparable::Directory(name)) => base.contains(name),
            (Self::Dns(base), Comparable::Dns(name)) => dns_contains(base, name, list),
            (Self::IpAddress { network, mask }, Comparable::IpAddress(address)) => {
                network.len() == address.len()
                    && network
                        .iter()
                        .zip(*mask)
                        .zip(*address)
                        .all(|((network, mask), octet)| network & mask == octet & mask)
            }
            (Self::Mailbox(only), Comparable::Mailbox(mailbox)) => {
                // The local part is a matter of its host alone (RFC 5321 §2.4), so its case counts (§7.5).
                only.local == mailbox.local && only.host.eq_ignore_ascii_case(mailbox.host)
            }
            (Self::Mailboxes(hosts), Comparable::Mailbox(mailbox)) => hosts.contains(mailbox.host),
            (Self::Uri(hosts), Comparable::UriHost(host)) => hosts.contains(host),
            _ => false,
        }
    }
}

fn dns_contains(base: &str, name: &str, list: List) -> bool {
    if let (List::Excluded, Some(parent), Some((_, parent_of_base))) =
        (list, name.strip_prefix("*."), base.split_once('.'))
        && parent.eq_ignore_ascii_case(parent_of_base)
    {
        // The wildcard stands for the base as well.
        return true;
    }
    base.is_empty()
        || ends_with(name, base)
            && (name.len() == base.len() || base.starts_with('.') || is_below(name, base.len()))
}

/// Whether a label ends before the last `length` bytes.
fn is_below(name: &str, length: usize) -> bool {
    name.len().checked_sub(length + 1).and_then(|dot| name.as_bytes().get(dot)) == Some(&b'.')
}

fn ends_with(name: &str, end: &str) -> bool {
    name.len()
        .checked_sub(end.len())
        .and_then(|start| name.as_bytes().get(start..))
        .is_some_and(|tail| tail.eq_ignore_ascii_case(end.as_bytes()))
}

impl<'a> Hosts<'a> {
    fn of(base: &'a str) -> Option<Self> {
        let (name, hosts) = match base.strip_prefix('.') {
            Some(domain) => (domain, Self::Below(base)),
            None => (base, Self::Only(base)),
        };
        is_dns_name(name).then_some(hosts)
    }

    fn contains(&self, host: &str) -> bool {
        match self {
            Self::Only(only) => only.eq_ignore_ascii_case(host),
            Self::Below(dot_domain) => host.len() > dot_domain.len() && ends_with(host, dot_domain),
        }
    }
}

impl<'a> Mailbox<'a> {
    /// `local@host`. A quoted local part could hold another `@`, so it is not read (RFC 5321 §4.1.2).
    fn of(text: &'a str) -> Option<Self> {
        let (local, host) = text.split_once('@')?;
        let readable =
            !local.is_empty() && local.bytes().all(|octet| octet.is_ascii_graphic() && octet != b'"');
        (readable && is_dns_name(host)).then_some(Self { local, host })
    }
}

/// An address and a mask of the same length, the mask being a prefix (RFC 4632 §3.1).
fn ip_range(range: &[u8]) -> Option<Subtree<'_>> {
    let (network, mask) = match range.len() {
        8 => range.split_at_checked(4)?,
        32 => range.split_at_checked(16)?,
        _ => return None,
    };
    let mut rest = mask.iter().skip_while(|octet| **octet == 0xff);
    let border = rest.next().copied().unwrap_or(0);
    let is_prefix = border.leading_ones() + border.trailing_zeros() == 8 && rest.all(|octet| *octet == 0);
    is_prefix.then_some(Subtree::IpAddress { network, mask })
}

/// Labels of letters, digits, hyphens and underscores (RFC 1034 §3.5, RFC 1123 §2.1; underscores occur).
fn is_dns_name(name: &str) -> bool {
    name.len() <= 253
        && name.split('.').all(|label| {
            matches!(label.len(), 1..=63)
                && !label.starts_with('-')
                && !label.ends_with('-')
                && label.bytes().all(|octet| octet.is_ascii_alphanumeric() || matches!(octet, b'-' | b'_'))
        })
}

/// What a certificate says that it is about, whatever the form.
pub(crate) struct Names<'a>(Vec<CertificateName<'a>>);

enum CertificateName<'a> {
    General(GeneralName<'a>),
    /// An attribute of the subject that is in use as a name of another form; `None` if it is not even ASCII.
    Attribute(NameForm, Option<String>),
}

impl<'a> Names<'a> {
    /// §4.2.1.10: the subject counts as a directoryName, and its emailAddress as an rfc822Name. And where a device has no
    /// dNSName, a CN that is written like one counts as one, as with OpenSSL: in Keypost the CN is what names the device.
    pub(crate) fn of(subject: &Name<'a>, alternative_names: &[GeneralName<'a>], is_device: bool) -> Self {
        let mut names: Vec<_> = alternative_names.iter().cloned().map(CertificateName::General).collect();
        let cn_counts = is_device && !alternative_names.iter().any(|name| name.form() == NameForm::DnsName);
        for attribute in subject.attributes() {
            let text = attribute.text().filter(|text| text.is_ascii()).map(Cow::into_owned);
            if attribute.kind.is(&oid::EMAIL_ADDRESS) {
                names.push(CertificateName::Attribute(NameForm::Rfc822Name, text));
            } else if cn_counts
                && attribute.kind.is(&oid::COMMON_NAME)
                && let Some(name) = text.filter(|text| text.contains('.') && is_dns_name(text))
            {
                names.push(CertificateName::Attribute(NameForm::DnsName, Some(name)));
            }
        }
        if !subject.is_empty() {
            names.push(CertificateName::General(GeneralName::Directory(subject.clone())));
        }
        Self(names)
    }

    fn of_form(&self, form: NameForm) -> Vec<&CertificateName<'a>> {
        self.0.iter().filter(|name| name.form() == form).collect()
    }
}

impl CertificateName<'_> {
    fn form(&self) -> NameForm {
        match self {
            Self::General(name) => name.form(),
            Self::Attribute(form, _) => *form,
        }
    }

    fn comparable(&self) -> Option<Comparable<'_>> {
        match self {
            Self::General(GeneralName::Directory(name)) => Some(Comparable::Directory(name.canonical())),
            Self::General(GeneralName::Dns(name)) => dns(name),
            Self::General(GeneralName::IpAddress(address)) => Some(Comparable::IpAddress(address)),
            Self::General(GeneralName::Rfc822(mailbox)) => Mailbox::of(mailbox).map(Comparable::Mailbox),
            Self::General(GeneralName::Uri(uri)) => uri_host(uri).map(Comparable::UriHost),
            Self::General(GeneralName::Other(_)) => None,
            Self::Attribute(NameForm::DnsName, Some(name)) => dns(name),
            Self::Attribute(_, mailbox) => Mailbox::of(mailbox.as_ref()?).map(Comparable::Mailbox),
        }
    }
}

fn dns(name: &str) -> Option<Comparable<'_>> {
    is_dns_name(name.strip_prefix("*.").unwrap_or(name)).then_some(Comparable::Dns(name))
}

/// The host of a URI with an authority (RFC 3986 §3.2). Without one, or with an address for one, there is nothing to
/// compare (§4.2.1.10); and where there is a user before the host, better not to guess who reads which.
fn uri_host(uri: &str) -> Option<&str> {
    let (_scheme, rest) = uri.split_once("://")?;
    let authority = rest.split(['/', '?', '#']).next()?;
    let host = match authority.split_once(':') {
        Some((host, port)) if port.bytes().all(|octet| octet.is_ascii_digit()) => host,
        Some(_) => return None,
        None => authority,
    };
    let is_address =
        host.rsplit('.').next().is_some_and(|last| last.bytes().all(|octet| octet.is_ascii_digit()));
    (is_dns_name(host) && !is_address).then_some(host)
}
