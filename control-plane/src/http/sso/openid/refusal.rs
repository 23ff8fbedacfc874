//! What people are told where they are not signed in.

use axum::http::StatusCode;

use super::page::Refusal;
use crate::service::sso::password::PasswordError;
use crate::service::sso::session::SessionError;
use crate::service::sso::sign_in::SignInError;
use crate::service::sso::sign_up::SignUpError;

/// For a form of which some fields are wrong.
pub(super) const SEE_BELOW: &str = "There is something to correct below.";

/// For a form that was made for another browser, or too long ago, or by somebody else's page.
pub(super) const EXPIRED: Refusal<'_> = Refusal {
    problem: "This page had expired, or your browser does not keep cookies. Try once more.",
    status: StatusCode::FORBIDDEN,
    is_wrong: false,
};

/// For a form of an app that has just been deleted, or of somebody who has.
const GONE: &str = "This app, or your account, is not there any more.";

const LATER: &str = "This does not work at the moment. Try again in a minute.";
const BUSY: &str = "Many people are signing in at this moment. Try again in a few seconds.";

/// Where somebody has not signed in.
pub(super) fn of_sign_in(error: &SignInError) -> (StatusCode, String) {
    match error {
        SignInError::Wrong => (StatusCode::UNAUTHORIZED, "The username or the password is wrong.".to_owned()),
        SignInError::TooMany(too_many) => {
            let minutes = too_many.retry_after.as_secs().div_ceil(60).max(1);
            let unit = if minutes == 1 { "minute" } else { "minutes" };
            let text = format!("There were too many failed attempts. Try again in {minutes} {unit}.");
            (StatusCode::TOO_MANY_REQUESTS, text)
        }
        SignInError::Busy { .. } => (StatusCode::SERVICE_UNAVAILABLE, BUSY.to_owned()),
        SignInError::Session(SessionError::Over) => (StatusCode::NOT_FOUND, GONE.to_owned()),
        error => unavailable(error),
    }
}

/// Where somebody has got no account, for another reason than what they typed.
pub(super) fn of_sign_up(error: &SignUpError) -> (StatusCode, String) {
    match error {
        SignUpError::Closed => (StatusCode::FORBIDDEN, "This app takes no new accounts.".to_owned()),
        SignUpError::Password(PasswordError::Busy { .. }) => {
            (StatusCode::SERVICE_UNAVAILABLE, BUSY.to_owned())
        }
        SignUpError::AppGone | SignUpError::Session(SessionError::Over) => {
            (StatusCode::NOT_FOUND, GONE.to_owned())
        }
        error => unavailable(error),
    }
}

fn unavailable(error: &dyn std::fmt::Display) -> (StatusCode, String) {
    tracing::error!(%error, "somebody could not be signed in");
    (StatusCode::SERVICE_UNAVAILABLE, LATER.to_owned())
}
