//! Bodies without an end in sight: read piece by piece, for hours if it must be.

use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::{FromRequest, Request};
use http_body_util::BodyExt;
use tokio::time::timeout;

use super::App;
use super::middleware::TimeLimit;
use super::problem::Problem;

/// How long the next piece may take to arrive.
const IDLE_TIMEOUT: Duration = Duration::from_secs(60);

/// A body of any size. A handler that takes it is exempt from the limit on the time of a request and from the limit on the
/// size of bodies; what it has instead is a limit on the time between two pieces. It must not keep what it reads, and
/// should write its answer as it goes: whoever sends for hours wants to know that somebody reads.
pub(super) struct StreamedBody(Body);

#[expect(dead_code, reason = "the import of devices reads it")]
impl StreamedBody {
    /// The next piece; none at the end of the body.
    pub(super) async fn next(&mut self) -> Result<Option<Bytes>, Problem> {
        loop {
            match timeout(IDLE_TIMEOUT, self.0.frame()).await {
                Err(_) => return Err(Problem::slow_body()),
                Ok(None) => return Ok(None),
                Ok(Some(Err(_))) => return Err(Problem::malformed_body("the body broke off")),
                // What is not data are trailers, which mean nothing here.
                Ok(Some(Ok(frame))) => {
                    if let Ok(piece) = frame.into_data() {
                        return Ok(Some(piece));
                    }
                }
            }
        }
    }
}

impl FromRequest<App> for StreamedBody {
    type Rejection = Problem;

    async fn from_request(request: Request, _: &App) -> Result<Self, Problem> {
        if let Some(limit) = request.extensions().get::<TimeLimit>() {
            limit.lift();
        }
        Ok(Self(request.into_body()))
    }
}
