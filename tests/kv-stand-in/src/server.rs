//! Connections.

use std::convert::Infallible;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;

use crate::account::Account;
use crate::api::{self, Answer};

/// Longer than any caller waits.
const NEVER: Duration = Duration::from_secs(3600);

/// The service's error, upon which hyper drops the connection.
#[derive(Debug)]
struct Reset;

impl std::fmt::Display for Reset {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("reset on demand")
    }
}

impl std::error::Error for Reset {}

pub(crate) async fn serve(
    listener: std::net::TcpListener,
    account: Arc<Mutex<Account>>,
    stop: CancellationToken,
) {
    let listener = TcpListener::from_std(listener).expect("a listener");
    let accepting = async {
        loop {
            if let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(connection(stream, account.clone()));
            }
        }
    };
    let _: Option<Infallible> = stop.run_until_cancelled(accepting).await;
}

async fn connection(stream: TcpStream, account: Arc<Mutex<Account>>) {
    // A second handle, through which the connection can be told to end with a reset.
    let Ok(stream) = stream.into_std() else { return };
    let Ok(handle) = stream.try_clone() else { return };
    let Ok(stream) = TcpStream::from_std(stream) else { return };
    let service = service_fn(|request| {
        let account = account.clone();
        let handle = &handle;
        async move {
            match api::answer(&account, request).await {
                Answer::Response(response) => Ok(response),
                Answer::Reset => {
                    let _ = rustix::net::sockopt::set_socket_linger(handle, Some(Duration::ZERO));
                    Err(Reset)
                }
                Answer::Never => {
                    tokio::time::sleep(NEVER).await;
                    Err(Reset)
                }
            }
        }
    });
    // How a connection ends is for the caller to see.
    let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
}
