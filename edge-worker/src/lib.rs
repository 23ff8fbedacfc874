//! The Worker: a thin shell over [`keypost_shared::edge`], which holds all of its behaviour. The shell turns
//! JavaScript's requests, answers, KV and cryptography into what the core takes, with as few crossings between the two
//! as that needs.
//!
//! What one request awaits belongs to that request: workerd lets no other wait for it. So nothing here is shared
//! between requests but the core's memory, which only ever holds finished things.

mod config;
mod delivery;
mod location;
mod outbound;
mod platform;
mod request;
mod response;
mod signature;
mod webcrypto;

use std::cell::OnceCell;
use std::rc::Rc;

use keypost_shared::edge::{self, Edge, LogLevel, LogLine, Response};
use wasm_bindgen::JsCast;
use worker::{Context, Env, event};

use crate::config::{Bindings, ConfigError};
use crate::platform::Workerd;
use crate::request::ReceivedRequest;
use crate::webcrypto::WebCrypto;

/// What an isolate keeps from request to request.
struct Isolate {
    edge: Edge<Workerd>,
    crypto: Rc<WebCrypto>,
}

thread_local! {
    static ISOLATE: OnceCell<Rc<Isolate>> = const { OnceCell::new() };
}

impl Isolate {
    /// The isolate's memory, made by its first request whose configuration can be read.
    fn get(bindings: &Bindings) -> Result<Rc<Self>, ConfigError> {
        ISOLATE.with(|isolate| {
            if let Some(isolate) = isolate.get() {
                return Ok(isolate.clone());
            }
            let edge = Edge::new(bindings.config()?);
            let made = Self { edge, crypto: Rc::new(WebCrypto::new()) };
            Ok(isolate.get_or_init(|| Rc::new(made)).clone())
        })
    }
}

#[event(fetch)]
async fn fetch(request: web_sys::Request, env: Env, context: Context) -> worker::Result<web_sys::Response> {
    let response = match ReceivedRequest::read(&request).await {
        Ok(request) => answer(&request, env.unchecked_ref(), Rc::new(context)).await,
        // The body broke off: there is nobody left to read an answer.
        Err(_) => Response { status: 400, headers: Vec::new(), body: Vec::new() },
    };
    Ok(response::into_js(response)?)
}

async fn answer(request: &ReceivedRequest, bindings: &Bindings, context: Rc<Context>) -> Response {
    let surroundings = Isolate::get(bindings).and_then(|isolate| Ok((isolate, bindings.kv()?)));
    match surroundings {
        Ok((isolate, kv)) => {
            let workerd = Workerd { kv, crypto: isolate.crypto.clone(), context };
            isolate.edge.handle(&workerd, request.as_request()).await
        }
        Err(error) => misconfigured(request, &error),
    }
}

/// Refuses whatever is asked, but for the Worker's health, which is bad. The log says which binding is wrong.
fn misconfigured(request: &ReceivedRequest, error: &ConfigError) -> Response {
    let request_id = webcrypto::random_id();
    platform::log(LogLine {
        level: LogLevel::Error,
        request_id: &request_id,
        event: "misconfigured",
        detail: &error.to_string(),
    });
    let mut response = edge::unconfigured();
    if request.as_request().path == "/healthz" {
        response.body =
            concat!(r#"{"status":"misconfigured","version":""#, env!("CARGO_PKG_VERSION"), r#""}"#).into();
    }
    response.headers.push(("x-request-id", request_id));
    response
}
