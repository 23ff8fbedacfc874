//! What a form carries to prove that its page was made for this browser, and for this app: otherwise any page could sign
//! somebody in as somebody else (RFC 6749 §10.12).

use base64ct::{Base64UrlUnpadded, Encoding};
use keypost_shared::id::SsoAppId;
use keypost_shared::secret::{SecretHash, SecretText};

use crate::crypto_at_rest::MasterKey;

/// The token for forms of this app in the browser with this cookie.
pub(super) fn make(master_key: &MasterKey, cookie: &SecretText, app: SsoAppId) -> String {
    Base64UrlUnpadded::encode_string(&master_key.form_hmac(cookie.expose(), &app.to_string()))
}

/// Whether a form carries a token for this app and the browser with this cookie, in constant time.
pub(super) fn is_right(master_key: &MasterKey, cookie: &SecretText, app: SsoAppId, shown: &str) -> bool {
    let Ok(shown) = SecretHash::try_from(shown.to_owned()) else { return false };
    let right = master_key.form_hmacs(cookie.expose(), &app.to_string());
    right.into_iter().any(|hmac| SecretHash::from_bytes(hmac).matches(&shown))
}

#[cfg(test)]
mod tests {
    use base64ct::{Base64UrlUnpadded, Encoding};

    use super::*;

    #[test]
    fn a_token_is_good_for_one_browser_and_one_app() {
        let master = |byte: u8| MasterKey::parse(&Base64UrlUnpadded::encode_string(&[byte; 32])).unwrap();
        let cookie = |text: &str| SecretText::new(text.to_owned());
        let app = SsoAppId(uuid::Uuid::from_u128(1));
        let token = make(&master(1), &cookie("a"), app);
        assert!(is_right(&master(1), &cookie("a"), app, &token));
        assert!(is_right(&master(2).accepting(&master(1)), &cookie("a"), app, &token));
        assert!(!is_right(&master(1), &cookie("b"), app, &token));
        assert!(!is_right(&master(1), &cookie("a"), SsoAppId(uuid::Uuid::from_u128(2)), &token));
        assert!(!is_right(&master(2), &cookie("a"), app, &token));
        for junk in ["", "x", &"A".repeat(43)] {
            assert!(!is_right(&master(1), &cookie("a"), app, junk));
        }
    }
}
