//! Serves the router over HTTP, until told to stop.
//!
//! Written out rather than left to `axum::serve`, for the time limit on request heads: without it, whoever opens
//! connections and sends nothing keeps them.

mod impatient;

use std::future::pending;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::http::Request;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tower::ServiceExt;

use self::impatient::Impatient;
use crate::http::PeerAddress;

/// How long to leave the listener alone when the process is out of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// How long things may take.
#[derive(Clone, Copy, Debug)]
pub struct ServerLimits {
    /// For the head of a connection's first request to arrive.
    pub head: Duration,
    /// For the head of the next request to arrive, after an answer. Longer than clients and proxies keep idle connections,
    /// so that it is they who close them: a request sent at the moment when the server closes is lost, and who sent it
    /// cannot know whether it was carried out.
    pub idle: Duration,
    /// For a peer to take some of what is being sent to it. Whoever asks and never reads would keep what its answer holds.
    pub send: Duration,
    /// For requests under way to be answered when the server stops.
    pub drain: Duration,
}

/// Answers requests until `stop`; then accepts no more, and waits for those under way.
pub async fn serve(listener: TcpListener, router: Router, stop: CancellationToken, limits: ServerLimits) {
    let connections = GracefulShutdown::new();
    while let Some(accepted) = stop.run_until_cancelled(listener.accept()).await {
        match accepted {
            Ok((stream, peer)) => serve_connection(stream, peer, router.clone(), limits, &connections),
            // The peer has gone already; there is nothing to do about it.
            Err(error) if is_of_the_connection(&error) => {}
            Err(error) => {
                tracing::warn!(%error, "connections cannot be accepted");
                sleep(ACCEPT_PAUSE).await;
            }
        }
    }
    drop(listener);
    if timeout(limits.drain, connections.shutdown()).await.is_err() {
        tracing::warn!("some requests were cut off by the shutdown");
    }
}

fn serve_connection(
    stream: TcpStream,
    peer: SocketAddr,
    router: Router,
    limits: ServerLimits,
    connections: &GracefulShutdown,
) {
    // Small answers go out at once; where that cannot be asked for, they go out all the same.
    let _ = stream.set_nodelay(true);
    // HTTP/1.1 alone, which is what proxies speak to servers: finding out the version would wait without a limit.
    let mut builder = http1::Builder::new();
    builder.timer(TokioTimer::new()).header_read_timeout(limits.idle);
    let asked = CancellationToken::new();
    let overdue = without_a_request(limits.head, asked.clone());
    let service = router.map_request(move |request: Request<_>| {
        asked.cancel();
        let mut request = request.map(Body::new);
        request.extensions_mut().insert(PeerAddress(peer.ip()));
        request
    });
    let connection = builder.serve_connection(
        TokioIo::new(Impatient::new(stream, limits.send)),
        TowerToHyperService::new(service),
    );
    let watched = connections.watch(connection);
    tokio::spawn(async move {
        tokio::select! {
            // A head that lies in the socket has come, however late we look.
            biased;
            ended = watched => if let Err(error) = ended {
                tracing::debug!(%error, "a connection ended badly");
            },
            () = overdue => tracing::debug!("a connection brought no request"),
        }
    });
}

/// Ends when nothing was `asked` for so long, and else never.
async fn without_a_request(limit: Duration, asked: CancellationToken) {
    if timeout(limit, asked.cancelled()).await.is_ok() {
        pending().await
    }
}

fn is_of_the_connection(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionRefused | io::ErrorKind::ConnectionReset
    )
}
