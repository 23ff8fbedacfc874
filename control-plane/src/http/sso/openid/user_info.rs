//! `/api/auth/userinfo`: who an access token is for (OpenID Connect Core §5.3).

use axum::http::header::WWW_AUTHENTICATE;
use axum::http::{HeaderValue, StatusCode};
use axum::response::Response;
use keypost_shared::id::UserId;
use serde::Serialize;
use serde_json::value::RawValue;

use super::document::UserInfoAnswer;
use super::token::{error_answer, respond};
use crate::http::sso::caller::Bearer;
use crate::service::sso::openid::scope::OpenIdScope;
use crate::service::sso::openid::standard_claims::StandardClaims;

#[derive(Serialize)]
struct UserInfo<'a> {
    sub: UserId,
    #[serde(flatten)]
    person: StandardClaims,
    #[serde(skip_serializing_if = "Option::is_none")]
    user_metadata: Option<&'a RawValue>,
}

/// See who an access token is for, as far as its scopes tell.
#[utoipa::path(
    get,
    path = "/api/auth/userinfo",
    operation_id = "getUserInfo",
    tag = "Single sign-on: OpenID Connect",
    responses((status = 200, body = UserInfoAnswer)),
)]
pub(super) async fn user_info(bearer: Bearer) -> Response {
    tell(bearer)
}

/// The same by POST (OpenID Connect Core §5.3.1).
#[utoipa::path(
    post,
    path = "/api/auth/userinfo",
    operation_id = "getUserInfoByPost",
    tag = "Single sign-on: OpenID Connect",
    responses((status = 200, body = UserInfoAnswer)),
)]
pub(super) async fn user_info_by_post(bearer: Bearer) -> Response {
    tell(bearer)
}

fn tell(Bearer(signed_in): Bearer) -> Response {
    let scope = match signed_in.scope.as_deref() {
        // A token from /api/auth/login says all of it itself.
        None => OpenIdScope { openid: true, profile: true, email: true, offline_access: false },
        Some(text) => OpenIdScope::parse(text).unwrap_or_default(),
    };
    if !scope.openid {
        let description = "the token does not have the scope openid";
        let mut response = error_answer(StatusCode::FORBIDDEN, "insufficient_scope", description);
        let challenge = HeaderValue::from_static(
            "Bearer realm=\"keypost\", error=\"insufficient_scope\", scope=\"openid\"",
        );
        response.headers_mut().insert(WWW_AUTHENTICATE, challenge);
        return response;
    }
    let user = &signed_in.user;
    let person = StandardClaims::of(user, scope);
    let user_metadata = scope.profile.then_some(&*user.metadata);
    respond(StatusCode::OK, &UserInfo { sub: user.id, person, user_metadata })
}
