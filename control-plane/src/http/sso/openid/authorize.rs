//! `/api/auth/authorize`: where an app sends a browser to have somebody signed in, and what they see there (RFC 6749
//! §3.1, OpenID Connect Core §3.1.2).
//!
//! Nothing is kept of a request that waits for a password: the form goes to an address that holds it whole, and it is read
//! anew with it.

use std::fmt::Display;

use axum::extract::{Request, State};
use axum::http::header::{LOCATION, SET_COOKIE};
use axum::http::{HeaderMap, HeaderValue, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use keypost_shared::oauth::Form;
use keypost_shared::secret::{SecretText, generate_secret};
use reqwest::Url;
use serde_json::value::RawValue;

use super::browser::Cookies;
use super::document::{AuthorizationForm, AuthorizationParameters, SignInForm, SignUpForm};
use super::form_token;
use super::page::{self, Refusal, Setting, Typed};
use super::refusal::{self, EXPIRED};
use crate::http::App;
use crate::http::access::Source;
use crate::http::body::{media_type, read_at_most};
use crate::http::sso::caller::SignInSource;
use crate::http::sso::sign_in::own_task;
use crate::service::audit::RequestSource;
use crate::service::pool_urls::PoolUrls;
use crate::service::sso::name::{Email, Username};
use crate::service::sso::openid::authorization_request::{
    self, Addressee, AuthorizationError, AuthorizationRequest, Prompt,
};
use crate::service::sso::openid::browser::{self, Asked};
use crate::service::sso::openid::client;
use crate::service::sso::openid::hint::Meant;
use crate::service::sso::openid::redirect_uri::RedirectUri;
use crate::service::sso::openid::sign_in;
use crate::service::sso::password::Password;
use crate::service::sso::session::SessionError;
use crate::service::sso::sign_in::SignInError;
use crate::service::sso::sign_up::{NewAppUser, SignUpError};
use crate::store::StoreError;
use crate::store::sso::openid_client::OpenIdClient;

/// The path of these pages under the public URL.
const PATH: &str = "/api/auth/authorize";
/// The longest authorization request, in bytes.
const MAX_QUERY: usize = 8192;
/// The most bytes of a form.
const MAX_FORM: usize = 16 * 1024;

/// An app that may be answered: it is known, and has registered where the answer goes.
struct Asking {
    client: OpenIdClient,
    redirect_uri: RedirectUri,
    request: AuthorizationRequest,
    /// Whom the app means.
    meant: Meant,
    /// As it came.
    query: String,
}

/// Have somebody signed in: a page, or back to the app.
///
/// What is wrong with who asks, or with where the answer is to go, is told on a page; everything else is told the app.
#[utoipa::path(
    get,
    path = "/api/auth/authorize",
    operation_id = "authorize",
    tag = "Single sign-on: OpenID Connect",
    params(AuthorizationParameters),
    responses((status = 200, body = String, content_type = "text/html", description = "A page for people."), (status = 303, description = "Back to the app, with a code or an error.")),
)]
pub(super) async fn ask(
    State(app): State<App>,
    Source(source): Source,
    headers: HeaderMap,
    uri: Uri,
) -> Result<Response, Response> {
    let asking = Asking::read(&app, uri.query()).await?;
    match sign_on(&app, source, &asking, &headers).await {
        Err(error) => Ok(asking.failed(&app, &error)),
        Ok(Some(code)) => Ok(asking.answer(&app, &code)),
        Ok(None) if asking.request.prompt == Prompt::None => {
            Ok(asking.refuse(&app, AuthorizationError::LoginRequired))
        }
        Ok(None) if asking.request.prompt == Prompt::Create && asking.takes_new_accounts() => {
            Ok(asking.sign_up_form(&app, &headers, &Typed::default(), None))
        }
        Ok(None) => {
            let hint = asking.request.login_hint.as_deref().unwrap_or_default();
            Ok(asking.sign_in_form(&app, &headers, hint, None))
        }
    }
}

/// The same by POST, which comes from another site and therefore without our cookies: once more by GET, with them.
#[utoipa::path(
    post,
    path = "/api/auth/authorize",
    operation_id = "authorizeByForm",
    tag = "Single sign-on: OpenID Connect",
    request_body(content = AuthorizationForm, content_type = "application/x-www-form-urlencoded"),
    responses((status = 303, description = "To the same by GET, or back to the app with an error.")),
)]
pub(super) async fn ask_by_form(State(app): State<App>, request: Request) -> Result<Response, Response> {
    let TypedForm { text, .. } = TypedForm::read(request).await?;
    Asking::read(&app, Some(&text)).await?;
    let to = format!("{}{PATH}?{text}", app.context().public_url);
    Ok(redirect(&to))
}

/// See the page for signing in, whether or not somebody is.
#[utoipa::path(
    get,
    path = "/api/auth/authorize/sign-in",
    operation_id = "showSignIn",
    tag = "Single sign-on: OpenID Connect",
    params(AuthorizationParameters),
    responses((status = 200, body = String, content_type = "text/html", description = "A page for people."), (status = 303, description = "Back to the app, with a code or an error.")),
)]
pub(super) async fn sign_in_page(
    State(app): State<App>,
    headers: HeaderMap,
    uri: Uri,
) -> Result<Response, Response> {
    let asking = Asking::read(&app, uri.query()).await?;
    Ok(asking.sign_in_form(&app, &headers, "", None))
}

/// See the page for a new account.
#[utoipa::path(
    get,
    path = "/api/auth/authorize/sign-up",
    operation_id = "showSignUp",
    tag = "Single sign-on: OpenID Connect",
    params(AuthorizationParameters),
    responses((status = 200, body = String, content_type = "text/html", description = "A page for people."), (status = 303, description = "Back to the app, with a code or an error.")),
)]
pub(super) async fn sign_up_page(
    State(app): State<App>,
    headers: HeaderMap,
    uri: Uri,
) -> Result<Response, Response> {
    let asking = Asking::read(&app, uri.query()).await?;
    if asking.takes_new_accounts() {
        Ok(asking.sign_up_form(&app, &headers, &Typed::default(), None))
    } else {
        Ok(asking.sign_in_form(&app, &headers, "", None))
    }
}

/// Sign in by the form of the page.
#[utoipa::path(
    post,
    path = "/api/auth/authorize/sign-in",
    operation_id = "signInByForm",
    tag = "Single sign-on: OpenID Connect",
    params(AuthorizationParameters),
    request_body(content = SignInForm, content_type = "application/x-www-form-urlencoded"),
    responses((status = 303, description = "Back to the app, with a code or an error.")),
)]
pub(super) async fn sign_in(
    State(app): State<App>,
    SignInSource(from, source): SignInSource,
    request: Request,
) -> Result<Response, Response> {
    let headers = request.headers().clone();
    let asking = Asking::read(&app, request.uri().query()).await?;
    let form = TypedForm::read(request).await?.form;
    let username = form.get("username").unwrap_or_default().to_owned();
    if !is_own(&app, &asking, &headers, &form) {
        return Ok(asking.sign_in_form(&app, &headers, &username, Some(EXPIRED)));
    }
    let cookies = NewCookie::of(&app, &asking, &headers);
    let task = {
        let (app, username) = (app.clone(), username.clone());
        async move {
            let typed = (&*username, form.get("password").unwrap_or_default());
            let (attempts, asked) = (&app.0.sign_in_attempts, asking.asked());
            let signed_in =
                sign_in::sign_in(app.context(), attempts, (from, source), asked, cookies.both(), typed).await;
            (asking, cookies, signed_in)
        }
    };
    let (asking, cookies, signed_in) = own_task(task).await.map_err(IntoResponse::into_response)?;
    Ok(match signed_in {
        Ok(Some(code)) => cookies.set(asking.answer(&app, &code)),
        Ok(None) => asking.refuse(&app, AuthorizationError::LoginRequired),
        Err(error) => {
            let (status, problem) = refusal::of_sign_in(&error);
            let is_wrong = matches!(error, SignInError::Wrong);
            let refusal = Refusal { problem: &problem, status, is_wrong };
            asking.sign_in_form(&app, &headers, &username, Some(refusal))
        }
    })
}

/// Make an account by the form of the page.
#[utoipa::path(
    post,
    path = "/api/auth/authorize/sign-up",
    operation_id = "signUpByForm",
    tag = "Single sign-on: OpenID Connect",
    params(AuthorizationParameters),
    request_body(content = SignUpForm, content_type = "application/x-www-form-urlencoded"),
    responses((status = 303, description = "Back to the app, with a code or an error.")),
)]
pub(super) async fn sign_up(
    State(app): State<App>,
    SignInSource(from, source): SignInSource,
    request: Request,
) -> Result<Response, Response> {
    let headers = request.headers().clone();
    let asking = Asking::read(&app, request.uri().query()).await?;
    let form = TypedForm::read(request).await?.form;
    let text = |name: &str| form.get(name).unwrap_or_default();
    let mut typed = Typed { username: text("username"), email: text("email"), errors: Vec::new() };
    if !is_own(&app, &asking, &headers, &form) {
        return Ok(asking.sign_up_form(&app, &headers, &typed, Some(EXPIRED)));
    }
    if matches!(asking.meant, Meant::Person(_)) {
        // Whoever has a new account is another one.
        return Ok(asking.refuse(&app, AuthorizationError::LoginRequired));
    }
    let (status, problem) = match new_user(&typed, text("password")) {
        Err(errors) => {
            typed.errors = errors;
            (StatusCode::BAD_REQUEST, refusal::SEE_BELOW.to_owned())
        }
        Ok(new) => {
            let cookies = NewCookie::of(&app, &asking, &headers);
            let (asked, both) = (asking.asked(), cookies.both());
            match sign_in::sign_up(app.context(), (from, source), asked, both, new).await {
                Ok(code) => return Ok(cookies.set(asking.answer(&app, &code))),
                Err(SignUpError::Taken(field)) => {
                    typed
                        .errors
                        .push((field.to_owned(), "Somebody has this already. Choose another.".to_owned()));
                    (StatusCode::CONFLICT, refusal::SEE_BELOW.to_owned())
                }
                Err(error) => refusal::of_sign_up(&error),
            }
        }
    };
    let refusal = Refusal { problem: &problem, status, is_wrong: !typed.errors.is_empty() };
    Ok(asking.sign_up_form(&app, &headers, &typed, Some(refusal)))
}

/// A form, as a browser sends it.
struct TypedForm {
    form: Form,
    text: String,
}

impl TypedForm {
    async fn read(request: Request) -> Result<Self, Response> {
        if media_type(request.headers()).as_deref() != Some("application/x-www-form-urlencoded") {
            let reason = "What was sent is not a form.";
            return Err(page::refused(StatusCode::UNSUPPORTED_MEDIA_TYPE, reason));
        }
        let bytes = read_at_most(request, MAX_FORM).await.map_err(IntoResponse::into_response)?;
        let broken = || page::refused(StatusCode::BAD_REQUEST, "The form cannot be read.");
        let form = Form::parse(&bytes).map_err(|_| broken())?;
        let text = String::from_utf8(bytes).map_err(|_| broken())?;
        Ok(Self { form, text })
    }
}

impl Asking {
    /// Reads who asks for what. The error is a page where it is for the person, and a redirect where it is for the app.
    async fn read(app: &App, query: Option<&str>) -> Result<Self, Response> {
        let bad = |reason: &str| page::refused(StatusCode::BAD_REQUEST, reason);
        let query = query.unwrap_or_default();
        if query.len() > MAX_QUERY {
            return Err(bad("The app has sent you here with a request that is too long."));
        }
        let form = Form::parse(query.as_bytes())
            .map_err(|error| bad(&format!("The app's request is broken: {error}.")))?;
        let to = Addressee::parse(&form)
            .map_err(|error| bad(&format!("The app's request is broken: {error}.")))?;
        let client = client::find(app.context(), to.client_id).await.map_err(|error| unavailable(&error))?;
        let client = client
            .ok_or_else(|| bad("The app that has sent you here is not known: its client_id is wrong."))?;
        let redirect_uri = RedirectUri::find(to.redirect_uri, &client.redirect_uris);
        let redirect_uri = redirect_uri.ok_or_else(|| {
            bad("The app wants you to be sent to an address that it has not registered (redirect_uri).")
        })?;
        let state = authorization_request::state(&form);
        let refused = |error| refuse(app, &client, &redirect_uri, state, error);
        let request = AuthorizationRequest::parse(&form).map_err(refused)?;
        let meant = Meant::read(app.context(), &client.org, request.id_token_hint.as_deref()).await;
        let meant = meant.map_err(|error| refused(error_of(&error.into())))?;
        Ok(Self { client, redirect_uri, request, meant, query: query.to_owned() })
    }

    /// Whether people may make accounts of their own. Not where the app means somebody who has one.
    fn takes_new_accounts(&self) -> bool {
        self.client.public_signup && !matches!(self.meant, Meant::Person(_))
    }

    fn asked(&self) -> Asked<'_> {
        Asked {
            client: &self.client,
            redirect_uri: &self.redirect_uri,
            request: &self.request,
            meant: self.meant,
        }
    }

    /// Sends the browser back with a code.
    fn answer(&self, app: &App, code: &SecretText) -> Response {
        self.send_back(app, &[("code", code.expose())])
    }

    /// Sends the browser back without one.
    fn refuse(&self, app: &App, error: AuthorizationError) -> Response {
        refuse(app, &self.client, &self.redirect_uri, self.request.state.as_deref(), error)
    }

    /// Sends the browser back because of something of ours.
    fn failed(&self, app: &App, error: &SessionError) -> Response {
        self.refuse(app, error_of(error))
    }

    fn send_back(&self, app: &App, outcome: &[(&str, &str)]) -> Response {
        send_back(app, &self.client, &self.redirect_uri, self.request.state.as_deref(), outcome)
    }

    fn sign_in_form(
        &self,
        app: &App,
        headers: &HeaderMap,
        username: &str,
        refusal: Option<Refusal<'_>>,
    ) -> Response {
        self.with_form(app, headers, |setting| page::sign_in(setting, username, refusal))
    }

    fn sign_up_form(
        &self,
        app: &App,
        headers: &HeaderMap,
        typed: &Typed<'_>,
        refusal: Option<Refusal<'_>>,
    ) -> Response {
        self.with_form(app, headers, |setting| page::sign_up(setting, typed, refusal))
    }

    /// A page with a form that this browser alone can send.
    fn with_form(
        &self,
        app: &App,
        headers: &HeaderMap,
        page: impl FnOnce(&Setting<'_>) -> Response,
    ) -> Response {
        let context = app.context();
        let cookies = Cookies::at(&context.public_url);
        let name = cookies.form();
        let known = Cookies::read(headers, &name);
        let cookie = known.clone().unwrap_or_else(|| generate_secret(&mut context.entropy.rng()));
        let mut response = page(&Setting {
            app: &self.client.name,
            organization: &self.client.org_name,
            path: &format!("{}{PATH}", base_path(&context.public_url)),
            query: &self.query,
            form_token: &form_token::make(&context.master_key, &cookie, self.client.id),
            redirect_uri: &self.redirect_uri,
            has_sign_up: self.takes_new_accounts(),
        });
        if known.is_none()
            && let Some(cookie) = cookies.set(&name, &cookie)
        {
            response.headers_mut().append(SET_COOKIE, cookie);
        }
        response
    }
}

/// A code for who is signed in in this browser, if that is good enough for what is asked.
async fn sign_on(
    app: &App,
    source: RequestSource,
    asking: &Asking,
    headers: &HeaderMap,
) -> Result<Option<SecretText>, SessionError> {
    let context = app.context();
    let name = Cookies::at(&context.public_url).sign_in(&asking.client.org);
    let Some(cookie) = Cookies::read(headers, &name) else { return Ok(None) };
    let asked = asking.asked();
    let Some((session, user)) = browser::signed_in(context, asked, &cookie).await? else { return Ok(None) };
    match browser::sign_on(context, source, asked, &session, &user).await {
        // Just ended.
        Err(SessionError::Over) => Ok(None),
        code => code.map(Some),
    }
}

/// Sends the browser back to an app with an error.
fn refuse(
    app: &App,
    client: &OpenIdClient,
    redirect_uri: &RedirectUri,
    state: Option<&str>,
    error: AuthorizationError,
) -> Response {
    let outcome = [("error", error.code()), ("error_description", &error.to_string())];
    send_back(app, client, redirect_uri, state, &outcome)
}

/// Sends the browser back to an app. With `iss`, by which the app knows whose answer it is (RFC 9207).
fn send_back(
    app: &App,
    client: &OpenIdClient,
    redirect_uri: &RedirectUri,
    state: Option<&str>,
    outcome: &[(&str, &str)],
) -> Response {
    let issuer = client.pool.map(|pool| PoolUrls::new(&app.context().edge_url, pool).issuer);
    let mut parameters = outcome.to_vec();
    parameters.extend(state.map(|state| ("state", state)));
    parameters.extend(issuer.as_deref().map(|issuer| ("iss", issuer)));
    redirect(&redirect_uri.with(&parameters))
}

/// By GET, whatever this was (RFC 9110 §15.4.4): a password that was sent here is not sent on.
fn redirect(to: &str) -> Response {
    let Ok(location) = HeaderValue::try_from(to) else {
        return page::refused(StatusCode::BAD_REQUEST, "The app's request cannot be answered.");
    };
    let mut response = StatusCode::SEE_OTHER.into_response();
    response.headers_mut().insert(LOCATION, location);
    page::protect(&mut response);
    response
}

/// What the app is told of something of ours; the log is told the rest.
fn error_of(error: &SessionError) -> AuthorizationError {
    match error {
        SessionError::Over | SessionError::Store(StoreError::Unavailable(_)) => {
            AuthorizationError::TemporarilyUnavailable
        }
        error => {
            tracing::error!(%error, "nobody can be signed in");
            AuthorizationError::ServerError
        }
    }
}

fn unavailable(error: &StoreError) -> Response {
    tracing::error!(%error, "an app could not be looked up");
    page::refused(StatusCode::SERVICE_UNAVAILABLE, "This does not work at the moment. Try again in a minute.")
}

/// The path under which this control plane is found; it may stand behind a proxy that gives it one.
fn base_path(public_url: &str) -> String {
    let path = Url::parse(public_url).map(|url| url.path().trim_end_matches('/').to_owned());
    path.unwrap_or_default()
}

/// Who wants an account; or what is wrong with each field.
fn new_user(typed: &Typed<'_>, password: &str) -> Result<NewAppUser, Vec<(String, String)>> {
    let mut errors = Vec::new();
    let mut note = |field: &str, label: &str, error: &dyn Display| {
        errors.push((field.to_owned(), format!("{label} {error}.")));
    };
    let username = Username::parse(typed.username.trim());
    let username = username.map_err(|error| note("username", "Username", &error)).ok();
    let email = Email::parse(typed.email).map_err(|error| note("email", "Email address", &error)).ok();
    let chosen = Password::choose(password, &[typed.username, typed.email]);
    let password = chosen.map_err(|error| note("password", "Password", &error)).ok();
    let metadata = RawValue::from_string("{}".to_owned()).ok();
    match (username, email, password, metadata) {
        (Some(username), Some(email), Some(password), Some(metadata)) => {
            Ok(NewAppUser { username, email, password, metadata })
        }
        _ => Err(errors),
    }
}

/// Whether a form comes from the browser for which its page was made.
fn is_own(app: &App, asking: &Asking, headers: &HeaderMap, form: &Form) -> bool {
    let context = app.context();
    let cookie = Cookies::read(headers, &Cookies::at(&context.public_url).form());
    cookie.zip(form.get("form_token")).is_some_and(|(cookie, token)| {
        form_token::is_right(&context.master_key, &cookie, asking.client.id, token)
    })
}

/// The cookie of a browser in which somebody signs in: another each time, so that nobody can have planted it.
struct NewCookie {
    name: String,
    value: SecretText,
    before: Option<SecretText>,
    cookies: Cookies,
}

impl NewCookie {
    fn of(app: &App, asking: &Asking, headers: &HeaderMap) -> Self {
        let context = app.context();
        let cookies = Cookies::at(&context.public_url);
        let name = cookies.sign_in(&asking.client.org);
        let before = Cookies::read(headers, &name);
        Self { name, value: generate_secret(&mut context.entropy.rng()), before, cookies }
    }

    fn both(&self) -> browser::Cookies<'_> {
        browser::Cookies { new: &self.value, before: self.before.as_ref() }
    }

    fn set(&self, mut response: Response) -> Response {
        if let Some(cookie) = self.cookies.set(&self.name, &self.value) {
            response.headers_mut().append(SET_COOKIE, cookie);
        }
        response
    }
}
