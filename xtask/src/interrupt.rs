//! Ctrl-C, SIGTERM and SIGHUP: stop what we started, then go.

use std::future::Future;

use tokio::signal::unix::{SignalKind, signal};

use crate::Error;

/// Runs the work until it is done or a person asks us to stop; what the work had started ends as it is dropped.
///
/// # Errors
/// [`Error::Interrupted`], or the work's own.
pub async fn unless_interrupted<T>(work: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
    tokio::select! {
        biased;
        () = interrupted() => Err(Error::Interrupted),
        result = work => result,
    }
}

/// Returns when we are asked to stop.
pub async fn interrupted() {
    tokio::select! {
        () = arrives(SignalKind::interrupt()) => {}
        () = arrives(SignalKind::terminate()) => {}
        () = arrives(SignalKind::hangup()) => {}
    }
}

async fn arrives(kind: SignalKind) {
    match signal(kind) {
        Ok(mut signal) => {
            signal.recv().await;
        }
        // Without a handler the signal ends us in its own way; there is nothing to wait for.
        Err(_) => std::future::pending().await,
    }
}
