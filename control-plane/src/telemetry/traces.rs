//! Traces, by OTLP over HTTP (protobuf), where `OTEL_EXPORTER_OTLP_ENDPOINT` is set.
//!
//! The spans are made here and nowhere else, with a target of their own, so that the log stays as it is and nothing gets
//! into a trace that was written for the log. Statements of the database appear as events of the span that they run in:
//! their text and how long they took, never their parameters.
//!
//! A collector that is away costs nothing but its spans: they wait in a bounded queue, which drops what does not fit.

use std::time::Duration;

use axum::http::HeaderMap;
use opentelemetry::propagation::{Extractor, TextMapPropagator};
use opentelemetry::trace::TracerProvider;
use opentelemetry_http::{Bytes, HttpClient, HttpError, Request, Response};
use opentelemetry_otlp::{ExporterBuildError, Protocol, SpanExporter, WithExportConfig, WithHttpConfig};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::propagation::TraceContextPropagator;
use opentelemetry_sdk::trace::{Sampler, SdkTracerProvider};
use reqwest::Url;
use tokio::runtime::Handle;
use tracing::field::Empty;
use tracing::level_filters::LevelFilter;
use tracing::{Span, Subscriber};
use tracing_opentelemetry::OpenTelemetrySpanExt;
use tracing_subscriber::Layer;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::registry::LookupSpan;

/// The target of all spans made here.
pub(super) const TARGET: &str = "keypost_traces";
/// Where sqlx tells of statements.
const STATEMENTS: &str = "sqlx::query";
/// How long the last spans have to be sent when the process stops.
const STOP_TIMEOUT: Duration = Duration::from_secs(1);
/// How long a call to the collector may take.
const EXPORT_TIMEOUT: Duration = Duration::from_secs(10);

/// `OTEL_*`: where traces go, and which.
#[derive(Clone, Debug, PartialEq)]
pub struct TracesConfig {
    /// `OTEL_EXPORTER_OTLP_TRACES_ENDPOINT`, or `OTEL_EXPORTER_OTLP_ENDPOINT` and `/v1/traces`.
    pub endpoint: Url,
    /// `OTEL_SERVICE_NAME`.
    pub service_name: String,
    /// `OTEL_TRACES_SAMPLER` and `OTEL_TRACES_SAMPLER_ARG`.
    pub sampler: TracesSampler,
}

/// Which requests are traced.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct TracesSampler {
    /// Where the caller has decided (`traceparent`), its decision holds.
    pub follow_caller: bool,
    /// The share of requests that are traced where nobody has decided, from 0 to 1.
    pub share: f64,
}

/// Why there are no traces.
#[derive(Debug, thiserror::Error)]
pub enum TracesError {
    /// The exporter.
    #[error("traces cannot be sent: {0}")]
    Exporter(#[from] ExporterBuildError),
    /// Its HTTP client.
    #[error("traces cannot be sent: {0}")]
    Client(#[from] reqwest::Error),
}

/// The traces of this process, which may be none.
#[must_use = "the last spans are sent by stop()"]
pub struct Traces(Option<SdkTracerProvider>);

impl Traces {
    /// Sends what has not been sent yet, for a second at most.
    pub async fn stop(self) {
        let Some(provider) = self.0 else { return };
        // It waits for a thread of its own.
        let stopping = tokio::task::spawn_blocking(move || provider.shutdown_with_timeout(STOP_TIMEOUT));
        if !matches!(stopping.await, Ok(Ok(()))) {
            tracing::warn!("the last traces could not be sent");
        }
    }
}

/// Starts to send traces, and the layer that makes them from spans.
pub(super) fn start<S>(
    config: Option<&TracesConfig>,
) -> Result<(Traces, Option<impl Layer<S> + use<S>>), TracesError>
where
    S: Subscriber + for<'span> LookupSpan<'span> + Send + Sync,
{
    let Some(config) = config else { return Ok((Traces(None), None)) };
    let exporter = SpanExporter::builder()
        .with_http()
        .with_http_client(Client::new()?)
        .with_protocol(Protocol::HttpBinary)
        .with_endpoint(config.endpoint.as_str())
        .with_timeout(EXPORT_TIMEOUT)
        .build()?;
    let resource = Resource::builder().with_service_name(config.service_name.clone()).build();
    let provider = SdkTracerProvider::builder()
        .with_resource(resource)
        .with_sampler(sampler(config.sampler))
        .with_batch_exporter(exporter)
        .build();
    let layer = tracing_opentelemetry::layer()
        .with_tracer(provider.tracer("keypost"))
        .with_location(false)
        .with_threads(false)
        .with_target(false)
        .with_filter(
            Targets::new()
                .with_target(TARGET, LevelFilter::TRACE)
                .with_target(STATEMENTS, LevelFilter::DEBUG),
        );
    Ok((Traces(Some(provider)), Some(layer)))
}

fn sampler(TracesSampler { follow_caller, share }: TracesSampler) -> Sampler {
    let own = Sampler::TraceIdRatioBased(share);
    if follow_caller { Sampler::ParentBased(Box::new(own)) } else { own }
}

/// The span of a request, in the trace that its `traceparent` names (W3C Trace Context), if it has one.
pub fn request(method: &'static str, route: &str, id: &str, headers: &HeaderMap) -> Span {
    let span = tracing::info_span!(
        target: TARGET,
        "request",
        otel.name = format_args!("{method} {route}"),
        otel.kind = "server",
        otel.status_code = Empty,
        http.request.method = method,
        http.route = route,
        http.response.status_code = Empty,
        keypost.request_id = id,
    );
    if !span.is_disabled() {
        let parent = TraceContextPropagator::new().extract(&Headers(headers));
        // Fails where the span has no data of OpenTelemetry, and then there is no trace to belong to.
        let _ = span.set_parent(parent);
    }
    span
}

/// Notes in a [`request`]'s span how it was answered.
pub fn answered(span: &Span, status: u16) {
    span.record("http.response.status_code", status);
    if status >= 500 {
        span.record("otel.status_code", "ERROR");
    }
}

/// The span of a call to KV with so many keys.
pub fn kv_call(operation: &'static str, keys: usize) -> Span {
    tracing::info_span!(
        target: TARGET,
        "kv",
        otel.name = format_args!("KV {operation}"),
        otel.kind = "client",
        otel.status_code = Empty,
        keypost.kv.keys = keys,
        keypost.kv.outcome = Empty,
    )
}

/// Notes in a [`kv_call`]'s span how it ended.
pub fn kv_answered(span: &Span, outcome: &'static str) {
    span.record("keypost.kv.outcome", outcome);
    if outcome != "ok" {
        span.record("otel.status_code", "ERROR");
    }
}

/// The span of a wait for a database connection.
pub fn acquire() -> Span {
    tracing::info_span!(target: TARGET, "database connection", otel.kind = "internal")
}

struct Headers<'a>(&'a HeaderMap);

impl Extractor for Headers<'_> {
    fn get(&self, key: &str) -> Option<&str> {
        self.0.get(key)?.to_str().ok()
    }

    fn keys(&self) -> Vec<&str> {
        self.0.keys().map(|name| name.as_str()).collect()
    }
}

/// Sends from the runtime: the exporter has a thread of its own, where the HTTP client cannot work.
#[derive(Debug)]
struct Client {
    runtime: Handle,
    http: reqwest::Client,
}

impl Client {
    fn new() -> Result<Self, reqwest::Error> {
        let http = reqwest::Client::builder().timeout(EXPORT_TIMEOUT).build()?;
        Ok(Self { runtime: Handle::current(), http })
    }
}

#[async_trait::async_trait]
impl HttpClient for Client {
    async fn send_bytes(&self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        let http = self.http.clone();
        let sent = self.runtime.spawn(async move { HttpClient::send_bytes(&http, request).await }).await?;
        match &sent {
            Ok(response) if !response.status().is_success() => {
                tracing::warn!(status = response.status().as_u16(), "the collector refuses traces");
            }
            Ok(_) => {}
            Err(error) => tracing::warn!(%error, "the collector of traces cannot be reached"),
        }
        sent
    }
}
