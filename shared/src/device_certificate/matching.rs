//! Which certificates may bring in a device that nobody has registered (the policy's `match`).

use serde::{Deserialize, Serialize};

use super::attributes::{Attribute, Attributes};
use crate::certificate::Fingerprint;

/// The most alternatives that one rule may have.
const MAX_ALTERNATIVES: usize = 64;
/// The most characters of one alternative.
const MAX_LENGTH: usize = 256;

/// Which certificates may. Because a root can be shared, whoever wants to let in all of its devices must write `any`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Text", into = "Text")]
pub enum CertificateMatch {
    /// Every one with a valid chain.
    Any,
    /// Those for which every rule holds.
    Where(MatchRules),
}

/// Rules for certificates. One that is not there holds for all; one that is there holds if one of its alternatives does.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MatchRules {
    /// The subject's O, to the letter.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub o: Option<Alternatives<String>>,
    /// One of its OUs, to the letter.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ou: Option<Alternatives<String>>,
    /// A DNS name, mailbox or URI of the subjectAltName; a `*` at the beginning or the end stands for anything. Case
    /// counts in URIs and mailboxes, not in DNS names.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub san: Option<Alternatives<String>>,
    /// The root that the chain leads to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub root: Option<Alternatives<Fingerprint>>,
}

/// One alternative, or several: `"05243"`, or `["05243", "05244"]`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Alternatives<T> {
    /// One.
    One(T),
    /// Several.
    Several(Vec<T>),
}

impl<T> Alternatives<T> {
    fn as_slice(&self) -> &[T] {
        match self {
            Self::One(one) => std::slice::from_ref(one),
            Self::Several(several) => several,
        }
    }
}

/// Why a `match` is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MatchError {
    /// A text that is not `any`.
    #[error("must be \"any\" or an object of o, ou, san and root")]
    NotAny,
    /// An object without a rule, which would let in everything without saying so.
    #[error("must have a rule of o, ou, san and root, or be \"any\"")]
    Empty,
    /// A rule without an alternative, or with too many of them.
    #[error("must have 1 to 64 alternatives a rule, of 1 to 256 characters")]
    Alternatives,
}

#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum Text {
    Word(String),
    Rules(MatchRules),
}

impl TryFrom<Text> for CertificateMatch {
    type Error = MatchError;

    fn try_from(text: Text) -> Result<Self, MatchError> {
        let rules = match text {
            Text::Word(word) if word == "any" => return Ok(Self::Any),
            Text::Word(_) => return Err(MatchError::NotAny),
            Text::Rules(rules) => rules,
        };
        if rules == MatchRules::default() {
            return Err(MatchError::Empty);
        }
        let counted = |count: usize| (1..=MAX_ALTERNATIVES).contains(&count);
        let texts = [&rules.o, &rules.ou, &rules.san];
        let good = texts.into_iter().flatten().map(Alternatives::as_slice).all(|texts| {
            counted(texts.len()) && texts.iter().all(|text| (1..=MAX_LENGTH).contains(&text.chars().count()))
        });
        let roots = rules.root.as_ref().is_none_or(|roots| counted(roots.as_slice().len()));
        if good && roots { Ok(Self::Where(rules)) } else { Err(MatchError::Alternatives) }
    }
}

impl From<CertificateMatch> for Text {
    fn from(rule: CertificateMatch) -> Self {
        match rule {
            CertificateMatch::Any => Text::Word("any".to_owned()),
            CertificateMatch::Where(rules) => Text::Rules(rules),
        }
    }
}

impl CertificateMatch {
    /// The first rule that a certificate of these attributes, under this root, does not meet; none where it may come in.
    pub fn unmet(&self, attributes: &Attributes, root: &Fingerprint) -> Option<&'static str> {
        let Self::Where(rules) = self else { return None };
        let has =
            |attribute| move |wanted: &String| attributes.all(attribute).any(|own| own == wanted.as_str());
        let holds = |rule: &Option<Alternatives<String>>, test: &dyn Fn(&String) -> bool| {
            rule.as_ref().is_none_or(|rule| rule.as_slice().iter().any(test))
        };
        let named = |wanted: &String| {
            attributes.all(Attribute::SanDns).any(|own| san_matches(wanted, own, str::eq_ignore_ascii_case))
                || [Attribute::SanEmail, Attribute::SanUri]
                    .into_iter()
                    .any(|kind| attributes.all(kind).any(|own| san_matches(wanted, own, |a, b| a == b)))
        };
        if !holds(&rules.o, &has(Attribute::Organization)) {
            Some("o")
        } else if !holds(&rules.ou, &has(Attribute::OrganizationalUnit)) {
            Some("ou")
        } else if !holds(&rules.san, &named) {
            Some("san")
        } else if rules.root.as_ref().is_some_and(|roots| !roots.as_slice().contains(root)) {
            Some("root")
        } else {
            None
        }
    }
}

fn san_matches(pattern: &str, own: &str, same: fn(&str, &str) -> bool) -> bool {
    if let Some(end) = pattern.strip_prefix('*') {
        let start = own.len().checked_sub(end.len());
        return start.and_then(|start| own.get(start..)).is_some_and(|own| same(own, end));
    }
    match pattern.strip_suffix('*') {
        Some(start) => own.get(..start.len()).is_some_and(|own| same(own, start)),
        None => same(own, pattern),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn rule(json: Value) -> CertificateMatch {
        let rule: CertificateMatch = serde_json::from_value(json.clone()).unwrap();
        assert_eq!(serde_json::to_value(&rule).unwrap(), json);
        rule
    }

    fn attributes() -> Attributes {
        Attributes::made_of(&[
            ("cn", "pos-1"),
            ("o", "05243"),
            ("ou", "tills"),
            ("ou", "kiosks"),
            ("san.dns", "pos-1.Stores.example"),
            ("san.uri", "spiffe://corp/device/pos-1"),
        ])
    }

    #[test]
    fn any_lets_every_device_in() {
        assert_eq!(rule(json!("any")).unmet(&Attributes::default(), &Fingerprint::of(b"")), None);
    }

    #[test]
    fn every_rule_must_hold_by_one_of_its_alternatives() {
        let (root, other) = (Fingerprint::of(b"root"), Fingerprint::of(b"other"));
        let unmet = |json| rule(json).unmet(&attributes(), &root);
        assert_eq!(unmet(json!({"o": "05243"})), None);
        assert_eq!(unmet(json!({"o": ["1", "05243"], "ou": "kiosks"})), None);
        assert_eq!(unmet(json!({"o": "05244"})), Some("o"));
        assert_eq!(unmet(json!({"o": "05243", "ou": "Kiosks"})), Some("ou"), "case counts");
        assert_eq!(unmet(json!({"root": root.to_string()})), None);
        assert_eq!(unmet(json!({"root": [other.to_string()]})), Some("root"));
        assert_eq!(unmet(json!({"o": "05243", "root": other.to_string()})), Some("root"));
    }

    #[test]
    fn alternative_names_may_be_matched_by_their_beginning_or_end() {
        let unmet = |san: &str| rule(json!({"san": san})).unmet(&attributes(), &Fingerprint::of(b""));
        for good in ["pos-1.stores.example", "*.stores.EXAMPLE", "pos-*", "spiffe://corp/device/*", "*"] {
            assert_eq!(unmet(good), None, "{good}");
        }
        for bad in ["stores.example", "*.example.com", "spiffe://CORP/*", "pos-*.stores.example", "é*", "*é"]
        {
            assert_eq!(unmet(bad), Some("san"), "{bad}");
        }
    }

    #[test]
    fn what_lets_everybody_in_by_accident_is_refused() {
        let refused = |json: Value| serde_json::from_value::<CertificateMatch>(json).is_err();
        for bad in [
            json!({}),
            json!("ANY"),
            json!(null),
            json!({"o": []}),
            json!({"o": ""}),
            json!({"cn": "x"}),
            json!({"root": "zz"}),
            json!({"root": []}),
            json!({"o": vec!["x"; 65]}),
        ] {
            assert!(refused(bad.clone()), "{bad}");
        }
    }
}
