//! What a client shows to prove itself (RFC 6749 §2.3.1), before anybody has checked it.

use base64ct::{Base64, Encoding};

use super::form::decode;
use super::{Form, OAuthError};
use crate::id::ClientId;
use crate::secret::SecretText;

/// `client_assertion_type` (RFC 7523 §2.2).
const JWT_BEARER: &str = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";

/// What a client presents to prove itself.
#[derive(Debug)]
pub enum ClientAuthentication<'a> {
    /// Its secret.
    Secret(ClientCredentials),
    /// `private_key_jwt`: an assertion by its key.
    Assertion {
        /// The assertion.
        assertion: &'a str,
        /// The `client_id` beside it, where there is one: it must be the assertion's.
        client_id: Option<&'a str>,
    },
}

impl<'a> ClientAuthentication<'a> {
    /// Finds it in a request: in exactly one place.
    pub fn find(authorization: Option<&str>, form: &'a Form) -> Result<Self, OAuthError> {
        let assertion = match (form.get("client_assertion"), form.get("client_assertion_type")) {
            (None, None) => return ClientCredentials::find(authorization, form).map(Self::Secret),
            (Some(assertion), Some(JWT_BEARER)) => assertion,
            (Some(_), Some(_)) => {
                return Err(OAuthError::InvalidRequest("client_assertion_type is not supported"));
            }
            (Some(_), None) => return Err(OAuthError::InvalidRequest("client_assertion_type is missing")),
            (None, Some(_)) => return Err(OAuthError::InvalidRequest("client_assertion is missing")),
        };
        if authorization.is_some() || form.get("client_secret").is_some() {
            return Err(OAuthError::InvalidRequest("client credentials in two places"));
        }
        Ok(Self::Assertion { assertion, client_id: form.get("client_id") })
    }

    /// Whether a request has any, right or wrong.
    pub fn is_present(authorization: Option<&str>, form: &Form) -> bool {
        let named = ["client_secret", "client_assertion", "client_assertion_type"];
        authorization.is_some() || named.iter().any(|name| form.get(name).is_some())
    }
}

/// A client id and a secret, presented and not yet checked.
#[derive(Debug)]
pub struct ClientCredentials {
    /// Who it says it is; none where that cannot be the id of any client.
    pub client_id: Option<ClientId>,
    /// The secret that it shows.
    pub secret: SecretText,
    /// Which way it came.
    pub by: PresentedBy,
}

/// The ways of showing a secret.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PresentedBy {
    /// `client_secret_basic`.
    Basic,
    /// `client_secret_post`.
    Post,
}

impl ClientCredentials {
    /// Finds the credentials in a request: in exactly one place.
    ///
    /// A `client_id` parameter beside Basic is no second place as long as it names the same client.
    pub fn find(authorization: Option<&str>, form: &Form) -> Result<Self, OAuthError> {
        let Some(header) = authorization else {
            return Self::from_form(form);
        };
        let (client_id, secret) = parse_basic(header).ok_or(OAuthError::InvalidClient { by_header: true })?;
        if form.get("client_secret").is_some() {
            return Err(OAuthError::InvalidRequest("client credentials in two places"));
        }
        if form.get("client_id").is_some_and(|named| named != client_id) {
            return Err(OAuthError::InvalidRequest("client_id is not the one of the Authorization header"));
        }
        Ok(Self::new(&client_id, secret, PresentedBy::Basic))
    }

    fn from_form(form: &Form) -> Result<Self, OAuthError> {
        match (form.get("client_id"), form.get("client_secret")) {
            (Some(client_id), Some(secret)) => Ok(Self::new(client_id, secret.to_owned(), PresentedBy::Post)),
            (None, Some(_)) => Err(OAuthError::InvalidRequest("client_secret without client_id")),
            (_, None) => Err(OAuthError::InvalidClient { by_header: false }),
        }
    }

    fn new(client_id: &str, secret: String, by: PresentedBy) -> Self {
        Self { client_id: client_id.parse().ok(), secret: SecretText::new(secret), by }
    }

    /// The answer where these credentials are not good enough.
    pub fn refusal(&self) -> OAuthError {
        OAuthError::InvalidClient { by_header: self.by == PresentedBy::Basic }
    }
}

/// `Basic` with form-encoded halves. Some clients send them raw: for the alphabet of Keypost's ids and secrets both mean
/// the same.
fn parse_basic(header: &str) -> Option<(String, String)> {
    let (scheme, encoded) = header.trim().split_once(' ')?;
    if !scheme.eq_ignore_ascii_case("basic") {
        return None;
    }
    let decoded = Base64::decode_vec(encoded.trim_start()).ok()?;
    let colon = decoded.iter().position(|&byte| byte == b':')?;
    let (client_id, secret) = (decoded.get(..colon)?, decoded.get(colon + 1..)?);
    Some((decode(client_id).ok()?, decode(secret).ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn basic(text: &str) -> String {
        format!("Basic {}", Base64::encode_string(text.as_bytes()))
    }

    fn find(authorization: Option<&str>, body: &str) -> Result<ClientCredentials, OAuthError> {
        ClientCredentials::find(authorization, &Form::parse(body.as_bytes()).unwrap())
    }

    #[test]
    fn basic_is_read_raw_and_form_encoded() {
        for text in ["d1505d57-a_b:s-e_c", "%64%31505d57%2Da%5Fb:s%2De%5Fc"] {
            let found = find(Some(&basic(text)), "").unwrap();
            assert_eq!(found.client_id.unwrap().as_str(), "d1505d57-a_b");
            assert_eq!((found.secret.expose(), found.by), ("s-e_c", PresentedBy::Basic));
        }
        assert!(find(Some(&basic("a:b").replace("Basic", "bAsIc")), "").is_ok());
    }

    #[test]
    fn malformed_headers_are_failed_authentication() {
        for header in
            ["", "Basic", "Basic !!!", "Basic YQ", "Bearer YTpi", &basic("no-colon"), &basic("a:%zz")]
        {
            assert_eq!(
                find(Some(header), "").err(),
                Some(OAuthError::InvalidClient { by_header: true }),
                "{header}"
            );
        }
    }

    #[test]
    fn credentials_in_two_places_are_an_invalid_request() {
        let header = basic("a:b");
        assert!(find(Some(&header), "client_id=a").is_ok());
        for body in ["client_id=a&client_secret=b", "client_secret=b", "client_id=other"] {
            assert!(matches!(find(Some(&header), body), Err(OAuthError::InvalidRequest(_))), "{body}");
        }
    }

    #[test]
    fn without_a_secret_nobody_is_authenticated() {
        assert_eq!(find(None, "").err(), Some(OAuthError::InvalidClient { by_header: false }));
        assert_eq!(find(None, "client_id=a").err(), Some(OAuthError::InvalidClient { by_header: false }));
        assert!(matches!(find(None, "client_secret=b"), Err(OAuthError::InvalidRequest(_))));
        assert!(find(None, "client_id=a&client_secret=b").is_ok());
    }

    #[test]
    fn an_assertion_is_the_only_proof_beside_nothing() {
        let of = |authorization: Option<&str>, body: &str| {
            let form = Form::parse(body.as_bytes()).unwrap();
            ClientAuthentication::find(authorization, &form).map(|found| format!("{found:?}"))
        };
        let kind = "client_assertion_type=urn:ietf:params:oauth:client-assertion-type:jwt-bearer";
        let good = format!("{kind}&client_assertion=a.b.c");
        let shown = r#"Assertion { assertion: "a.b.c", client_id: None }"#;
        assert_eq!(of(None, &good).unwrap(), shown);
        let named = of(None, &format!("{good}&client_id=x")).unwrap();
        assert_eq!(named, shown.replace("None", r#"Some("x")"#));
        let saml = "client_assertion_type=urn:ietf:params:oauth:client-assertion-type:saml2-bearer";
        for (authorization, body) in [
            (Some(basic("a:b")), good.as_str()),
            (Some("Bearer x".to_owned()), &good),
            (None, &format!("{good}&client_secret=b&client_id=a")),
            (None, "client_assertion=a.b.c"),
            (None, kind),
            (None, &format!("{saml}&client_assertion=a.b.c")),
        ] {
            let found = of(authorization.as_deref(), body);
            assert!(matches!(found, Err(OAuthError::InvalidRequest(_))), "{body}: {found:?}");
        }
        assert!(of(Some(&basic("a:b")), "").unwrap().starts_with("Secret"));
    }

    #[test]
    fn an_id_that_no_client_can_have_is_nobody() {
        assert!(find(None, "client_id=../x&client_secret=b").unwrap().client_id.is_none());
    }
}
