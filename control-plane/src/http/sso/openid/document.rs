//! What is sent to the endpoints of OpenID Connect and what they answer, for the API's document. It is read and written
//! elsewhere, as OAuth has it: parameters that nobody knows are ignored, and empty ones count as absent.

#![expect(dead_code, reason = "it describes forms and answers for the API's document")]

use utoipa::{IntoParams, ToSchema};

/// An authorization request.
#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct AuthorizationParameters {
    /// `code`.
    response_type: String,
    /// The client app's id.
    client_id: String,
    /// One of those that the app has registered.
    redirect_uri: String,
    /// The base64url of the SHA-256 of the verifier (RFC 7636).
    code_challenge: String,
    /// `S256`.
    code_challenge_method: String,
    /// `openid`, `profile`, `email`, `offline_access`, with spaces between them.
    scope: Option<String>,
    /// Given back as it is; at most 2048 bytes.
    state: Option<String>,
    /// Put into the ID token; at most 512 bytes.
    nonce: Option<String>,
    /// `query`.
    response_mode: Option<String>,
    /// `none`, `login`, `create`, `select_account`, `consent`.
    prompt: Option<String>,
    /// How many seconds ago the person may have given their password.
    max_age: Option<String>,
    /// What the field for the name holds at first.
    login_hint: Option<String>,
    /// An ID token of the person whom the app means.
    id_token_hint: Option<String>,
}

/// An authorization request as a form: the same parameters as by GET.
#[derive(ToSchema)]
#[schema(as = AuthorizationForm)]
pub(super) struct AuthorizationForm {
    response_type: String,
    client_id: String,
    redirect_uri: String,
    code_challenge: String,
    code_challenge_method: String,
    scope: Option<String>,
    state: Option<String>,
    nonce: Option<String>,
    response_mode: Option<String>,
    prompt: Option<String>,
    max_age: Option<String>,
    login_hint: Option<String>,
    id_token_hint: Option<String>,
}

/// The form of the page for signing in.
#[derive(ToSchema)]
#[schema(as = SignInForm)]
pub(super) struct SignInForm {
    /// As it stands in the page, which was made for this browser.
    form_token: String,
    username: String,
    password: String,
}

/// The form of the page for a new account.
#[derive(ToSchema)]
#[schema(as = SignUpForm)]
pub(super) struct SignUpForm {
    /// As it stands in the page, which was made for this browser.
    form_token: String,
    username: String,
    email: String,
    password: String,
}

/// What an app asks at the token endpoint: for a code, a refresh token, or the access token of another app. It says who it is
/// by `Authorization: Basic`, by `client_id` and `client_secret`, or by `client_id` alone.
#[derive(ToSchema)]
#[schema(as = TokenRequest)]
pub(super) struct TokenForm {
    /// `authorization_code`, `refresh_token` or `urn:ietf:params:oauth:grant-type:token-exchange`.
    grant_type: String,
    /// The client app's id.
    client_id: Option<String>,
    /// The client app's key.
    client_secret: Option<String>,
    /// With `authorization_code`.
    code: Option<String>,
    /// With `authorization_code`: where the code was sent.
    redirect_uri: Option<String>,
    /// With `authorization_code` (RFC 7636).
    code_verifier: Option<String>,
    /// With `refresh_token`.
    refresh_token: Option<String>,
    /// With `refresh_token`: fewer than were granted. With an exchange: what the tokens shall be for.
    scope: Option<String>,
    /// With an exchange: the access token.
    subject_token: Option<String>,
    /// With an exchange: `urn:ietf:params:oauth:token-type:access_token`.
    subject_token_type: Option<String>,
    /// With an exchange: the same.
    requested_token_type: Option<String>,
    /// With an exchange: the client app that asks.
    audience: Option<String>,
}

/// Tokens (RFC 6749 §5.1).
#[derive(ToSchema)]
#[schema(as = OpenIdTokens)]
pub(super) struct OpenIdTokensAnswer {
    access_token: String,
    /// `Bearer`.
    token_type: String,
    /// How long the access token lives, in seconds.
    expires_in: i64,
    /// With `offline_access`.
    refresh_token: Option<String>,
    /// With `openid`.
    id_token: Option<String>,
    /// What was granted.
    scope: Option<String>,
    /// With an exchange.
    issued_token_type: Option<String>,
}

/// Who an access token is for, as far as its scopes tell (OpenID Connect Core §5.1).
#[derive(ToSchema)]
#[schema(as = UserInfo)]
pub(super) struct UserInfoAnswer {
    /// The person's id.
    sub: String,
    preferred_username: Option<String>,
    name: Option<String>,
    given_name: Option<String>,
    family_name: Option<String>,
    /// In seconds since 1970.
    updated_at: Option<i64>,
    email: Option<String>,
    /// Always false: nothing has been sent there.
    email_verified: Option<bool>,
    /// With `profile`.
    #[schema(value_type = Option<Object>)]
    user_metadata: Option<serde_json::Value>,
}

/// Why something was not done, as OAuth tells it (RFC 6749 §5.2).
#[derive(ToSchema)]
#[schema(as = OAuthError)]
pub(in crate::http) struct OAuthErrorAnswer {
    /// For programs.
    error: String,
    /// For people.
    error_description: String,
}
