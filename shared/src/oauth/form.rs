//! Form-encoded request parameters (RFC 6749 appendix B): strict where a lenient reader would guess.

use memchr::memchr2;
use percent_encoding::percent_decode;

/// The most parameters that a request may have.
const MAX_PARAMETERS: usize = 64;

/// Why a body is no list of parameters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FormError {
    /// `%` without two hexadecimal digits behind it.
    #[error("a parameter has broken percent-encoding")]
    PercentEncoding,
    /// Not UTF-8 once it is decoded.
    #[error("a parameter is not UTF-8")]
    NotUtf8,
    /// The same name twice (RFC 6749 §3.2).
    #[error("a parameter is repeated")]
    Repeated,
    /// More than 64 parameters.
    #[error("too many parameters")]
    TooMany,
}

/// The parameters of a request. Empty ones count as absent (RFC 6749 §3.2).
pub struct Form(Vec<(String, String)>);

impl Form {
    /// Reads `application/x-www-form-urlencoded`.
    pub fn parse(body: &[u8]) -> Result<Self, FormError> {
        let mut parameters: Vec<(String, String)> = Vec::new();
        for pair in body.split(|&byte| byte == b'&').filter(|pair| !pair.is_empty()) {
            let (name, value) = match pair.iter().position(|&byte| byte == b'=') {
                Some(at) => (pair.get(..at).unwrap_or_default(), pair.get(at + 1..).unwrap_or_default()),
                None => (pair, &[][..]),
            };
            let (name, value) = (decode(name)?, decode(value)?);
            if value.is_empty() {
                continue;
            }
            if parameters.iter().any(|(earlier, _)| *earlier == name) {
                return Err(FormError::Repeated);
            }
            if parameters.len() == MAX_PARAMETERS {
                return Err(FormError::TooMany);
            }
            parameters.push((name, value));
        }
        Ok(Self(parameters))
    }

    /// A parameter's value, which is not empty.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(own, _)| own == name).map(|(_, value)| value.as_str())
    }
}

/// Decodes one name, one value, or one half of Basic credentials (RFC 6749 §2.3.1).
pub(super) fn decode(encoded: &[u8]) -> Result<String, FormError> {
    // The long ones, assertions and tokens, stand for themselves.
    if memchr2(b'%', b'+', encoded).is_none() {
        return str::from_utf8(encoded).map(str::to_owned).map_err(|_| FormError::NotUtf8);
    }
    let mut rest = encoded;
    while let Some(at) = rest.iter().position(|&byte| byte == b'%') {
        let digits = rest.get(at + 1..at + 3).ok_or(FormError::PercentEncoding)?;
        if !digits.iter().all(u8::is_ascii_hexdigit) {
            return Err(FormError::PercentEncoding);
        }
        rest = rest.get(at + 3..).unwrap_or_default();
    }
    let spaced: Vec<u8> = encoded.iter().map(|&byte| if byte == b'+' { b' ' } else { byte }).collect();
    let decoded = percent_decode(&spaced).decode_utf8().map_err(|_| FormError::NotUtf8)?;
    Ok(decoded.into_owned())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn parameters_are_decoded_and_empty_ones_are_absent() {
        let form = Form::parse(b"grant_type=client_credentials&scope=a+b%20c&empty=&bare&&x=%C3%A9").unwrap();
        assert_eq!(form.get("grant_type"), Some("client_credentials"));
        assert_eq!(form.get("scope"), Some("a b c"));
        assert_eq!(form.get("x"), Some("é"));
        assert_eq!((form.get("empty"), form.get("bare"), form.get("none")), (None, None, None));
    }

    #[test]
    fn what_cannot_be_read_one_way_only_is_refused() {
        let refused = |body: &[u8]| Form::parse(body).err();
        assert_eq!(refused(b"a=1&a=2"), Some(FormError::Repeated));
        assert_eq!(refused(b"a=1&%61=2"), Some(FormError::Repeated));
        for broken in [&b"a=%"[..], b"a=%2", b"a=%zz", b"%g0=1", b"a=%2&b=1"] {
            assert_eq!(refused(broken), Some(FormError::PercentEncoding));
        }
        assert_eq!(refused(b"a=%ff"), Some(FormError::NotUtf8));
        assert_eq!(refused(b"a=\xff"), Some(FormError::NotUtf8));
        let many: Vec<String> = (0..65).map(|n| format!("p{n}=1")).collect();
        assert_eq!(refused(many.join("&").as_bytes()), Some(FormError::TooMany));
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(body in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = Form::parse(&body);
        }
    }
}
