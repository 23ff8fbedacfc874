//! Single sign-on (api.md §4): `/api/auth` and `/api/organization`.

mod caller;
mod client_app;
mod cors;
mod envelope;
mod exchange;
mod managed;
mod openid;
mod organization;
mod password;
mod refresh;
mod session;
mod sign_in;
mod sign_up;
mod token_pair;
mod user;
mod validate;

use utoipa_axum::router::OpenApiRouter;

use super::App;

pub(super) use self::cors::cors;
pub(super) use self::envelope::{Dress, RefusalAnswer, in_envelope};
pub(super) use self::openid::OAuthErrorAnswer;

/// The routes: all in the envelope, but for those of OpenID Connect.
pub(super) fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .merge(sign_up::routes())
        .merge(sign_in::routes())
        .merge(refresh::routes())
        .merge(session::routes())
        .merge(password::routes())
        .merge(validate::routes())
        .merge(exchange::routes())
        .merge(organization::routes())
        .merge(client_app::routes())
        .merge(user::routes())
        .merge(openid::routes())
}
