//! The edge: everything that the Worker does, over a [`Platform`]. The Worker itself only moves bytes.

mod http;
mod platform;

pub use http::{Body, Headers, MAX_BODY, Request, Response};
pub use platform::{KvReadError, LogLevel, LogLine, Platform};
