//! Single sign-on (api.md §4): `/api/auth` and `/api/organization`.

mod caller;
mod envelope;
mod openid;

pub(super) use self::envelope::in_envelope;

use axum::Router;

use super::App;

/// The routes that answer in other shapes than those of the API's document.
pub(super) fn undocumented_routes() -> Router<App> {
    openid::routes()
}
