//! `/api/internal/audit`

use std::convert::Infallible;
use std::fmt;
use std::str::FromStr;

use axum::body::{Body, Bytes};
use axum::extract::{FromRequestParts, State};
use axum::http::HeaderValue;
use axum::http::header::{ACCEPT, CACHE_CONTROL, CONTENT_TYPE};
use axum::http::request::Parts;
use axum::response::{IntoResponse, Response};
use futures_util::stream;
use keypost_shared::id::OrgId;
use serde::Serialize;
use serde_json::value::RawValue;
use time::OffsetDateTime;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::access::{AuditRead, InReach};
use super::fields::parse_time;
use super::problem::{Problem, ProblemAnswer};
use super::query::{FromQuery, Page, PageRequest, Query, QueryFields};
use super::{App, answer};
use crate::service::access::Reach;
use crate::service::{audit_log, has_control};
use crate::store::StoreError;
use crate::store::audit::{EventFilter, EventPosition, StoredEvent};

const NDJSON: &str = "application/x-ndjson";
/// How many events of an export are in memory at a time.
const EXPORT_BATCH: i64 = 500;
/// The most characters of a filter that is compared with a text.
const MAX_FILTER: usize = 256;

pub(super) fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(list))
}

/// Which events, and how they are answered.
struct AuditQuery {
    filter: EventFilter,
    page: PageRequest<EventPosition>,
    format: Option<Format>,
}

/// How events are answered.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Format {
    /// A page of them.
    Json,
    /// All of them, one a line.
    Ndjson,
}

impl FromStr for Format {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "json" => Ok(Self::Json),
            "ndjson" => Ok(Self::Ndjson),
            _ => Err("must be json or ndjson"),
        }
    }
}

/// A text that may be compared with what is stored.
struct FilterText(String);

impl FromStr for FilterText {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let fits = (1..=MAX_FILTER).contains(&text.chars().count()) && !has_control(text);
        let refused = || format!("must have 1 to {MAX_FILTER} characters, and no control characters");
        if fits { Ok(Self(text.to_owned())) } else { Err(refused()) }
    }
}

/// A time in a query.
struct QueryTime(OffsetDateTime);

impl FromStr for QueryTime {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let time = parse_time(text).ok_or("must be a time such as 2027-01-31T00:00:00Z (RFC 3339)")?;
        Ok(Self(time))
    }
}

impl fmt::Display for EventPosition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} {}", self.occurred_at.unix_timestamp_nanos() / 1000, self.seq, self.chain)
    }
}

impl FromStr for EventPosition {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let mut parts = text.splitn(3, ' ');
        let (Some(micros), Some(seq), Some(chain)) = (parts.next(), parts.next(), parts.next()) else {
            return Err(());
        };
        let micros: i64 = micros.parse().map_err(|_| ())?;
        if !chain.is_empty() {
            chain.parse::<OrgId>().map_err(|_| ())?;
        }
        Ok(Self {
            occurred_at: OffsetDateTime::from_unix_timestamp_nanos(i128::from(micros) * 1000)
                .map_err(|_| ())?,
            chain: chain.to_owned(),
            seq: seq.parse().map_err(|_| ())?,
        })
    }
}

impl FromQuery for AuditQuery {
    fn from_query(query: &mut QueryFields) -> Option<Self> {
        let org = query.optional("orgId");
        let mut text = |name| query.optional::<FilterText>(name);
        let (actor_id, action) = (text("actorId"), text("action"));
        let (target_kind, target_id) = (text("targetKind"), text("targetId"));
        let env = query.optional("envId");
        let (since, until) = (query.optional::<QueryTime>("since"), query.optional::<QueryTime>("until"));
        let format = query.optional("format");
        let page = query.page();
        let text = |text: Option<FilterText>| text.map(|FilterText(text)| text);
        let time = |time: Option<QueryTime>| time.map(|QueryTime(time)| time);
        Some(Self {
            filter: EventFilter {
                org: org?,
                actor_id: text(actor_id?),
                action: text(action?),
                target_kind: text(target_kind?),
                target_id: text(target_id?),
                env: env?,
                since: time(since?),
                until: time(until?),
            },
            page: page?,
            format: format?,
        })
    }
}

/// What the request's `Accept` asks for.
struct Accepted(Format);

impl FromRequestParts<App> for Accepted {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &App) -> Result<Self, Infallible> {
        let values = parts.headers.get_all(ACCEPT).iter().filter_map(|value| value.to_str().ok());
        let mut ranges = values.flat_map(|value| value.split(','));
        let is_ndjson = |range: &str| {
            range.split(';').next().is_some_and(|essence| essence.trim().eq_ignore_ascii_case(NDJSON))
        };
        Ok(Self(if ranges.any(is_ndjson) { Format::Ndjson } else { Format::Json }))
    }
}

/// Something that was done.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = AuditEvent)]
struct AuditEventAnswer {
    /// The organization; null for what belongs to none.
    org_id: Option<String>,
    /// Its place in the chain of its organization: 1, 2, 3...
    seq: i64,
    #[serde(with = "time::serde::rfc3339")]
    occurred_at: OffsetDateTime,
    /// `api_key`, `otp`, `command` or `system`.
    actor_kind: String,
    actor_id: Option<String>,
    actor_name: Option<String>,
    /// The kind of thing, a dot, a verb: `device.create`.
    action: String,
    target_kind: String,
    target_id: String,
    env_id: Option<String>,
    /// What it changed: `before` and `after`, with the fields that differ. Never a secret.
    #[schema(value_type = Object)]
    changes: Box<RawValue>,
    /// Where the request came from.
    address: Option<String>,
    /// The request's X-Request-Id.
    request_id: Option<String>,
    /// SHA-256, in hex, over the hash of the event before in the chain and this one.
    hash: String,
}

impl TryFrom<StoredEvent> for AuditEventAnswer {
    type Error = serde_json::Error;

    fn try_from(StoredEvent { event, hash }: StoredEvent) -> Result<Self, serde_json::Error> {
        Ok(Self {
            org_id: Some(event.chain).filter(|chain| !chain.is_empty()),
            seq: event.seq,
            occurred_at: event.occurred_at,
            actor_kind: event.actor_kind,
            actor_id: event.actor_id,
            actor_name: event.actor_name,
            action: event.action,
            target_kind: event.target_kind,
            target_id: event.target_id,
            env_id: event.env_id,
            // As it is stored: the hash is over this text.
            changes: RawValue::from_string(event.changes)?,
            address: event.address,
            request_id: event.request_id,
            hash: hash.iter().map(|byte| format!("{byte:02x}")).collect(),
        })
    }
}

/// Read who did what, newest first.
///
/// With `Accept: application/x-ndjson`, or `format=ndjson`, it is an export: every event that matches, one a line, in
/// constant memory and without a limit; an export that is cut off breaks the connection. An organization's key sees the
/// events of its organization, from its creation on.
///
/// The events of an organization are a chain: the hash of one is SHA-256 over the 32 bytes of the hash before (zeros for the
/// first) and over the JSON array, without white space, of orgId (empty where it is null), seq, occurredAt in microseconds
/// since 1970, actorKind, actorId, actorName, action, targetKind, targetId, envId, the text of changes as it is answered
/// here, address and requestId.
#[utoipa::path(
    get,
    path = "/api/internal/audit",
    operation_id = "listAuditEvents",
    tag = "Audit",
    params(
        ("orgId" = Option<String>, Query, description = "Of this organization."),
        ("actorId" = Option<String>, Query, description = "By this actor, such as an API key."),
        ("action" = Option<String>, Query, description = "Such as device.create."),
        ("targetKind" = Option<String>, Query, description = "Done to this kind of thing, such as device."),
        ("targetId" = Option<String>, Query, description = "Done to a thing of this id."),
        ("envId" = Option<String>, Query, description = "In an environment of this id."),
        ("since" = Option<String>, Query, description = "From this time on (RFC 3339).", format = DateTime),
        ("until" = Option<String>, Query, description = "Before this time (RFC 3339).", format = DateTime),
        ("format" = Option<String>, Query, description = "json or ndjson, in the place of Accept.", pattern = "^(json|ndjson)$"),
    ),
    responses(
        (status = 200, content((Page<AuditEventAnswer> = "application/json"), (String = "application/x-ndjson"))),
        (status = 404, description = "There is no such organization.", body = ProblemAnswer, content_type = "application/problem+json"),
    )
)]
async fn list(
    State(app): State<App>,
    within: InReach<AuditRead>,
    Accepted(accepted): Accepted,
    Query(AuditQuery { filter, page, format }): Query<AuditQuery>,
) -> Result<Response, Problem> {
    if let (Some(own), Some(asked)) = (within.reach.org(), &filter.org)
        && own != asked
    {
        return Err(Problem::not_found("organization"));
    }
    if format.unwrap_or(accepted) == Format::Ndjson {
        return Ok(export(app, within.reach, filter, page.after));
    }
    let found =
        audit_log::list(app.context(), &within.reach, &filter, page.after.as_ref(), page.rows()).await?;
    let page = page.page(found, |stored| position(stored).to_string(), AuditEventAnswer::try_from);
    Ok(answer(&page.transposed().map_err(|error| Problem::internal(&error))?))
}

/// An export under way.
struct Export {
    app: App,
    reach: Reach,
    filter: EventFilter,
    after: Option<EventPosition>,
}

/// Why an export broke off. It is logged; who reads it sees the connection break.
#[derive(Debug, thiserror::Error)]
enum ExportError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Json(#[from] serde_json::Error),
}

fn export(app: App, reach: Reach, filter: EventFilter, after: Option<EventPosition>) -> Response {
    let begun = Some(Export { app, reach, filter, after });
    let lines = stream::try_unfold(begun, async |export| match export {
        Some(export) => export.next_batch().await.inspect_err(|error| {
            tracing::warn!(%error, "an export of audit events broke off");
        }),
        None => Ok(None),
    });
    let mut response = Body::from_stream(Box::pin(lines)).into_response();
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(NDJSON));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

impl Export {
    /// The next lines, and what comes after them. A batch is read when the one before has been taken; no connection to the
    /// database is held meanwhile.
    async fn next_batch(mut self) -> Result<Option<(Bytes, Option<Self>)>, ExportError> {
        let context = self.app.context();
        let found =
            audit_log::list(context, &self.reach, &self.filter, self.after.as_ref(), EXPORT_BATCH).await?;
        let Some(last) = found.last() else { return Ok(None) };
        let is_full = i64::try_from(found.len()).is_ok_and(|length| length == EXPORT_BATCH);
        self.after = Some(position(last));
        let mut lines = Vec::new();
        for stored in found {
            serde_json::to_writer(&mut lines, &AuditEventAnswer::try_from(stored)?)?;
            lines.push(b'\n');
        }
        Ok(Some((lines.into(), is_full.then_some(self))))
    }
}

fn position(stored: &StoredEvent) -> EventPosition {
    let event = &stored.event;
    EventPosition { occurred_at: event.occurred_at, chain: event.chain.clone(), seq: event.seq }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_position_is_read_as_it_was_written() {
        for chain in ["acme", ""] {
            let occurred_at = OffsetDateTime::from_unix_timestamp_nanos(1_795_332_605_123_000_000).unwrap();
            let position = EventPosition { occurred_at, chain: chain.to_owned(), seq: 7 };
            assert_eq!(position.to_string().parse(), Ok(position));
        }
        let most = i64::MAX;
        for bad in [
            "",
            "1",
            "1 2",
            "x 2 acme",
            "1 x acme",
            "1 2 Not A Slug",
            &format!("{most} 1 acme"),
            "1 2 acme x",
        ] {
            assert_eq!(bad.parse::<EventPosition>(), Err(()), "{bad}");
        }
    }
}
