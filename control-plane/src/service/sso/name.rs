//! What people are called: usernames and addresses, and what two of them are compared by.

use unicode_normalization::UnicodeNormalization;

use super::super::has_control;
use crate::store::sso::user::NameKeys;

/// The most characters of a username.
pub const LONGEST_USERNAME: usize = 200;
/// The most characters of an address (RFC 5321 §4.5.3.1.3, without its angle brackets).
pub const LONGEST_EMAIL: usize = 254;

/// A username, as it was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Username(String);

/// An address of electronic mail, as it was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Email(String);

/// Why a text is no username or no address, for people.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// Nothing is left of it, or too much.
    #[error("must have 1 to {LONGEST_USERNAME} characters")]
    UsernameLength,
    /// What nobody sees.
    #[error("must not have control characters")]
    ControlCharacter,
    /// What nobody sees either.
    #[error("must not begin or end with a space")]
    Space,
    /// Not of the form.
    #[error("must be an email address of at most {LONGEST_EMAIL} characters, such as ada@example.com")]
    Email,
}

impl Username {
    /// Reads a username.
    pub fn parse(text: &str) -> Result<Self, NameError> {
        if text.trim() != text {
            return Err(NameError::Space);
        }
        if key(text).is_empty() || text.chars().count() > LONGEST_USERNAME {
            return Err(NameError::UsernameLength);
        }
        if has_control(text) {
            return Err(NameError::ControlCharacter);
        }
        Ok(Self(text.to_owned()))
    }

    /// As it was written.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether it looks like an address. Owners sign in by either, so that of an owner must be their own.
    pub fn is_address(&self) -> bool {
        key(&self.0).contains('@')
    }
}

impl Email {
    /// Reads an address: its shape alone, for only the mail that arrives tells whether it is one.
    pub fn parse(text: &str) -> Result<Self, NameError> {
        let text = text.trim();
        let is_visible = |c: char| !c.is_control() && !c.is_whitespace();
        let is_address = |text: &str| {
            let parts = text.split_once('@');
            parts.is_some_and(|(local, domain)| {
                !local.is_empty() && !domain.is_empty() && !domain.contains('@')
            })
        };
        let good = text.chars().count() <= LONGEST_EMAIL
            && text.chars().all(is_visible)
            && is_address(text)
            && is_address(&key(text));
        if good { Ok(Self(text.to_owned())) } else { Err(NameError::Email) }
    }

    /// As it was written.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// What a person's names are compared by.
pub fn keys(username: &Username, email: &Email) -> NameKeys {
    NameKeys { username: key(&username.0), email: key(&email.0) }
}

/// What a name is compared by: the same for two that people would take for the same.
pub fn key(name: &str) -> String {
    let visible = name.trim().nfkc().filter(|c| !is_ignorable(*c)).collect::<String>();
    // In lower case some letters are composed of other characters.
    visible.to_lowercase().nfkc().collect()
}

/// Whether nobody sees a character (Unicode's Default_Ignorable_Code_Point): with it, a name looks like another.
fn is_ignorable(c: char) -> bool {
    matches!(
        c,
        '\u{ad}'
            | '\u{34f}'
            | '\u{61c}'
            | '\u{115f}'..='\u{1160}'
            | '\u{17b4}'..='\u{17b5}'
            | '\u{180b}'..='\u{180f}'
            | '\u{200b}'..='\u{200f}'
            | '\u{202a}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}'
            | '\u{3164}'
            | '\u{fe00}'..='\u{fe0f}'
            | '\u{feff}'
            | '\u{ffa0}'
            | '\u{fff0}'..='\u{fff8}'
            | '\u{1bca0}'..='\u{1bca3}'
            | '\u{1d173}'..='\u{1d17a}'
            | '\u{e0000}'..='\u{e0fff}'
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_people_take_for_the_same_are_the_same() {
        for (one, other) in [
            ("Ada", "ada"),
            ("ÉMILE", "e\u{301}mile"),
            ("ａｄａ", "ada"),
            ("Ada@Example.COM", " ada@example.com "),
            ("İ", "i\u{307}"),
            ("a\u{200b}da", "ada"),
            ("\u{202e}ada", "ada"),
            ("ada\u{feff}@example.com", "ada@example.com"),
        ] {
            assert_eq!(key(one), key(other), "{one} {other}");
        }
        assert_ne!(key("ada"), key("adа"), "a Cyrillic letter is another one");
    }

    #[test]
    fn usernames_are_visible_and_bounded() {
        for good in ["a", "Ada Lovelace", "ada@example.com", "имя", &"é".repeat(200)] {
            assert_eq!(Username::parse(good).map(|name| name.0).as_deref(), Ok(good));
        }
        assert_eq!(Username::parse(""), Err(NameError::UsernameLength));
        assert_eq!(Username::parse(&"é".repeat(201)), Err(NameError::UsernameLength));
        assert_eq!(Username::parse("\u{200b}\u{3164}"), Err(NameError::UsernameLength), "nothing to be seen");
        assert_eq!(Username::parse(" ada"), Err(NameError::Space));
        assert_eq!(Username::parse("a\u{0}a"), Err(NameError::ControlCharacter));
        assert!(Username::parse("ada＠example.com").unwrap().is_address(), "a wide @ is one");
    }

    #[test]
    fn addresses_have_one_at_sign_between_two_parts() {
        for good in ["a@b", "ada.lovelace+x@example.com", "имя@пример.рф"] {
            assert!(Email::parse(good).is_ok(), "{good}");
        }
        let long = format!("{}@example.com", "a".repeat(243));
        for bad in ["", "ada", "@b", "a@", "a b@c", "a@b@c", "\u{200b}@b", "a\u{0}@b", "a＠b@c", &long] {
            assert_eq!(Email::parse(bad), Err(NameError::Email), "{bad}");
        }
        assert_eq!(Email::parse(" ada@example.com ").unwrap().as_str(), "ada@example.com");
    }
}
