//! What an app asks at the token endpoint (RFC 6749 §4.1.3 and §6, RFC 7636 §4.5, RFC 8693 §2.1), and how it says who it is.

use keypost_shared::id::SsoAppId;
use keypost_shared::oauth::{ClientCredentials, Form, OAuthError};
use keypost_shared::secret::{ApiKey, KeyKind, SecretText};

use super::pkce::CodeVerifier;
use super::scope::OpenIdScope;

/// The grant type of RFC 8693.
pub const TOKEN_EXCHANGE_GRANT: &str = "urn:ietf:params:oauth:grant-type:token-exchange";
/// The token type of access tokens (RFC 8693 §3).
pub const ACCESS_TOKEN_TYPE: &str = "urn:ietf:params:oauth:token-type:access_token";
/// The token type of JWTs, which access tokens are too.
const JWT_TYPE: &str = "urn:ietf:params:oauth:token-type:jwt";

/// What is asked for.
#[derive(Debug)]
pub enum TokenRequest {
    /// Tokens for a code.
    AuthorizationCode {
        /// The code.
        code: SecretText,
        /// Where it went.
        redirect_uri: String,
        /// What proves that whoever asks is who began.
        code_verifier: CodeVerifier,
    },
    /// Fresh tokens.
    RefreshToken {
        /// The refresh token.
        refresh_token: SecretText,
        /// What the access token shall be for; all that was granted where it is not said.
        scope: Option<OpenIdScope>,
    },
    /// Tokens for this app, for somebody who is signed in to another of the organization.
    TokenExchange {
        /// Their access token.
        subject_token: SecretText,
        /// What the tokens shall be for.
        scope: OpenIdScope,
        /// The app that they are for, where it is said: it must be the one that asks.
        audience: Option<String>,
    },
}

/// Who an app says that it is.
#[derive(Debug)]
pub struct PresentedClient {
    /// Its id.
    pub client_id: SsoAppId,
    /// Its key; none where it has shown none, as an app must that cannot keep one.
    pub key: Option<ApiKey>,
    /// Whether it tried by the `Authorization` header.
    pub by_header: bool,
}

/// Why a request to the token endpoint is refused (RFC 6749 §5.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// Malformed.
    #[error("{0}")]
    InvalidRequest(&'static str),
    /// The app is unknown, or did not prove itself.
    #[error("client authentication failed")]
    InvalidClient {
        /// Whether it tried by the `Authorization` header.
        by_header: bool,
    },
    /// The code, the refresh token or the subject token is not good, or not this app's. One text for every reason.
    #[error("the grant is not valid, has expired, has been used, or is another client's")]
    InvalidGrant,
    /// No list of scopes, or more than was granted.
    #[error("scope must be scope tokens of RFC 6749 section 3.3, and of those that were granted")]
    InvalidScope,
    /// RFC 8693 §2.2.2: tokens for somebody else than who asks.
    #[error("audience must be the client that asks")]
    InvalidTarget,
    /// The app must prove itself for this.
    #[error("this grant needs client authentication")]
    UnauthorizedClient,
    /// A grant type that is not offered.
    #[error("this grant_type is not supported")]
    UnsupportedGrantType,
}

impl TokenError {
    /// The HTTP status.
    pub fn status(self) -> u16 {
        match self {
            Self::InvalidClient { .. } => 401,
            _ => 400,
        }
    }

    /// The member `error`.
    pub fn code(self) -> &'static str {
        match self {
            Self::InvalidRequest(_) => "invalid_request",
            Self::InvalidClient { .. } => "invalid_client",
            Self::InvalidGrant => "invalid_grant",
            Self::InvalidScope => "invalid_scope",
            Self::InvalidTarget => "invalid_target",
            Self::UnauthorizedClient => "unauthorized_client",
            Self::UnsupportedGrantType => "unsupported_grant_type",
        }
    }
}

impl TokenRequest {
    /// Reads what is asked for.
    pub fn parse(form: &Form) -> Result<Self, TokenError> {
        let secret = |name: &str| form.get(name).map(|text| SecretText::new(text.to_owned()));
        let missing = TokenError::InvalidRequest;
        match form.get("grant_type") {
            None => Err(missing("grant_type is missing")),
            Some("authorization_code") => Ok(Self::AuthorizationCode {
                code: secret("code").ok_or(missing("code is missing"))?,
                redirect_uri: form.get("redirect_uri").ok_or(missing("redirect_uri is missing"))?.to_owned(),
                code_verifier: form
                    .get("code_verifier")
                    .and_then(CodeVerifier::parse)
                    .ok_or(missing("code_verifier is missing or malformed"))?,
            }),
            Some("refresh_token") => Ok(Self::RefreshToken {
                refresh_token: secret("refresh_token").ok_or(missing("refresh_token is missing"))?,
                scope: form.get("scope").map(scope).transpose()?,
            }),
            Some(TOKEN_EXCHANGE_GRANT) => exchange(form),
            Some(_) => Err(TokenError::UnsupportedGrantType),
        }
    }
}

fn exchange(form: &Form) -> Result<TokenRequest, TokenError> {
    let invalid = TokenError::InvalidRequest;
    let subject_token = form.get("subject_token").ok_or(invalid("subject_token is missing"))?;
    match form.get("subject_token_type") {
        None => return Err(invalid("subject_token_type is missing")),
        Some(ACCESS_TOKEN_TYPE | JWT_TYPE) => {}
        Some(_) => return Err(invalid("subject_token_type must be that of an access token")),
    }
    if !matches!(form.get("requested_token_type"), None | Some(ACCESS_TOKEN_TYPE | JWT_TYPE)) {
        return Err(invalid("requested_token_type must be that of an access token"));
    }
    if form.get("actor_token").or(form.get("actor_token_type")).is_some() {
        return Err(invalid("actor tokens are not supported"));
    }
    if form.get("resource").is_some() {
        return Err(TokenError::InvalidTarget);
    }
    Ok(TokenRequest::TokenExchange {
        subject_token: SecretText::new(subject_token.to_owned()),
        scope: form.get("scope").map(scope).transpose()?.unwrap_or_default(),
        audience: form.get("audience").map(str::to_owned),
    })
}

fn scope(text: &str) -> Result<OpenIdScope, TokenError> {
    OpenIdScope::parse(text).map_err(|_| TokenError::InvalidScope)
}

impl PresentedClient {
    /// Finds who asks: `client_secret_basic`, `client_secret_post`, or `client_id` alone.
    pub fn find(authorization: Option<&str>, form: &Form) -> Result<Self, TokenError> {
        if form.get("client_assertion").or(form.get("client_assertion_type")).is_some() {
            return Err(TokenError::InvalidRequest("client assertions are not supported"));
        }
        let by_header = authorization.is_some();
        let unknown = TokenError::InvalidClient { by_header };
        if !by_header && form.get("client_secret").is_none() {
            let client_id = form.get("client_id").ok_or(unknown)?;
            let client_id = client_id.parse().map_err(|_| unknown)?;
            return Ok(Self { client_id, key: None, by_header });
        }
        let shown = ClientCredentials::find(authorization, form).map_err(|error| match error {
            OAuthError::InvalidRequest(what) => TokenError::InvalidRequest(what),
            _ => unknown,
        })?;
        let client_id = shown.client_id.and_then(|id| id.as_str().parse().ok()).ok_or(unknown)?;
        let key = ApiKey::parse(shown.secret.expose()).filter(|key| key.kind() == KeyKind::SsoApp);
        Ok(Self { client_id, key: Some(key.ok_or(unknown)?), by_header })
    }
}

#[cfg(test)]
mod tests {
    use base64ct::{Base64, Encoding};
    use rand_chacha::ChaCha20Rng;
    use rand_core::SeedableRng;

    use super::*;

    const VERIFIER: &str = "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk";
    const APP: &str = "00000000-0000-0000-0000-000000000007";

    fn parse(body: &str) -> Result<TokenRequest, TokenError> {
        TokenRequest::parse(&Form::parse(body.as_bytes()).unwrap())
    }

    #[test]
    fn each_grant_is_read_with_what_belongs_to_it() {
        let code = format!("grant_type=authorization_code&code=c&redirect_uri=u&code_verifier={VERIFIER}");
        assert!(
            matches!(parse(&code), Ok(TokenRequest::AuthorizationCode { redirect_uri, .. }) if redirect_uri == "u")
        );
        let refresh = parse("grant_type=refresh_token&refresh_token=r&scope=openid").unwrap();
        assert!(
            matches!(refresh, TokenRequest::RefreshToken { scope: Some(scope), .. } if scope.openid && !scope.email)
        );
        let refresh = parse("grant_type=refresh_token&refresh_token=r&scope=").unwrap();
        assert!(matches!(refresh, TokenRequest::RefreshToken { scope: None, .. }), "empty is absent");
        let exchange = format!(
            "grant_type={TOKEN_EXCHANGE_GRANT}&subject_token=t&subject_token_type={ACCESS_TOKEN_TYPE}&audience=a"
        );
        let read = parse(&exchange).unwrap();
        assert!(
            matches!(read, TokenRequest::TokenExchange { audience: Some(audience), .. } if audience == "a")
        );

        for (body, error) in [
            (String::new(), "invalid_request"),
            ("grant_type=password".to_owned(), "unsupported_grant_type"),
            ("grant_type=authorization_code".to_owned(), "invalid_request"),
            ("grant_type=authorization_code&code=c&redirect_uri=u".to_owned(), "invalid_request"),
            (
                "grant_type=authorization_code&code=c&redirect_uri=u&code_verifier=short".to_owned(),
                "invalid_request",
            ),
            (code.replace("redirect_uri=u&", ""), "invalid_request"),
            ("grant_type=refresh_token".to_owned(), "invalid_request"),
            ("grant_type=refresh_token&refresh_token=r&scope=%22".to_owned(), "invalid_scope"),
            (format!("{exchange}&scope=%22"), "invalid_scope"),
            (exchange.replace(&format!("&subject_token_type={ACCESS_TOKEN_TYPE}"), ""), "invalid_request"),
            (exchange.replace("access_token&", "refresh_token&"), "invalid_request"),
            (format!("{exchange}&requested_token_type=x"), "invalid_request"),
            (format!("{exchange}&actor_token=x"), "invalid_request"),
            (format!("{exchange}&resource=https://a/"), "invalid_target"),
        ] {
            assert_eq!(parse(&body).unwrap_err().code(), error, "{body}");
        }
    }

    #[test]
    fn an_app_shows_its_key_in_one_place_or_its_id_alone() {
        let key = ApiKey::generate(KeyKind::SsoApp, &mut ChaCha20Rng::seed_from_u64(1));
        let find = |authorization: Option<&str>, body: &str| {
            PresentedClient::find(authorization, &Form::parse(body.as_bytes()).unwrap())
        };
        let header = |id: &str, secret: &str| {
            format!("Basic {}", Base64::encode_string(format!("{id}:{secret}").as_bytes()))
        };
        let alone = find(None, &format!("client_id={APP}")).unwrap();
        assert!(alone.key.is_none() && alone.client_id.0.as_u128() == 7);
        let post = format!("client_id={APP}&client_secret={}", key.expose());
        assert_eq!(find(None, &post).unwrap().key.unwrap().expose(), key.expose());
        let basic = header(APP, key.expose());
        let by_header = find(Some(&basic), &format!("client_id={APP}")).unwrap();
        assert!(by_header.key.is_some() && by_header.by_header);

        let other = ApiKey::generate(KeyKind::Admin, &mut ChaCha20Rng::seed_from_u64(2));
        for (authorization, body, error) in [
            (None, String::new(), "invalid_client"),
            (None, "client_id=x".to_owned(), "invalid_client"),
            (None, format!("client_id={APP}&client_secret=x"), "invalid_client"),
            (None, format!("client_id={APP}&client_secret={}", other.expose()), "invalid_client"),
            (None, format!("client_secret={}", key.expose()), "invalid_request"),
            (Some(header("x", key.expose())), String::new(), "invalid_client"),
            (Some("Bearer x".to_owned()), format!("client_id={APP}"), "invalid_client"),
            (Some(basic.clone()), post, "invalid_request"),
            (Some(basic), "client_id=other".to_owned(), "invalid_request"),
            (None, format!("client_id={APP}&client_assertion=x"), "invalid_request"),
        ] {
            let refused = find(authorization.as_deref(), &body).unwrap_err();
            assert_eq!(refused.code(), error, "{authorization:?} {body}");
        }
    }
}
