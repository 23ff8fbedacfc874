//! Redirect URIs: which an app may register, which it may ask for, and what they are sent back with.

use std::net::{Ipv4Addr, Ipv6Addr};

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use reqwest::Url;

/// The most characters of a redirect URI.
pub const LONGEST: usize = 2000;
/// A colon and five digits.
const LONGEST_PORT: usize = 6;
/// All but the unreserved characters of RFC 3986 §2.3.
const RESERVED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// Why a text cannot be registered as a redirect URI.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RedirectUriError {
    /// Over 2,000 characters.
    #[error("must have at most 2000 characters")]
    TooLong,
    /// Not an absolute URI, or one with characters that no URI has.
    #[error("must be an absolute URI")]
    NotAUri,
    /// It has a part after `#` (RFC 6749 §3.1.2).
    #[error("must have no fragment")]
    Fragment,
    /// It has a user name or a password, or a host that is none.
    #[error("must have a plain host")]
    Host,
    /// Another scheme than those that are allowed.
    #[error(
        "must be https, http on 127.0.0.1, [::1] or localhost, or a private scheme with a dot, as com.example.app:/"
    )]
    Scheme,
}

/// A redirect URI that an app has asked for and that is one of those that it has registered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RedirectUri(String);

/// Whether a text may be registered: https; http on the machine itself (RFC 8252 §7.3); or a scheme of an app's own, which
/// holds a dot (§7.1). So no `javascript:`, and no code in clear on the network.
pub fn check(text: &str) -> Result<(), RedirectUriError> {
    if text.len() > LONGEST {
        return Err(RedirectUriError::TooLong);
    }
    // As RFC 3986 §2 has it: what is not among these is to be percent-encoded.
    let is_uri_character =
        |byte: u8| byte.is_ascii_alphanumeric() || b"-._~:/?#[]@!$&'()*+,;=%".contains(&byte);
    let url = Url::parse(text).ok().filter(|_| text.bytes().all(is_uri_character));
    let url = url.ok_or(RedirectUriError::NotAUri)?;
    if text.contains('#') {
        return Err(RedirectUriError::Fragment);
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err(RedirectUriError::Host);
    }
    match url.scheme() {
        // `Url` mends what is written otherwise, and two readers could disagree about what was meant.
        scheme @ ("https" | "http") => {
            let rest = text.strip_prefix(scheme).and_then(|rest| rest.strip_prefix("://"));
            let authority = rest.and_then(|rest| rest.split(['/', '?']).next()).unwrap_or_default();
            let host = url.host_str().filter(|host| plain_host(host)).ok_or(RedirectUriError::Host)?;
            if !authority.starts_with(host) {
                return Err(RedirectUriError::Host);
            }
            if scheme == "https" || is_loopback(host) { Ok(()) } else { Err(RedirectUriError::Scheme) }
        }
        scheme if scheme.contains('.') => Ok(()),
        _ => Err(RedirectUriError::Scheme),
    }
}

fn plain_host(host: &str) -> bool {
    let is_name = host.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-.".contains(&byte));
    is_name
        || host.strip_prefix('[').and_then(|host| host.strip_suffix(']')?.parse::<Ipv6Addr>().ok()).is_some()
}

fn is_loopback(host: &str) -> bool {
    host == "localhost" || host == "[::1]" || host.parse() == Ok(Ipv4Addr::LOCALHOST)
}

impl RedirectUri {
    /// The one that is asked for, if it is among those that are registered: to the letter, but for the port of a loopback
    /// address, which the machine gives out anew each time (RFC 8252 §7.3).
    pub fn find(asked: &str, registered: &[String]) -> Option<Self> {
        let is_it = |registered: &String| {
            registered == asked
                || without_port(registered).is_some_and(|wanted| without_port(asked) == Some(wanted))
        };
        let is_known = asked.len() <= LONGEST + LONGEST_PORT && registered.iter().any(is_it);
        is_known.then(|| Self(asked.to_owned()))
    }

    /// The URI itself.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The URI with more parameters, each of which arrives as it is given, whatever it holds.
    pub fn with(&self, parameters: &[(&str, &str)]) -> String {
        let mut uri = self.0.clone();
        for (name, value) in parameters {
            match uri.find('?') {
                None => uri.push('?'),
                Some(at) if at + 1 == uri.len() || uri.ends_with('&') => {}
                Some(_) => uri.push('&'),
            }
            uri.push_str(name);
            uri.push('=');
            uri.extend(utf8_percent_encode(value, RESERVED));
        }
        uri
    }

    /// What a Content Security Policy calls the place that it leads to. Browsers hold the redirect after a form to
    /// `form-action` too.
    pub fn csp_source(&self) -> String {
        let scheme = self.0.split(':').next().unwrap_or_default().to_ascii_lowercase();
        let source = Url::parse(&self.0).ok().and_then(|url| {
            // A policy cannot name an address in brackets.
            let host = url.host_str().filter(|host| plain_host(host) && !host.starts_with('['))?;
            let port = url.port().map(|port| format!(":{port}")).unwrap_or_default();
            matches!(scheme.as_str(), "http" | "https").then(|| format!("{scheme}://{host}{port}"))
        });
        source.unwrap_or_else(|| format!("{scheme}:"))
    }
}

/// The host and what follows the port, of an http URI on a loopback address.
fn without_port(uri: &str) -> Option<(&str, &str)> {
    let (host, rest) = ["http://127.0.0.1", "http://[::1]"]
        .into_iter()
        .find_map(|host| Some((host, uri.strip_prefix(host)?)))?;
    let rest = match rest.strip_prefix(':') {
        None => rest,
        Some(port) => {
            let digits = port.bytes().take_while(u8::is_ascii_digit).count();
            let (port, rest) = port.split_at_checked(digits)?;
            port.parse::<u16>().ok()?;
            rest
        }
    };
    (rest.is_empty() || rest.starts_with(['/', '?'])).then_some((host, rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(asked: &str, registered: &str) -> bool {
        RedirectUri::find(asked, &[registered.to_owned()]).is_some()
    }

    #[test]
    fn only_places_that_an_app_can_own_are_registered() {
        for good in [
            "https://app.example/callback",
            "https://app.example:8443/cb?tenant=1&x",
            "http://127.0.0.1/cb",
            "http://[::1]:3000/cb",
            "http://localhost:3000",
            "com.example.app:/cb",
        ] {
            assert_eq!(check(good), Ok(()), "{good}");
        }
        for (bad, error) in [
            ("", RedirectUriError::NotAUri),
            ("/cb", RedirectUriError::NotAUri),
            ("https://app.example/a b", RedirectUriError::NotAUri),
            ("https://app.example/\r\nSet-Cookie:a=b", RedirectUriError::NotAUri),
            ("https://app.example/é", RedirectUriError::NotAUri),
            ("https://app.example/cb#x", RedirectUriError::Fragment),
            ("https://app.example/cb#", RedirectUriError::Fragment),
            ("https://user@app.example/", RedirectUriError::Host),
            ("https://user:pw@app.example/", RedirectUriError::Host),
            ("https:/app.example/", RedirectUriError::Host),
            ("https:app.example", RedirectUriError::Host),
            ("https://app.example;script-src/", RedirectUriError::Host),
            ("https://app.EXAMPLE/", RedirectUriError::Host),
            ("https://%61pp.example/", RedirectUriError::Host),
            ("http://127.1/", RedirectUriError::Host),
            ("http://app.example/cb", RedirectUriError::Scheme),
            ("http://127.0.0.1.evil.example/", RedirectUriError::Scheme),
            ("javascript:alert(1)", RedirectUriError::Scheme),
            ("data:text/html,x", RedirectUriError::Scheme),
            ("myapp:/cb", RedirectUriError::Scheme),
        ] {
            assert_eq!(check(bad), Err(error), "{bad}");
        }
        assert_eq!(check(&format!("https://a.example/{}", "a".repeat(2000))), Err(RedirectUriError::TooLong));
    }

    #[test]
    fn what_is_asked_for_is_registered_to_the_letter() {
        let registered = "https://app.example/cb";
        assert!(found(registered, registered));
        for other in [
            "https://app.example/cb/",
            "https://app.example/cb?x",
            "https://app.example/CB",
            "https://app.example:443/cb",
            "https://app.example/cb/../evil",
            "https://app.example/%63b",
            "https://app.example.evil.example/cb",
            "https://evil.example/cb",
            "http://app.example/cb",
            "",
        ] {
            assert!(!found(other, registered), "{other}");
        }
    }

    #[test]
    fn the_port_of_a_loopback_address_may_be_another() {
        for registered in ["http://127.0.0.1/cb", "http://127.0.0.1:3000/cb"] {
            for asked in ["http://127.0.0.1/cb", "http://127.0.0.1:0/cb", "http://127.0.0.1:65535/cb"] {
                assert!(found(asked, registered), "{asked}");
            }
            for other in [
                "http://127.0.0.1:65536/cb",
                "http://127.0.0.1:/cb",
                "http://127.0.0.1:80x/cb",
                "http://127.0.0.1:80@evil.example/cb",
                "http://127.0.0.1@evil.example/cb",
                "http://127.0.0.1.evil.example/cb",
                "http://127.0.0.1:1/evil",
                "https://127.0.0.1:1/cb",
                "http://[::1]:1/cb",
                "http://localhost:1/cb",
            ] {
                assert!(!found(other, registered), "{other}");
            }
        }
        assert!(found("http://[::1]:9/cb", "http://[::1]/cb"));
        assert!(!found("http://localhost:9/cb", "http://localhost/cb"), "a name may lead elsewhere");
    }

    #[test]
    fn parameters_arrive_as_they_were_given() {
        let of = |uri: &str| RedirectUri(uri.to_owned());
        let state = "a&b=c#d%0d%0a\r\nSet-Cookie: x=y é";
        for (uri, beginning) in [
            ("https://app.example/cb", "https://app.example/cb?"),
            ("https://app.example/cb?x=1", "https://app.example/cb?x=1&"),
            ("https://app.example/cb?", "https://app.example/cb?"),
            ("https://app.example/cb?x&", "https://app.example/cb?x&"),
        ] {
            let sent = of(uri).with(&[("code", "c"), ("state", state)]);
            assert!(
                sent.starts_with(beginning) && sent.is_ascii() && !sent.contains(['\r', '\n', '#']),
                "{sent}"
            );
            let url = Url::parse(&sent).unwrap();
            let last: Vec<_> = url.query_pairs().collect();
            assert_eq!(last[last.len() - 2..], [("code".into(), "c".into()), ("state".into(), state.into())]);
        }
    }

    #[test]
    fn a_policy_names_the_place_and_nothing_more() {
        let of = |uri: &str| RedirectUri(uri.to_owned()).csp_source();
        assert_eq!(of("https://app.example:8443/cb?x"), "https://app.example:8443");
        assert_eq!(of("https://app.example/cb"), "https://app.example");
        assert_eq!(of("http://127.0.0.1:3000/cb"), "http://127.0.0.1:3000");
        assert_eq!(of("http://[::1]:3000/cb"), "http:");
        assert_eq!(of("com.example.app:/cb"), "com.example.app:");
        assert_eq!(of("https://a;script-src *.example/"), "https:");
    }
}
