//! The pages that people see: signing in, making an account, and why neither is possible.
//!
//! They need no script, and run none: the policy forbids it. Templates escape whatever is put into them.

use std::sync::LazyLock;

use askama::Template;
use axum::http::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS,
    X_FRAME_OPTIONS,
};
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use base64ct::{Base64, Encoding};
use sha2::{Digest, Sha256};

use crate::http::problem::Problem;
use crate::service::sso::openid::redirect_uri::RedirectUri;

/// What all pages look like; it stands in each of them.
const STYLE: &str = include_str!("../../../../templates/sso/page.css");
/// What the policy knows it by.
static STYLE_HASH: LazyLock<String> =
    LazyLock::new(|| Base64::encode_string(&Sha256::digest(STYLE.as_bytes())));

/// The most characters that a field takes.
const LONGEST_INPUT: u16 = 256;

/// What every page with a form needs.
#[derive(Clone, Debug)]
pub(super) struct Setting<'a> {
    /// The app's name.
    pub(super) app: &'a str,
    /// The organization's name.
    pub(super) organization: &'a str,
    /// The path that the pages are under.
    pub(super) path: &'a str,
    /// The authorization request, as it came.
    pub(super) query: &'a str,
    /// What proves that a form was made for this browser.
    pub(super) form_token: &'a str,
    /// Where the browser is sent in the end.
    pub(super) redirect_uri: &'a RedirectUri,
    /// Whether people may make accounts of their own.
    pub(super) has_sign_up: bool,
}

#[derive(Template)]
#[template(path = "sso/sign_in.html")]
struct SignInPage<'a> {
    style: &'static str,
    longest: u16,
    app: &'a str,
    organization: &'a str,
    path: &'a str,
    query: &'a str,
    form_token: &'a str,
    has_sign_up: bool,
    username: &'a str,
    problem: Option<&'a str>,
    is_wrong: bool,
}

#[derive(Template)]
#[template(path = "sso/sign_up.html")]
struct SignUpPage<'a> {
    style: &'static str,
    longest: u16,
    app: &'a str,
    organization: &'a str,
    path: &'a str,
    query: &'a str,
    form_token: &'a str,
    problem: Option<&'a str>,
    fields: Vec<Field<'a>>,
}

#[derive(Template)]
#[template(path = "sso/refused.html")]
struct RefusedPage<'a> {
    style: &'static str,
    reason: &'a str,
}

/// A field of the form for a new account.
struct Field<'a> {
    name: &'static str,
    label: &'static str,
    kind: &'static str,
    autocomplete: &'static str,
    hint: Option<&'static str>,
    value: &'a str,
    error: Option<&'a str>,
    focus: bool,
    described_by: Option<String>,
}

/// Why a form for signing in is shown again.
#[derive(Clone, Copy, Debug)]
pub(super) struct Refusal<'a> {
    /// What the person is told.
    pub(super) problem: &'a str,
    /// The status of the answer.
    pub(super) status: StatusCode,
    /// Whether it is about what was typed.
    pub(super) is_wrong: bool,
}

/// What somebody typed who wants an account, and what is wrong with it.
#[derive(Clone, Debug, Default)]
pub(super) struct Typed<'a> {
    /// Their username.
    pub(super) username: &'a str,
    /// Their address.
    pub(super) email: &'a str,
    /// What is wrong with a field, by its name.
    pub(super) errors: Vec<(String, String)>,
}

/// The page for signing in.
pub(super) fn sign_in(setting: &Setting<'_>, username: &str, refusal: Option<Refusal<'_>>) -> Response {
    let page = SignInPage {
        style: STYLE,
        longest: LONGEST_INPUT,
        app: setting.app,
        organization: setting.organization,
        path: setting.path,
        query: setting.query,
        form_token: setting.form_token,
        has_sign_up: setting.has_sign_up,
        username,
        problem: refusal.map(|refusal| refusal.problem),
        is_wrong: refusal.is_some_and(|refusal| refusal.is_wrong),
    };
    let status = refusal.map_or(StatusCode::OK, |refusal| refusal.status);
    respond(status, &page, Some(setting.redirect_uri))
}

/// The page for a new account.
pub(super) fn sign_up(setting: &Setting<'_>, typed: &Typed<'_>, refusal: Option<Refusal<'_>>) -> Response {
    let error =
        |name: &str| typed.errors.iter().find(|(field, _)| field == name).map(|(_, detail)| detail.as_str());
    let first_wrong = ["username", "email", "password"].into_iter().find(|name| error(name).is_some());
    let field = |name, label, kind, autocomplete, hint: Option<_>, value| {
        let error = error(name);
        let ids: Vec<String> = [hint.map(|_| "hint"), error.map(|_| "error")]
            .into_iter()
            .flatten()
            .map(|what| format!("{name}-{what}"))
            .collect();
        Field {
            name,
            label,
            kind,
            autocomplete,
            hint,
            value,
            error,
            focus: name == first_wrong.unwrap_or("username"),
            described_by: (!ids.is_empty()).then(|| ids.join(" ")),
        }
    };
    let page = SignUpPage {
        style: STYLE,
        longest: LONGEST_INPUT,
        app: setting.app,
        organization: setting.organization,
        path: setting.path,
        query: setting.query,
        form_token: setting.form_token,
        problem: refusal.map(|refusal| refusal.problem),
        fields: vec![
            field("username", "Username", "text", "username", None, typed.username),
            field("email", "Email address", "email", "email", None, typed.email),
            field(
                "password",
                "Password",
                "password",
                "new-password",
                Some("At least 8 characters, and none of the common ones."),
                "",
            ),
        ],
    };
    let status = refusal.map_or(StatusCode::OK, |refusal| refusal.status);
    respond(status, &page, Some(setting.redirect_uri))
}

/// The page for a request that must not be answered to whoever seems to have sent it.
pub(super) fn refused(status: StatusCode, reason: &str) -> Response {
    respond(status, &RefusedPage { style: STYLE, reason }, None)
}

fn respond(status: StatusCode, page: &impl Template, leads_to: Option<&RedirectUri>) -> Response {
    let html = match page.render() {
        Ok(html) => html,
        Err(error) => return Problem::internal(&error).into_response(),
    };
    let mut response = (status, html).into_response();
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/html; charset=utf-8"));
    match HeaderValue::try_from(policy(leads_to)) {
        Ok(policy) => headers.insert(CONTENT_SECURITY_POLICY, policy),
        Err(error) => return Problem::internal(&error).into_response(),
    };
    protect(&mut response);
    response
}

/// What all answers to a browser carry: nobody keeps them, frames them, or learns their address.
pub(super) fn protect(response: &mut Response) {
    let headers = response.headers_mut();
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(X_FRAME_OPTIONS, HeaderValue::from_static("DENY"));
}

fn policy(leads_to: Option<&RedirectUri>) -> String {
    let style = &*STYLE_HASH;
    // A form's answer redirects to the app, and browsers hold that to `form-action` too.
    let forms = leads_to.map_or("'none'".to_owned(), |uri| format!("'self' {}", uri.csp_source()));
    format!(
        "default-src 'none'; style-src 'sha256-{style}'; form-action {forms}; frame-ancestors 'none'; base-uri 'none'"
    )
}

#[cfg(test)]
mod tests {
    use axum::body::to_bytes;

    use super::*;

    fn setting(redirect_uri: &RedirectUri) -> Setting<'_> {
        Setting {
            app: "<b>App</b>",
            organization: "\"Org\" & Co",
            path: "/api/auth/authorize",
            query: "a=1&b=\"><script>",
            form_token: "token",
            redirect_uri,
            has_sign_up: true,
        }
    }

    fn redirect_uri() -> RedirectUri {
        let registered = "https://app.example/cb".to_owned();
        RedirectUri::find(&registered.clone(), &[registered]).unwrap()
    }

    async fn html(response: Response) -> String {
        String::from_utf8(to_bytes(response.into_body(), usize::MAX).await.unwrap().into()).unwrap()
    }

    #[tokio::test]
    async fn whatever_is_put_into_a_page_is_text() {
        let uri = redirect_uri();
        let typed = Typed {
            username: "'><script>alert(1)</script>",
            email: "<i>",
            errors: vec![("email".to_owned(), "<u>wrong</u>".to_owned())],
        };
        let refusal = Refusal { problem: "<em>no</em>", status: StatusCode::BAD_REQUEST, is_wrong: true };
        let pages = [
            html(sign_in(&setting(&uri), typed.username, Some(refusal))).await,
            html(sign_up(&setting(&uri), &typed, Some(refusal))).await,
            html(refused(StatusCode::BAD_REQUEST, "<em>no</em>")).await,
        ];
        for page in pages {
            for markup in ["<b>", "<script", "<i>", "<u>", "<em>", "\"Org\"", "'><"] {
                assert!(!page.contains(markup), "{markup}: {page}");
            }
        }
    }

    #[tokio::test]
    async fn errors_are_tied_to_their_fields() {
        let uri = redirect_uri();
        let refusal = Refusal { problem: "no", status: StatusCode::BAD_REQUEST, is_wrong: true };
        let page = html(sign_in(&setting(&uri), "ann", Some(refusal))).await;
        assert_eq!(page.matches(r#"aria-invalid="true" aria-describedby="problem""#).count(), 2, "{page}");
        assert!(page.contains(r#"id="problem" role="alert""#) && page.contains("<title>Error: "), "{page}");

        let errors = vec![("password".to_owned(), "is too common".to_owned())];
        let typed = Typed { username: "ann", email: "a@b.example", errors };
        let page = html(sign_up(&setting(&uri), &typed, Some(refusal))).await;
        assert!(
            page.contains(r#"id="password-error"><span class="unseen">Error: </span>is too common"#),
            "{page}"
        );
        assert!(page.contains(r#"aria-describedby="password-hint password-error""#), "{page}");
        assert_eq!(page.matches("autofocus").count(), 1);
    }

    #[test]
    fn the_policy_allows_one_style_and_one_way_out() {
        let uri = redirect_uri();
        let response = sign_in(&setting(&uri), "", None);
        let policy = response.headers()["content-security-policy"].to_str().unwrap();
        assert!(policy.starts_with("default-src 'none'; style-src 'sha256-"), "{policy}");
        assert!(
            policy.contains("; form-action 'self' https://app.example; frame-ancestors 'none'"),
            "{policy}"
        );
        assert_eq!(response.headers()["x-frame-options"], "DENY");
        assert_eq!(response.headers()["cache-control"], "no-store");
        assert_eq!(response.headers()["referrer-policy"], "no-referrer");
        let refused = refused(StatusCode::BAD_REQUEST, "no");
        assert!(
            refused.headers()["content-security-policy"].to_str().unwrap().contains("form-action 'none'")
        );
    }
}
