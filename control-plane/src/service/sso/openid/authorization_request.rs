//! What an app asks when it sends a browser to be signed in (RFC 6749 §4.1.1, OpenID Connect Core §3.1.2.1).
//!
//! It is read in two steps. Until it is known which app asks and where the answer goes ([`Addressee`]), a person must be told
//! what is wrong, and nobody may be sent anywhere. From then on errors are the app's to hear.

use keypost_shared::id::SsoAppId;
use keypost_shared::oauth::Form;
use time::{Duration, OffsetDateTime};

use super::pkce::CodeChallenge;
use super::scope::OpenIdScope;

const LONGEST_STATE: usize = 2048;
const LONGEST_NONCE: usize = 512;
const LONGEST_LOGIN_HINT: usize = 254;

/// Who asks, and where the answer is to go, as it was sent: whether they belong together is still to be asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Addressee<'a> {
    /// The client app.
    pub client_id: SsoAppId,
    /// Where the answer is to go.
    pub redirect_uri: &'a str,
}

/// What is asked for.
#[derive(Clone, Debug)]
pub struct AuthorizationRequest {
    /// The app's own, to be given back.
    pub state: Option<String>,
    /// The app's own, to be put into the ID token.
    pub nonce: Option<String>,
    /// What the tokens shall be for.
    pub scope: OpenIdScope,
    /// What the code will be redeemed against.
    pub code_challenge: CodeChallenge,
    /// What the person shall see.
    pub prompt: Prompt,
    /// How long ago the person may have signed in.
    pub max_age: Option<Duration>,
    /// Who the app thinks that it is.
    pub login_hint: Option<String>,
    /// An ID token of the person whom the app means.
    pub id_token_hint: Option<String>,
}

/// What the person shall see (OpenID Connect Core §3.1.2.1, Initiating User Registration §4).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Prompt {
    /// The page, unless they are signed in.
    WhereNeeded,
    /// Nothing.
    None,
    /// The page, signed in or not.
    Login,
    /// The page for a new account.
    Create,
}

/// A request that is not answered with a code (RFC 6749 §4.1.2.1, OpenID Connect Core §3.1.2.6).
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AuthorizationError {
    /// Malformed.
    #[error("{0}")]
    InvalidRequest(&'static str),
    /// Anything but `code`.
    #[error("response_type must be code")]
    UnsupportedResponseType,
    /// No list of scopes.
    #[error("scope must be scope tokens of RFC 6749 section 3.3")]
    InvalidScope,
    /// The parameter `request`.
    #[error("request objects are not supported")]
    RequestNotSupported,
    /// The parameter `request_uri`.
    #[error("request objects are not supported")]
    RequestUriNotSupported,
    /// The parameter `registration`.
    #[error("registration is not supported")]
    RegistrationNotSupported,
    /// The person would have to sign in, and must not be asked.
    #[error("the person is not signed in")]
    LoginRequired,
    /// Something of ours does not answer.
    #[error("this cannot be answered at the moment, try again later")]
    TemporarilyUnavailable,
    /// Something of ours is broken.
    #[error("something went wrong")]
    ServerError,
}

impl AuthorizationError {
    /// The parameter `error`.
    pub fn code(self) -> &'static str {
        match self {
            Self::InvalidRequest(_) => "invalid_request",
            Self::UnsupportedResponseType => "unsupported_response_type",
            Self::InvalidScope => "invalid_scope",
            Self::RequestNotSupported => "request_not_supported",
            Self::RequestUriNotSupported => "request_uri_not_supported",
            Self::RegistrationNotSupported => "registration_not_supported",
            Self::LoginRequired => "login_required",
            Self::TemporarilyUnavailable => "temporarily_unavailable",
            Self::ServerError => "server_error",
        }
    }
}

impl<'a> Addressee<'a> {
    /// Reads who asks. The error is for the person at the browser.
    pub fn parse(form: &'a Form) -> Result<Self, &'static str> {
        let client_id = form.get("client_id").ok_or("client_id is missing")?;
        let client_id = client_id.parse().map_err(|_| "client_id is not known")?;
        let redirect_uri = form.get("redirect_uri").ok_or("redirect_uri is missing")?;
        Ok(Self { client_id, redirect_uri })
    }
}

/// `state`, which goes back with the answer, an error too; none where it is longer than we give back.
pub fn state(form: &Form) -> Option<&str> {
    form.get("state").filter(|state| state.len() <= LONGEST_STATE)
}

impl AuthorizationRequest {
    /// Reads what is asked for.
    pub fn parse(form: &Form) -> Result<Self, AuthorizationError> {
        use AuthorizationError::*;
        for (name, error) in [
            ("request", RequestNotSupported),
            ("request_uri", RequestUriNotSupported),
            ("registration", RegistrationNotSupported),
        ] {
            if form.get(name).is_some() {
                return Err(error);
            }
        }
        match form.get("response_type") {
            None => return Err(InvalidRequest("response_type is missing")),
            Some("code") => {}
            Some(_) => return Err(UnsupportedResponseType),
        }
        if form.get("response_mode").is_some_and(|mode| mode != "query") {
            return Err(InvalidRequest("response_mode must be query"));
        }
        if form.get("state").is_some() && state(form).is_none() {
            return Err(InvalidRequest("state is too long"));
        }
        let nonce = form.get("nonce");
        if nonce.is_some_and(|nonce| nonce.len() > LONGEST_NONCE || nonce.contains('\0')) {
            return Err(InvalidRequest("nonce is too long, or not a text"));
        }
        Ok(Self {
            state: state(form).map(str::to_owned),
            nonce: nonce.map(str::to_owned),
            scope: OpenIdScope::parse(form.get("scope").unwrap_or_default()).map_err(|_| InvalidScope)?,
            code_challenge: code_challenge(form)?,
            prompt: Prompt::parse(form.get("prompt").unwrap_or_default())?,
            max_age: form.get("max_age").map(max_age).transpose()?,
            // It is only a hint.
            login_hint: form
                .get("login_hint")
                .filter(|hint| hint.chars().count() <= LONGEST_LOGIN_HINT && !hint.contains(char::is_control))
                .map(str::to_owned),
            id_token_hint: form.get("id_token_hint").map(str::to_owned),
        })
    }

    /// Whether somebody who gave their password at that time need not give it again.
    pub fn is_satisfied_by(&self, auth_time: OffsetDateTime, now: OffsetDateTime) -> bool {
        // A client compares whole seconds (`auth_time`), so half of one too old would do no good there.
        let age = now.unix_timestamp() - auth_time.unix_timestamp();
        let is_fresh = self.max_age.is_none_or(|most| most.is_positive() && age <= most.whole_seconds());
        is_fresh && matches!(self.prompt, Prompt::WhereNeeded | Prompt::None)
    }
}

impl Prompt {
    fn parse(text: &str) -> Result<Self, AuthorizationError> {
        let invalid = AuthorizationError::InvalidRequest;
        let mut prompt = Self::WhereNeeded;
        let values: Vec<&str> = text.split(' ').filter(|value| !value.is_empty()).collect();
        for value in &values {
            prompt = match (*value, prompt) {
                ("none", _) if values.len() == 1 => Self::None,
                ("none", _) => return Err(invalid("prompt=none goes with no other value")),
                // Apps and accounts are the same organization's, so there is nobody to consent; and a page that asks who
                // one is serves for choosing too.
                ("consent", before) => before,
                ("login" | "select_account", Self::Create) => Self::Create,
                ("login" | "select_account", _) => Self::Login,
                ("create", _) => Self::Create,
                _ => return Err(invalid("prompt is not supported")),
            };
        }
        Ok(prompt)
    }
}

fn code_challenge(form: &Form) -> Result<CodeChallenge, AuthorizationError> {
    let invalid = AuthorizationError::InvalidRequest;
    let challenge = form.get("code_challenge").ok_or(invalid("code_challenge is missing (RFC 7636)"))?;
    if form.get("code_challenge_method") != Some("S256") {
        return Err(invalid("code_challenge_method must be S256"));
    }
    CodeChallenge::parse(challenge).ok_or(invalid("code_challenge must be the base64url of a SHA-256"))
}

fn max_age(text: &str) -> Result<Duration, AuthorizationError> {
    let seconds: u32 = text
        .parse()
        .ok()
        .filter(|_| text.bytes().all(|byte| byte.is_ascii_digit()))
        .ok_or(AuthorizationError::InvalidRequest("max_age must be a number of seconds"))?;
    Ok(Duration::seconds(i64::from(seconds)))
}

#[cfg(test)]
mod tests {
    use super::*;

    const CHALLENGE: &str =
        "code_challenge=E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM&code_challenge_method=S256";

    fn parse(query: &str) -> Result<AuthorizationRequest, AuthorizationError> {
        AuthorizationRequest::parse(&Form::parse(query.as_bytes()).unwrap())
    }

    fn with(more: &str) -> Result<AuthorizationRequest, AuthorizationError> {
        parse(&format!("response_type=code&{CHALLENGE}&{more}"))
    }

    #[test]
    fn who_asks_and_where_the_answer_goes_must_be_said() {
        let read = |query: &str| {
            let form = Form::parse(query.as_bytes()).unwrap();
            Addressee::parse(&form).map(|who| (who.client_id.0.as_u128(), who.redirect_uri.to_owned()))
        };
        let id = "client_id=00000000-0000-0000-0000-000000000007";
        assert_eq!(read(&format!("{id}&redirect_uri=https://a/")), Ok((7, "https://a/".to_owned())));
        assert_eq!(read(id), Err("redirect_uri is missing"));
        assert_eq!(read("redirect_uri=https://a/"), Err("client_id is missing"));
        assert_eq!(read("client_id=x&redirect_uri=https://a/"), Err("client_id is not known"));
    }

    #[test]
    fn a_whole_request_is_read() {
        let request = with(
            "scope=openid+email+phone&state=a%0d%0ab&nonce=n&prompt=login+consent&max_age=60&login_hint=ann&ui_locales=de",
        )
        .unwrap();
        assert_eq!(request.scope.to_string(), "openid email");
        assert_eq!((request.state.as_deref(), request.nonce.as_deref()), (Some("a\r\nb"), Some("n")));
        assert_eq!((request.prompt, request.max_age), (Prompt::Login, Some(Duration::MINUTE)));
        assert_eq!(request.login_hint.as_deref(), Some("ann"));
    }

    #[test]
    fn each_fault_has_its_error() {
        let code = |result: Result<AuthorizationRequest, AuthorizationError>| result.unwrap_err().code();
        assert_eq!(code(parse(CHALLENGE)), "invalid_request");
        for kind in ["token", "id_token", "code+id_token", "none"] {
            assert_eq!(
                code(parse(&format!("{CHALLENGE}&response_type={kind}"))),
                "unsupported_response_type"
            );
        }
        for (query, error) in [
            ("response_mode=fragment", "invalid_request"),
            ("scope=a%22b", "invalid_scope"),
            ("prompt=none+login", "invalid_request"),
            ("prompt=dance", "invalid_request"),
            ("max_age=-1", "invalid_request"),
            ("max_age=%2B1", "invalid_request"),
            ("max_age=99999999999", "invalid_request"),
            ("nonce=%00", "invalid_request"),
            ("request=x", "request_not_supported"),
            ("request_uri=https://a/", "request_uri_not_supported"),
            ("registration=x", "registration_not_supported"),
        ] {
            assert_eq!(code(with(query)), error, "{query}");
        }
        assert_eq!(code(with(&format!("state={}", "a".repeat(2049)))), "invalid_request");
        assert_eq!(code(with(&format!("nonce={}", "a".repeat(513)))), "invalid_request");
    }

    #[test]
    fn without_s256_there_is_no_code() {
        let challenge = "code_challenge=E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM";
        for query in [
            "response_type=code".to_owned(),
            format!("response_type=code&{challenge}"),
            format!("response_type=code&{challenge}&code_challenge_method=plain"),
            "response_type=code&code_challenge=short&code_challenge_method=S256".to_owned(),
        ] {
            assert!(matches!(parse(&query), Err(AuthorizationError::InvalidRequest(_))), "{query}");
        }
    }

    #[test]
    fn a_password_counts_as_long_as_the_app_says() {
        let then = OffsetDateTime::UNIX_EPOCH;
        let satisfied = |query: &str, seconds| {
            with(query).unwrap().is_satisfied_by(then, then + Duration::seconds(seconds))
        };
        assert!(satisfied("", 1_000_000) && satisfied("prompt=none", 5) && satisfied("prompt=consent", 5));
        assert!(satisfied("max_age=60", 60) && !satisfied("max_age=60", 61) && !satisfied("max_age=0", 0));
        for query in ["prompt=login", "prompt=select_account", "prompt=create", "prompt=login+create"] {
            assert!(!satisfied(query, 0), "{query}");
        }
    }

    #[test]
    fn descriptions_keep_to_the_characters_of_rfc_6749() {
        use AuthorizationError::*;
        for error in [
            UnsupportedResponseType,
            InvalidScope,
            RequestNotSupported,
            RegistrationNotSupported,
            LoginRequired,
            TemporarilyUnavailable,
            ServerError,
        ] {
            let allowed = |byte: u8| matches!(byte, 0x20..=0x21 | 0x23..=0x5b | 0x5d..=0x7e);
            assert!(error.to_string().bytes().all(allowed), "{error}");
        }
    }
}
