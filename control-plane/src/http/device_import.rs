//! `/api/internal/org/{orgId}/env/{envId}/device/import`
//!
//! The answer begins before the body has ended, and is written as the body is read: hyper asks for more of the answer only
//! when the client has taken what there was, and only then are more rows read. So an import holds one batch, and a client
//! that goes away takes the work with it, at the end of a batch or in a transaction that is then rolled back.

use std::convert::Infallible;
use std::time::Duration;

use axum::body::Body;
use axum::extract::{FromRequest, FromRequestParts, Request, State};
use axum::http::header::{CACHE_CONTROL, CONTENT_ENCODING, CONTENT_TYPE};
use axum::http::{HeaderMap, HeaderValue};
use axum::response::{IntoResponse, Response};
use futures_util::stream;
use keypost_shared::id::ClientAppId;
use keypost_shared::scope::Scopes;
use serde::Serialize;
use time::OffsetDateTime;
use tokio::time::timeout;
use tracing::Instrument;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::App;
use super::access::{DeviceWrite, InEnv, OtpCreate};
use super::body::media_type;
use super::import_rows::{BadHeading, BadRow, Format, Rows};
use super::otp::{LONGEST_TTL_SECONDS, SHORTEST_TTL_SECONDS};
use super::problem::{FieldError, Problem, not_created};
use super::query::{FromQuery, Query, QueryFields};
use super::streamed_body::StreamedBody;
use crate::service::device::NewDevice;
use crate::service::device_import::{self, AppOrder, Credential, ImportRow, Issue, Issued, Outcome};
use crate::service::otp::DEFAULT_TTL_SECONDS;
use crate::store::environment::EnvScope;

/// The most rows of a batch.
const BATCH_ROWS: usize = 1000;
/// A batch with so many bytes is full.
const BATCH_BYTES: usize = 1 << 20;
/// How long to wait for the first row before the answer begins: what is wrong until then has a status of its own.
const START_PATIENCE: Duration = Duration::from_secs(1);
/// How long rows wait for others to come.
const BATCH_PATIENCE: Duration = Duration::from_secs(1);
/// How long to go on reading what will not be imported: who only sends reads the answer sooner or later, but not if the
/// connection has been closed before.
const DRAIN_PATIENCE: Duration = Duration::from_secs(5);

pub(super) fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(import))
}

/// Which app each device is to have.
struct ImportQuery {
    order: Option<AppOrder>,
}

impl FromQuery for ImportQuery {
    fn from_query(query: &mut QueryFields) -> Option<Self> {
        let app = query.optional::<ClientAppId>("app");
        let scopes = query.optional::<ScopeList>("scopes");
        let issue = query.optional::<IssueName>("issue");
        let ttl_seconds = query.optional::<Ttl>("ttlSeconds");
        let (app, scopes, issue, ttl_seconds) = (app?, scopes?, issue?, ttl_seconds?);
        let Some(client_app_id) = app else {
            let given = [
                ("scopes", scopes.is_some()),
                ("issue", issue.is_some()),
                ("ttlSeconds", ttl_seconds.is_some()),
            ];
            for (name, _) in given.into_iter().filter(|(_, given)| *given) {
                query.wrong(name, "is for an app: say which with app");
            }
            return Some(Self { order: None });
        };
        if matches!(issue, Some(IssueName::Client)) && ttl_seconds.is_some() {
            query.wrong("ttlSeconds", "is for one-time passwords");
        }
        let issue = match issue {
            Some(IssueName::Client) => Issue::Secret,
            Some(IssueName::Otp) | None => {
                Issue::Otp { ttl_seconds: ttl_seconds.map_or(DEFAULT_TTL_SECONDS, |ttl| ttl.0) }
            }
        };
        let scopes = scopes.map_or_else(Scopes::device_default, |list| list.0);
        Some(Self { order: Some(AppOrder { client_app_id, scopes, issue }) })
    }
}

/// Scopes with commas between them.
struct ScopeList(Scopes);

impl std::str::FromStr for ScopeList {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let scopes = text.split(',').map(ToOwned::to_owned).collect();
        Scopes::new(scopes).map(Self).map_err(|error| error.to_string())
    }
}

enum IssueName {
    Otp,
    Client,
}

impl std::str::FromStr for IssueName {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, &'static str> {
        match text {
            "otp" => Ok(Self::Otp),
            "client" => Ok(Self::Client),
            _ => Err("must be otp or client"),
        }
    }
}

struct Ttl(u32);

impl std::str::FromStr for Ttl {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let seconds =
            text.parse().ok().filter(|ttl| (SHORTEST_TTL_SECONDS..=LONGEST_TTL_SECONDS).contains(ttl));
        let wrong = || format!("must be a whole number from {SHORTEST_TTL_SECONDS} to {LONGEST_TTL_SECONDS}");
        seconds.map(Self).ok_or_else(wrong)
    }
}

/// Who may import: whoever may create devices, and where something is issued for them, may also make one-time passwords.
struct Importing {
    scope: EnvScope,
    order: Option<AppOrder>,
}

impl FromRequestParts<App> for Importing {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut axum::http::request::Parts, app: &App) -> Result<Self, Problem> {
        let env = InEnv::<DeviceWrite>::from_request_parts(parts, app).await?;
        let Query(ImportQuery { order }) = Query::from_request_parts(parts, app).await?;
        // A secret is what a password is good for.
        if order.is_some() {
            InEnv::<OtpCreate>::from_request_parts(parts, app).await?;
        }
        Ok(Self { scope: env.scope, order })
    }
}

/// A body of rows.
struct Upload {
    rows: Rows,
    body: StreamedBody,
}

impl FromRequest<App> for Upload {
    type Rejection = Problem;

    async fn from_request(request: Request, app: &App) -> Result<Self, Problem> {
        let format = format_of(request.headers())?;
        Ok(Self { rows: Rows::new(format), body: StreamedBody::from_request(request, app).await? })
    }
}

fn format_of(headers: &HeaderMap) -> Result<Format, Problem> {
    let plain = |value: &HeaderValue| value.as_bytes().eq_ignore_ascii_case(b"identity");
    if !headers.get_all(CONTENT_ENCODING).iter().all(plain) {
        return Err(Problem::encoded_body());
    }
    match media_type(headers).as_deref() {
        Some("application/x-ndjson") => Ok(Format::Ndjson),
        Some("text/csv") => Ok(Format::Csv),
        _ => Err(Problem::unsupported_media_type("application/x-ndjson or text/csv, in UTF-8")),
    }
}

/// A line of the answer: what became of a row, or at the end of all.
#[derive(Serialize, ToSchema)]
#[serde(untagged)]
#[schema(as = ImportLine)]
#[expect(dead_code, reason = "it describes the answer, whose lines are written one by one")]
enum Line<'a> {
    Row(RowLine<'a>),
    Summary(SummaryLine<'a>),
}

/// What became of a row. A row that only created a device has no line.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = ImportRowLine)]
struct RowLine<'a> {
    /// The line of the body on which the row begins, from 1.
    line: u64,
    /// The device's id; null where it cannot be made out.
    id: Option<&'a str>,
    /// `unchanged`: it is there as the row says. `conflict`: it is there and is different; nothing was changed. `invalid`:
    /// the row says no device. Where something is issued, also `created`: the device is new; and `issued`: it was there,
    /// and lacked the app or something to get tokens with.
    #[schema(value_type = String)]
    status: &'static str,
    /// What is wrong, or differs.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(required = false)]
    errors: Option<&'a [FieldError]>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(required = false)]
    client_id: Option<&'a str>,
    /// A one-time password for the app, shown this once.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(required = false)]
    otp: Option<&'a str>,
    /// When the password ends.
    #[serde(skip_serializing_if = "Option::is_none", with = "time::serde::rfc3339::option")]
    #[schema(required = false)]
    expires_at: Option<OffsetDateTime>,
    /// The secret of the app's client, shown this once.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(required = false)]
    client_secret: Option<&'a str>,
}

/// The last line: how it ended. It is the one that has no `line`; an answer without it has been cut off.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = ImportSummary)]
struct SummaryLine<'a> {
    /// `completed`: all rows have been read. `failed`: not so; what the counts tell has been done, and the same import again
    /// does the rest.
    #[schema(value_type = String)]
    status: &'static str,
    #[serde(flatten)]
    counts: Counts,
    /// Why it failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(required = false)]
    error: Option<Failure<'a>>,
}

/// How many rows there were, and what became of them.
#[derive(Clone, Copy, Default, Serialize, ToSchema)]
#[schema(as = ImportCounts)]
struct Counts {
    rows: u64,
    created: u64,
    issued: u64,
    unchanged: u64,
    conflict: u64,
    invalid: u64,
}

/// Why an import did not come to its end: what a problem would say.
#[derive(Serialize, ToSchema)]
#[schema(as = ImportFailure)]
struct Failure<'a> {
    code: &'a str,
    detail: &'a str,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    #[schema(required = false)]
    errors: &'a [FieldError],
}

/// Register devices by the thousand. A device that is there is never changed, so an import can be repeated.
///
/// The body is read as it comes, and may have any size. The answer begins before the body ends, so read it while sending.
/// A row of more than 1 MiB is invalid. Rows are stored in batches: an import that fails leaves whole batches.
///
/// With `app`, each device that is new, or there with the same content, also gets the app and what activates it, unless it
/// has been activated already. That needs the permission `otp:create` too.
#[utoipa::path(
    post,
    path = "/api/internal/org/{orgId}/env/{envId}/device/import",
    operation_id = "importDevices",
    tag = "Devices",
    params(
        ("app" = Option<String>, Query, pattern = "^[a-z0-9][a-z0-9-]{0,62}$",
            description = "The clientAppId of an app that each device is to have."),
        ("scopes" = Option<String>, Query, description = "The app's scopes with commas between them; device where nothing is given."),
        ("issue" = Option<String>, Query, pattern = "^(otp|client)$",
            description = "What each device gets: otp, a one-time password; or client, a client secret. otp where nothing is given."),
        ("ttlSeconds" = Option<u32>, Query, minimum = 60, maximum = 86400,
            description = "How long one-time passwords are good for; 900 where nothing is given."),
    ),
    request_body(
        description = "Rows: a device as a JSON object a line; or CSV (RFC 4180) with a heading of the columns id, name, \
            description, tags.KEY, metadata.KEY, primaryServerUrl and serverUrls (several with | between them), where an \
            empty cell says nothing.",
        content((NewDevice = "application/x-ndjson"), (String = "text/csv"))
    ),
    responses((status = 200, content_type = "application/x-ndjson", body = Line,
        description = "A line of JSON for each row that is to be told of, and a summary."))
)]
async fn import(
    State(app): State<App>,
    Importing { scope, order }: Importing,
    Upload { rows, body }: Upload,
) -> Result<Response, Problem> {
    let started_at = app.context().clock.now();
    let mut import =
        Import { app, scope, order, started_at, rows, body, ended: false, counts: Counts::default() };
    // Whoever waits for the answer before sending anything gets it, too.
    if let Ok(first) = timeout(START_PATIENCE, import.read_heading()).await {
        first?;
    }
    let span = tracing::Span::current();
    let answer = stream::unfold(Stage::Importing(Box::new(import)), move |stage| {
        stage.go_on().instrument(span.clone())
    });
    let mut response = Body::from_stream(answer).into_response();
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/x-ndjson"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    Ok(response)
}

/// An import under way.
struct Import {
    app: App,
    scope: EnvScope,
    order: Option<AppOrder>,
    started_at: OffsetDateTime,
    rows: Rows,
    body: StreamedBody,
    ended: bool,
    counts: Counts,
}

enum Stage {
    Importing(Box<Import>),
    /// The answer has been given; the rest of the body is read for the sake of who still sends.
    Draining(StreamedBody),
    Done,
}

/// Rows in their order, those among them that can be imported, and whether they are the last.
#[derive(Default)]
struct Batch {
    places: Vec<Place>,
    good: Vec<ImportRow>,
    bytes: usize,
    is_last: bool,
}

enum Place {
    Good,
    Bad(u64, BadRow),
}

impl Stage {
    /// The next piece of the answer.
    async fn go_on(self) -> Option<(Result<Vec<u8>, Infallible>, Self)> {
        match self {
            Stage::Importing(mut import) => match import.step().await {
                Ok((piece, false)) => Some((Ok(piece), Stage::Importing(import))),
                Ok((piece, true)) => Some((Ok(piece), Stage::Done)),
                Err(problem) => Some((Ok(import.failed(&problem)), Stage::Draining(import.body))),
            },
            Stage::Draining(mut body) => {
                let drain = async { while let Ok(Some(_)) = body.next().await {} };
                let _ = timeout(DRAIN_PATIENCE, drain).await;
                None
            }
            Stage::Done => None,
        }
    }
}

impl Import {
    /// Reads until rows can be read.
    async fn read_heading(&mut self) -> Result<(), Problem> {
        while !self.rows.heading()? && !self.ended {
            self.read_piece().await?;
        }
        Ok(())
    }

    async fn read_piece(&mut self) -> Result<(), Problem> {
        match self.body.next().await? {
            Some(piece) => self.rows.push(piece),
            None => {
                self.rows.end();
                self.ended = true;
            }
        }
        Ok(())
    }

    /// Imports batches until there is something to tell. Answers with it, and whether that is all.
    async fn step(&mut self) -> Result<(Vec<u8>, bool), Problem> {
        let mut answer = Vec::new();
        loop {
            let batch = self.read_batch().await?;
            let is_last = batch.is_last;
            self.store(batch, &mut answer).await?;
            if is_last {
                let summary = SummaryLine { status: "completed", counts: self.counts, error: None };
                write_line(&mut answer, &summary);
                return Ok((answer, true));
            }
            if !answer.is_empty() {
                return Ok((answer, false));
            }
        }
    }

    fn failed(&self, problem: &Problem) -> Vec<u8> {
        let (code, detail, errors) = problem.tell();
        let error = Some(Failure { code, detail, errors });
        let mut answer = Vec::new();
        write_line(&mut answer, &SummaryLine { status: "failed", counts: self.counts, error });
        answer
    }

    async fn read_batch(&mut self) -> Result<Batch, Problem> {
        let mut batch = Batch::default();
        loop {
            while let Some(row) = self.rows.next()? {
                batch.bytes += row.bytes;
                batch.places.push(match row.read {
                    Ok(device) => {
                        batch.good.push(ImportRow { line: row.line, device });
                        Place::Good
                    }
                    Err(bad) => Place::Bad(row.line, bad),
                });
                if batch.places.len() >= BATCH_ROWS || batch.bytes >= BATCH_BYTES {
                    return Ok(batch);
                }
            }
            if self.ended {
                batch.is_last = true;
                return Ok(batch);
            }
            if batch.places.is_empty() {
                self.read_piece().await?;
            } else {
                match timeout(BATCH_PATIENCE, self.read_piece()).await {
                    Ok(read) => read?,
                    // Who sends so slowly wants to hear meanwhile.
                    Err(_) => return Ok(batch),
                }
            }
        }
    }

    async fn store(&mut self, batch: Batch, answer: &mut Vec<u8>) -> Result<(), Problem> {
        let mut outcomes = Vec::new();
        if !batch.good.is_empty() {
            let context = self.app.context();
            outcomes = device_import::import(
                context,
                &self.scope,
                self.order.as_ref(),
                self.started_at,
                &batch.good,
            )
            .await
            .map_err(|error| not_created(error, "a device", "environment"))?;
        }
        let mut good = batch.good.iter().zip(outcomes);
        for place in batch.places {
            self.counts.rows += 1;
            match place {
                Place::Bad(line, bad) => {
                    self.counts.invalid += 1;
                    write_line(answer, &RowLine::new(line, bad.id.as_deref(), "invalid", Some(&bad.errors)));
                }
                Place::Good => {
                    if let Some((row, outcome)) = good.next() {
                        self.counts.tell(answer, row, &outcome);
                    }
                }
            }
        }
        Ok(())
    }
}

impl Counts {
    /// Counts a row that has been imported, and writes what is to be told of it.
    fn tell(&mut self, answer: &mut Vec<u8>, row: &ImportRow, outcome: &Outcome) {
        let line = |status, errors| RowLine::new(row.line, Some(row.device.id.as_str()), status, errors);
        match outcome {
            Outcome::Created(None) => self.created += 1,
            Outcome::Created(Some(issued)) => {
                self.created += 1;
                write_line(answer, &line("created", None).with(issued));
            }
            Outcome::Issued(issued) => {
                self.issued += 1;
                write_line(answer, &line("issued", None).with(issued));
            }
            Outcome::Unchanged => {
                self.unchanged += 1;
                write_line(answer, &line("unchanged", Some(&[])));
            }
            Outcome::Conflict(differ) => {
                self.conflict += 1;
                let error = |(field, detail): &(&str, &str)| FieldError {
                    field: (*field).to_owned(),
                    detail: (*detail).to_owned(),
                };
                let errors: Vec<FieldError> = differ.iter().map(error).collect();
                write_line(answer, &line("conflict", Some(&errors)));
            }
        }
    }
}

impl<'a> RowLine<'a> {
    fn new(line: u64, id: Option<&'a str>, status: &'static str, errors: Option<&'a [FieldError]>) -> Self {
        Self { line, id, status, errors, client_id: None, otp: None, expires_at: None, client_secret: None }
    }

    fn with(mut self, issued: &'a Issued) -> Self {
        self.client_id = Some(issued.client_id.as_str());
        match &issued.credential {
            Credential::Otp { otp, expires_at } => {
                self.otp = Some(otp.expose());
                self.expires_at = Some(*expires_at);
            }
            Credential::Secret(secret) => self.client_secret = Some(secret.expose()),
        }
        self
    }
}

fn write_line(answer: &mut Vec<u8>, line: &impl Serialize) {
    // Texts and numbers, into memory: it does not fail.
    if serde_json::to_writer(&mut *answer, line).is_ok() {
        answer.push(b'\n');
    }
}

impl From<BadHeading> for Problem {
    fn from(BadHeading(errors): BadHeading) -> Self {
        Self::invalid(errors)
    }
}
