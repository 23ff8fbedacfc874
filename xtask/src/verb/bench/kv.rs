//! What workerd's bindings reach out to: a KV namespace, and the cache of a location.
//!
//! workerd turns `KEYPOST_KV.get(…)` into an HTTP request to whatever service its configuration names. Here that is this
//! server, which answers from memory, on a connection that stays open. So a read costs the Worker's process what it costs
//! on any workerd (the binding, an HTTP request and its answer), and the same in yardstick (c). The time that this server
//! takes is not counted, and Cloudflare's network, which real reads also wait for, is not there.

use std::{
    collections::HashMap,
    sync::{Arc, PoisonError, RwLock},
};

use percent_encoding::percent_decode_str;
use tokio::{
    io::AsyncWriteExt as _,
    net::{TcpListener, TcpStream},
    task::JoinHandle,
};

use super::wire::Incoming;
use crate::Error;

/// What stands in KV.
#[derive(Clone, Debug, Default)]
pub(super) struct Kv {
    values: Arc<RwLock<HashMap<String, Arc<str>>>>,
}

impl Kv {
    /// Writes a value.
    pub(super) fn put(&self, key: String, value: String) {
        self.values.write().unwrap_or_else(PoisonError::into_inner).insert(key, value.into());
    }

    fn get(&self, key: &str) -> Option<Arc<str>> {
        self.values.read().unwrap_or_else(PoisonError::into_inner).get(key).cloned()
    }
}

/// What the stand-in is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Kv,
    Cache,
}

/// A running stand-in. It ends when it is dropped.
#[derive(Debug)]
pub(super) struct StandIn {
    /// `127.0.0.1:PORT`.
    pub(super) address: String,
    accepting: JoinHandle<()>,
}

impl StandIn {
    /// A KV namespace with these values.
    ///
    /// # Errors
    /// When it cannot listen.
    pub(super) async fn kv(values: &Kv) -> Result<Self, Error> {
        Self::start(values.clone(), Kind::Kv).await
    }

    /// A location's cache, empty.
    ///
    /// # Errors
    /// When it cannot listen.
    pub(super) async fn cache() -> Result<Self, Error> {
        Self::start(Kv::default(), Kind::Cache).await
    }

    async fn start(values: Kv, kind: Kind) -> Result<Self, Error> {
        let failed = |error: std::io::Error| Error::Refused(format!("127.0.0.1: {error}"));
        let listener = TcpListener::bind("127.0.0.1:0").await.map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?.to_string();
        let accepting = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(stream, values.clone(), kind));
            }
        });
        Ok(Self { address, accepting })
    }
}

impl Drop for StandIn {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

async fn serve(mut stream: TcpStream, values: Kv, kind: Kind) {
    let _ = stream.set_nodelay(true);
    let mut incoming = Incoming::default();
    // How a connection ends is for workerd to see.
    while let Ok(Some(message)) = incoming.message(&mut stream).await {
        let mut words = incoming.first_line(&message).split(' ');
        let (method, url) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
        let path = url.split('?').next().unwrap_or_default().trim_start_matches('/');
        let key = percent_decode_str(path).decode_utf8_lossy();
        let answer = match (method, kind) {
            ("PUT", _) => {
                let body = String::from_utf8_lossy(incoming.body(&message)).into_owned();
                values.put(key.into_owned(), body);
                "HTTP/1.1 204 No Content\r\n\r\n".to_owned()
            }
            (_, Kind::Kv) => match values.get(&key) {
                Some(value) => format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{value}", value.len()),
                None => "HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n".to_owned(),
            },
            (_, Kind::Cache) => match values.get(&key) {
                Some(response) => found(&response),
                None => "HTTP/1.1 504 Gateway Timeout\r\ncf-cache-status: MISS\r\ncontent-length: 0\r\n\r\n"
                    .to_owned(),
            },
        };
        if stream.write_all(answer.as_bytes()).await.is_err() {
            return;
        }
    }
}

/// What was put into the cache, a whole HTTP response, with the header by which workerd knows that it was found.
fn found(response: &str) -> String {
    match response.split_once("\r\n") {
        Some((status, rest)) => format!("{status}\r\ncf-cache-status: HIT\r\n{rest}"),
        None => String::new(),
    }
}
