//! Deleting requests of what other things may belong to.

use axum::extract::FromRequestParts;
use axum::http::request::Parts;

use super::App;
use super::middleware::TimeLimit;
use super::precondition::IfMatch;
use super::problem::Problem;
use super::query::{FromQuery, Query, QueryFields};
use crate::service::precondition::Precondition;

/// What a deleting request asks for. Where it asks for all that belongs to the thing as well, it may take its time.
pub(super) struct Deletion {
    pub(super) precondition: Precondition,
    pub(super) cascade: bool,
}

struct Cascade(bool);

impl FromQuery for Cascade {
    fn from_query(query: &mut QueryFields) -> Option<Self> {
        query.flag("cascade").map(Self)
    }
}

impl FromRequestParts<App> for Deletion {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, Problem> {
        let IfMatch(precondition) = IfMatch::from_request_parts(parts, app).await?;
        let Query(Cascade(cascade)) = Query::from_request_parts(parts, app).await?;
        if cascade && let Some(limit) = parts.extensions.get::<TimeLimit>() {
            limit.lift();
        }
        Ok(Self { precondition, cascade })
    }
}
