//! What a browser is known by: its cookies, and the token that ties a form to them.

use axum::http::header::COOKIE;
use axum::http::{HeaderMap, HeaderValue};
use keypost_shared::id::OrgId;
use keypost_shared::secret::SecretText;

/// How long a cookie of ours is, in characters: 256 bits in base64url.
const LENGTH: usize = 43;

/// The cookies of this deployment.
#[derive(Clone, Copy, Debug)]
pub(super) struct Cookies {
    is_secure: bool,
}

impl Cookies {
    /// Those of a control plane with this URL. Only on a developer's machine is it plain http, where browsers take no
    /// `Secure` cookies.
    pub(super) fn at(public_url: &str) -> Self {
        Self { is_secure: public_url.starts_with("https:") }
    }

    /// The cookie by which a browser gets its own form back.
    pub(super) fn form(self) -> String {
        self.named("keypost-form")
    }

    /// The cookie by which somebody is signed in to the apps of an organization.
    pub(super) fn sign_in(self, org: &OrgId) -> String {
        self.named(&format!("keypost-sign-in-{org}"))
    }

    /// `__Host-`: the browser takes it from this very host alone, over TLS (RFC 6265bis §4.1.3.2).
    fn named(self, name: &str) -> String {
        if self.is_secure { format!("__Host-{name}") } else { name.to_owned() }
    }

    /// The value of a cookie, if it is one that we could have set.
    pub(super) fn read(headers: &HeaderMap, name: &str) -> Option<SecretText> {
        let well_formed = |value: &&str| {
            let known = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
            value.len() == LENGTH && value.bytes().all(known)
        };
        headers
            .get_all(COOKIE)
            .iter()
            .filter_map(|value| value.to_str().ok())
            .flat_map(|value| value.split(';'))
            .filter_map(|pair| pair.trim().split_once('='))
            .filter(|(own, _)| *own == name)
            .map(|(_, value)| value)
            .find(well_formed)
            .map(|value| SecretText::new(value.to_owned()))
    }

    /// What sets a cookie until the browser is closed. `Lax`: an app may send the browser here, and no page may send it a
    /// form.
    pub(super) fn set(self, name: &str, value: &SecretText) -> Option<HeaderValue> {
        let secure = if self.is_secure { "; Secure" } else { "" };
        let text = format!("{name}={}; Path=/; HttpOnly; SameSite=Lax{secure}", value.expose());
        HeaderValue::try_from(text).ok()
    }
}

#[cfg(test)]
mod tests {
    use keypost_shared::secret::generate_secret;
    use rand_chacha::ChaCha20Rng;
    use rand_core::SeedableRng;

    use super::*;

    fn read(cookies: &[&'static str], name: &str) -> Option<String> {
        let mut headers = HeaderMap::new();
        for cookie in cookies {
            headers.append(COOKIE, HeaderValue::from_static(cookie));
        }
        Cookies::read(&headers, name).map(|value| value.expose().to_owned())
    }

    #[test]
    fn a_cookie_is_found_among_others() {
        const VALUE: &str = "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";
        let all = ["a=b; x=AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", "xx=1;x=short"];
        assert_eq!(read(&all, "x").as_deref(), Some(VALUE));
        assert_eq!(read(&["xx=AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"], "x"), None);
        assert_eq!(read(&["x=AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA%"], "x"), None);
    }

    #[test]
    fn over_tls_cookies_are_this_hosts_alone() {
        let value = generate_secret(&mut ChaCha20Rng::seed_from_u64(1));
        let org: OrgId = "acme".parse().unwrap();
        let set = |url: &str| {
            let cookies = Cookies::at(url);
            cookies.set(&cookies.sign_in(&org), &value).unwrap().to_str().unwrap().to_owned()
        };
        let secure = set("https://keypost.example");
        assert!(secure.starts_with("__Host-keypost-sign-in-acme="), "{secure}");
        assert!(secure.ends_with("; Path=/; HttpOnly; SameSite=Lax; Secure"), "{secure}");
        let plain = set("http://127.0.0.1:8080");
        assert!(plain.starts_with("keypost-sign-in-acme=") && !plain.contains("Secure"), "{plain}");
    }
}
