//! `openapi`: the API's document, without a server.

use super::error::CommandError;
use super::output::say;
use crate::http;

/// Prints the OpenAPI document as JSON.
pub(super) fn show() -> Result<(), CommandError> {
    say(&serde_json::to_string_pretty(&http::api_document())?)
}
