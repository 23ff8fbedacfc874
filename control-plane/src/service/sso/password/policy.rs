//! What may be a password.

use keypost_shared::secret::SecretText;
use unicode_normalization::UnicodeNormalization;

use super::common::is_common;
use crate::service::has_control;

/// The fewest characters.
pub(super) const SHORTEST: usize = 8;
/// The most characters.
const LONGEST: usize = 256;
/// The most characters before they are normalized, which can make fewer of them: beyond, there is no need to try.
const LONGEST_RAW: usize = 4 * LONGEST;

/// A password, in Unicode's form NFKC: however a keyboard composes its characters, it is the same.
#[derive(Clone, Debug)]
pub struct Password(SecretText);

/// Why a text may not be a password, for people.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PolicyError {
    /// Too short.
    #[error("must have at least {SHORTEST} characters")]
    TooShort,
    /// Too long.
    #[error("must have at most {LONGEST} characters")]
    TooLong,
    /// A control character: what a keyboard does not type.
    #[error("must not have control characters")]
    ControlCharacter,
    /// Among those that are tried first.
    #[error("must not be one of the most common passwords")]
    Common,
    /// What is known to whoever knows the account.
    #[error("must not be the username or the email address")]
    Known,
}

impl Password {
    /// A password that somebody chooses, who is known by `names`: username and address.
    pub fn choose(text: &str, names: &[&str]) -> Result<Self, PolicyError> {
        if text.chars().count() > LONGEST_RAW {
            return Err(PolicyError::TooLong);
        }
        let normal: String = text.nfkc().collect();
        let length = normal.chars().count();
        if length < SHORTEST {
            return Err(PolicyError::TooShort);
        }
        if length > LONGEST {
            return Err(PolicyError::TooLong);
        }
        if has_control(&normal) {
            return Err(PolicyError::ControlCharacter);
        }
        let lower_case = normal.to_lowercase();
        if is_common(&lower_case) {
            return Err(PolicyError::Common);
        }
        let is_known = |name: &&str| {
            let name = name.trim().nfkc().collect::<String>().to_lowercase();
            let local_part = name.rsplit_once('@').map(|(local_part, _)| local_part);
            lower_case == name || Some(lower_case.as_str()) == local_part
        };
        if names.iter().any(is_known) {
            return Err(PolicyError::Known);
        }
        Ok(Self(SecretText::new(normal)))
    }

    /// A password as somebody typed it, who says that it is theirs: any text, which may be no password at all.
    pub fn typed(text: &str) -> Self {
        let normal = if text.chars().nth(LONGEST_RAW).is_some() {
            // Longer than any password: there is no need to normalize it for it to be wrong.
            text.to_owned()
        } else {
            text.nfkc().collect()
        };
        Self(SecretText::new(normal))
    }

    pub(super) fn as_bytes(&self) -> &[u8] {
        self.0.expose().as_bytes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(text: &str) -> Option<PolicyError> {
        Password::choose(text, &["Ottokar77", "ada.lovelace@example.com"]).err()
    }

    #[test]
    fn length_counts_characters_after_normalization() {
        assert_eq!(refused("Tr0mbon"), Some(PolicyError::TooShort));
        assert_eq!(refused("Tr0mbone"), None);
        assert_eq!(refused("éüöñêàçß"), None);
        // Seven characters, written as fourteen.
        assert_eq!(refused(&"e\u{301}".repeat(7)), Some(PolicyError::TooShort));
        // A ligature is two characters.
        assert_eq!(refused("ﬀﬀﬀﬁ"), None);
        assert_eq!(refused(&"é".repeat(256)), None);
        assert_eq!(refused(&"e\u{301}".repeat(256)), None);
        assert_eq!(refused(&"é".repeat(257)), Some(PolicyError::TooLong));
        assert_eq!(refused(&"é".repeat(1 << 20)), Some(PolicyError::TooLong));
    }

    #[test]
    fn what_is_common_or_known_is_refused_in_any_case() {
        for common in ["password", "PASSWORD1", "Qwertyuiop", "ｐａｓｓｗｏｒｄ"] {
            assert_eq!(refused(common), Some(PolicyError::Common), "{common}");
        }
        for known in ["ottokar77", "OTTOKAR77", "Ada.Lovelace@Example.com", "ada.lovelace"] {
            assert_eq!(refused(known), Some(PolicyError::Known), "{known}");
        }
        assert_eq!(refused("Ottokar77!"), None);
        assert_eq!(refused("with\u{7}bell!"), Some(PolicyError::ControlCharacter));
        assert_eq!(refused("space is good"), None);
    }

    #[test]
    fn a_password_is_the_same_however_it_is_composed() {
        let chosen = Password::choose("Zoe\u{308}s Trompete", &[]).unwrap();
        assert_eq!(chosen.as_bytes(), Password::typed("Zo\u{eb}s Trompete").as_bytes());
        assert_eq!(format!("{chosen:?}"), "Password(SecretText(..))");
    }
}
