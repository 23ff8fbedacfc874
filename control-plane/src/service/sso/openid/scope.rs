//! The scopes of OpenID Connect (OpenID Connect Core §3.1.2.1, §5.4, §11).

use std::fmt;

/// Which of the scopes that Keypost knows are asked for, or granted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct OpenIdScope {
    /// `openid`: an ID token.
    pub openid: bool,
    /// `profile`: who the person is.
    pub profile: bool,
    /// `email`: their address.
    pub email: bool,
    /// `offline_access`: a refresh token.
    pub offline_access: bool,
}

/// A text that is no list of scope tokens (RFC 6749 §3.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("scope must be scope tokens of RFC 6749 section 3.3")]
pub struct ScopeError;

impl OpenIdScope {
    /// Reads a parameter. Scopes that nobody here knows are left out (OpenID Connect Core §3.1.2.1).
    pub fn parse(text: &str) -> Result<Self, ScopeError> {
        let allowed = |byte: u8| matches!(byte, 0x20..=0x21 | 0x23..=0x5b | 0x5d..=0x7e);
        if !text.bytes().all(allowed) {
            return Err(ScopeError);
        }
        let asked = |name: &str| text.split(' ').any(|token| token == name);
        Ok(Self {
            openid: asked("openid"),
            profile: asked("profile"),
            email: asked("email"),
            offline_access: asked("offline_access"),
        })
    }

    /// What of these is also among `others`.
    pub fn within(self, others: Self) -> Self {
        Self {
            openid: self.openid && others.openid,
            profile: self.profile && others.profile,
            email: self.email && others.email,
            offline_access: self.offline_access && others.offline_access,
        }
    }

    fn names(self) -> impl Iterator<Item = &'static str> {
        [
            (self.openid, "openid"),
            (self.profile, "profile"),
            (self.email, "email"),
            (self.offline_access, "offline_access"),
        ]
        .into_iter()
        .filter_map(|(is_asked, name)| is_asked.then_some(name))
    }
}

impl fmt::Display for OpenIdScope {
    /// The space-separated form.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (place, name) in self.names().enumerate() {
            f.write_str(if place == 0 { "" } else { " " })?;
            f.write_str(name)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_scopes_are_read_and_others_left_out() {
        let scope = OpenIdScope::parse("email  openid phone openid").unwrap();
        assert_eq!(scope, OpenIdScope { openid: true, email: true, ..OpenIdScope::default() });
        assert_eq!(scope.to_string(), "openid email");
        assert_eq!(OpenIdScope::parse("").unwrap().to_string(), "");
        let all = OpenIdScope::parse("offline_access email profile openid").unwrap();
        assert_eq!(all.to_string(), "openid profile email offline_access");
        assert_eq!(all.within(scope), scope);
        for bad in ["open\"id", "a\\b", "openid\nprofile", "é"] {
            assert_eq!(OpenIdScope::parse(bad), Err(ScopeError), "{bad}");
        }
    }
}
