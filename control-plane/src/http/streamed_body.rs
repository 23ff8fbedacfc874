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

#[cfg(test)]
mod tests {
    use axum::response::IntoResponse;
    use futures_util::stream::{self, StreamExt};
    use tokio::time::sleep;

    use super::*;

    async fn read(pieces: u32, pause: Duration) -> Result<usize, u16> {
        let pieces = stream::iter(0..pieces).then(move |_| async move {
            sleep(pause).await;
            Ok::<_, std::io::Error>(Bytes::from(vec![b'x'; 100_000]))
        });
        let mut body = StreamedBody(Body::from_stream(pieces));
        let mut bytes = 0;
        loop {
            match body.next().await {
                Ok(Some(piece)) => bytes += piece.len(),
                Ok(None) => return Ok(bytes),
                Err(problem) => return Err(problem.into_response().status().as_u16()),
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_may_take_hours_and_have_any_size() {
        assert_eq!(read(200, IDLE_TIMEOUT - Duration::from_secs(1)).await, Ok(20_000_000));
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_that_stands_still_is_given_up() {
        assert_eq!(read(2, IDLE_TIMEOUT + Duration::from_secs(1)).await, Err(408));
    }

    #[tokio::test]
    async fn a_body_that_breaks_off_is_the_clients_fault() {
        let broken = stream::iter([Err::<Bytes, _>(std::io::Error::other("reset"))]);
        let problem = StreamedBody(Body::from_stream(broken)).next().await.unwrap_err();
        assert_eq!(problem.into_response().status().as_u16(), 400);
    }
}
