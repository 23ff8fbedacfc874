use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::Bytes;
use axum::http::HeaderMap;
use axum::routing::post;
use tokio::net::TcpListener;

/// A collector of traces (OTLP over HTTP), which keeps what it is sent: in protobuf, where texts and ids stand as they are.
#[derive(Clone, Default)]
pub(crate) struct Collector(Arc<Mutex<Vec<Received>>>);

/// One call.
#[derive(Clone)]
pub(crate) struct Received {
    pub(crate) content_type: String,
    pub(crate) authorization: Option<String>,
    pub(crate) body: Bytes,
}

impl Collector {
    /// Starts it. Answers with its endpoint.
    pub(crate) async fn start(&self) -> String {
        let received = self.0.clone();
        let receive = move |headers: HeaderMap, body: Bytes| async move {
            let header = |name: &str| headers.get(name).map(|value| value.to_str().unwrap().to_owned());
            let call = Received {
                content_type: header("content-type").unwrap(),
                authorization: header("authorization"),
                body,
            };
            received.lock().unwrap().push(call);
        };
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        tokio::spawn(async move {
            axum::serve(listener, Router::new().route("/v1/traces", post(receive))).await.unwrap();
        });
        url
    }

    pub(crate) fn received(&self) -> Vec<Received> {
        self.0.lock().unwrap().clone()
    }

    pub(crate) fn has(&self, bytes: &[u8]) -> bool {
        let received = self.received();
        received.iter().any(|call| call.body.windows(bytes.len()).any(|window| window == bytes))
    }
}
