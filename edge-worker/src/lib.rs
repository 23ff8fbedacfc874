//! The Worker: a thin shell over [`keypost_shared::edge`], which holds all of its behaviour. The shell turns
//! JavaScript's requests, answers, KV and cryptography into what the core takes, with as few crossings between the two
//! as that needs. Its other half is JavaScript (`js/`): a crossing for each little thing costs more than all of the core's
//! work.
//!
//! What one request awaits belongs to that request: workerd lets no other wait for it. So nothing here is shared
//! between requests but the core's memory, which only ever holds finished things.

mod config;
mod delivery;
mod platform;
mod request;
mod shell;
mod task;
mod webcrypto;

use std::cell::OnceCell;
use std::rc::Rc;

use keypost_shared::edge::{self, Edge, LogLevel, LogLine, Platform as _, Response};
use keypost_shared::time::UnixTime;
use wasm_bindgen::prelude::*;

use crate::config::ConfigError;
use crate::platform::Workerd;
use crate::request::ReceivedRequest;

thread_local! {
    /// What an isolate keeps from request to request.
    static EDGE: OnceCell<Rc<Edge<Workerd>>> = const { OnceCell::new() };
}

/// The isolate's memory, made by its first request whose configuration can be read.
fn edge() -> Result<Rc<Edge<Workerd>>, ConfigError> {
    EDGE.with(|edge| {
        if let Some(edge) = edge.get() {
            return Ok(edge.clone());
        }
        std::panic::set_hook(Box::new(|panic| shell::log("error", &panic.to_string())));
        let made = Edge::new(config::read()?);
        Ok(edge.get_or_init(|| Rc::new(made)).clone())
    })
}

/// Takes a request, which the shell knows by this number (`js/entry.js` says how it is written down), and answers it, now or
/// once what it needs has come.
#[wasm_bindgen]
pub fn begin(number: u32, text: String) {
    answer(number, ReceivedRequest::with_text(text));
}

/// The same with a longer body, or one that is too long.
#[wasm_bindgen(js_name = beginLong)]
pub fn begin_long(number: u32, head: String, body: Vec<u8>, too_large: bool) {
    answer(number, ReceivedRequest::new(head, body, too_large));
}

fn answer(number: u32, request: ReceivedRequest) {
    task::start(number, async move {
        let asked_at = Workerd.now();
        let response = match edge() {
            Ok(edge) => edge.handle(&Workerd, request.as_request()).await,
            Err(error) => misconfigured(&request, &error),
        };
        respond(number, &request, asked_at, &response);
    });
}

fn respond(number: u32, request: &ReceivedRequest, asked_at: UnixTime, response: &Response) {
    if let Some(request_id) = response.as_secret_json() {
        shell::respond_secret(number, response.status, request_id, &response.body);
        return;
    }
    let mut lines = String::with_capacity(256);
    for (name, value) in &response.headers {
        if !lines.is_empty() {
            lines.push('\n');
        }
        lines.push_str(name);
        lines.push('\n');
        lines.push_str(value);
    }
    match request.url_to_get() {
        Some(url) if response.is_for_everybody() => {
            shell::respond_public(number, asked_at.0 as f64, url, &lines, &response.body);
        }
        _ => shell::respond(number, response.status, &lines, &response.body),
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
