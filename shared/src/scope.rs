//! Scopes (RFC 6749 §3.3).

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// The most scopes that a client or a request may name.
pub const MAX_SCOPES: usize = 64;
const MAX_SCOPE_LENGTH: usize = 128;

/// Why a text is not a list of scopes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ScopeError {
    /// No scope at all.
    #[error("must name at least one scope")]
    Empty,
    /// A character that RFC 6749 §3.3 does not allow in a scope token.
    #[error("must be scope tokens of RFC 6749 §3.3 (printable ASCII without space, quote and backslash)")]
    BadCharacter,
    /// A scope over 128 characters, or more than 64 of them.
    #[error("must have at most 64 scopes of at most 128 characters")]
    TooLong,
    /// The same scope twice.
    #[error("must not name a scope twice")]
    Repeated,
}

/// Some distinct scopes, in the order in which they were given.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Vec<String>")]
pub struct Scopes(Vec<String>);

impl Scopes {
    /// Checks each scope and that none comes twice. An empty list is a client that may ask for nothing.
    pub fn new(scopes: Vec<String>) -> Result<Self, ScopeError> {
        if scopes.len() > MAX_SCOPES {
            return Err(ScopeError::TooLong);
        }
        for (position, scope) in scopes.iter().enumerate() {
            check(scope)?;
            if scopes.iter().take(position).any(|earlier| earlier == scope) {
                return Err(ScopeError::Repeated);
            }
        }
        Ok(Self(scopes))
    }

    /// `device` alone: what a device's app has for which nobody has named others.
    pub fn device_default() -> Self {
        Self(vec!["device".to_owned()])
    }

    /// Whether `scope` is among them.
    pub fn contains(&self, scope: &str) -> bool {
        self.0.iter().any(|own| own == scope)
    }

    /// Whether every one of `other` is among them.
    pub fn contains_all(&self, other: &Scopes) -> bool {
        other.0.iter().all(|scope| self.contains(scope))
    }

    /// The scopes one by one.
    pub fn iter(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(String::as_str)
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl FromStr for Scopes {
    type Err = ScopeError;

    /// Reads the space-separated form of a request parameter. A scope named twice there counts once.
    fn from_str(text: &str) -> Result<Self, ScopeError> {
        let mut scopes: Vec<String> = Vec::new();
        for scope in text.split(' ').filter(|scope| !scope.is_empty()) {
            if !scopes.iter().any(|earlier| earlier == scope) {
                scopes.push(scope.to_owned());
            }
            if scopes.len() > MAX_SCOPES {
                return Err(ScopeError::TooLong);
            }
        }
        if scopes.is_empty() { Err(ScopeError::Empty) } else { Self::new(scopes) }
    }
}

impl TryFrom<Vec<String>> for Scopes {
    type Error = ScopeError;

    fn try_from(scopes: Vec<String>) -> Result<Self, ScopeError> {
        Self::new(scopes)
    }
}

impl From<Scopes> for Vec<String> {
    fn from(scopes: Scopes) -> Self {
        scopes.0
    }
}

impl fmt::Display for Scopes {
    /// The space-separated form.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (position, scope) in self.0.iter().enumerate() {
            if position > 0 {
                f.write_str(" ")?;
            }
            f.write_str(scope)?;
        }
        Ok(())
    }
}

fn check(scope: &str) -> Result<(), ScopeError> {
    if scope.len() > MAX_SCOPE_LENGTH {
        return Err(ScopeError::TooLong);
    }
    let allowed = |byte: u8| matches!(byte, 0x21 | 0x23..=0x5b | 0x5d..=0x7e);
    if scope.is_empty() || !scope.bytes().all(allowed) { Err(ScopeError::BadCharacter) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_may_repeat_a_scope_a_registration_may_not() {
        assert_eq!("a b a".parse::<Scopes>().unwrap().to_string(), "a b");
        assert_eq!(Scopes::new(vec!["a".into(), "a".into()]), Err(ScopeError::Repeated));
    }

    #[test]
    fn only_scope_tokens_of_rfc_6749_pass() {
        for bad in ["a\"b", "a\\b", "é", "a\tb", "a\nb"] {
            assert!(bad.parse::<Scopes>().is_err(), "{bad:?}");
        }
        assert_eq!("  ".parse::<Scopes>(), Err(ScopeError::Empty));
        assert!(Scopes::new(vec!["two words".into()]).is_err());
    }

    #[test]
    fn narrowing_is_a_subset_test() {
        let granted: Scopes = "device introspect".parse().unwrap();
        assert!(granted.contains_all(&"introspect".parse().unwrap()));
        assert!(!granted.contains_all(&"device admin".parse().unwrap()));
    }
}
