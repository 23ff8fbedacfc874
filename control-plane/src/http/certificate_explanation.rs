//! `/api/internal/{clientPoolId}/certificates/explain`

use axum::extract::State;
use axum::response::Response;
use keypost_shared::certificate::MAX_CHAIN_LENGTH;
use keypost_shared::device_certificate::{Admission, TraceStep};
use serde::Serialize;
use serde_json::Value;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::access::{DeviceRead, InPool};
use super::body::{Fields, FromFields, Invalid, JsonBody};
use super::problem::Problem;
use super::{App, answer, fields};
use crate::service::certificate_explanation::{self, Asked, ExplainError};

/// The most entries of `x5c` that are read: more than any chain may have.
const MAX_X5C: usize = 16;

pub(super) fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(explain))
}

/// What is to be explained: a chain or an assertion.
#[derive(ToSchema)]
#[schema(as = CertificateQuestion)]
#[expect(dead_code, reason = "it describes what is read by hand")]
struct QuestionRequest {
    /// The chain as in an assertion's header: standard Base64, the device's certificate first.
    #[schema(min_items = 1, max_items = 16)]
    x5c: Option<Vec<String>>,
    /// An assertion, as the device sends it.
    assertion: Option<String>,
    /// As of when; now where it is not given.
    #[schema(value_type = Option<String>, format = DateTime)]
    at: Option<String>,
}

struct AskedAt(Asked, Option<OffsetDateTime>);

impl FromFields for AskedAt {
    fn from_fields(fields: &mut Fields) -> Option<Self> {
        let x5c = fields.optional("x5c", x5c);
        let assertion = fields.optional("assertion", fields::text);
        let at = fields.optional("at", instant);
        let asked = match (x5c?, assertion?) {
            (Some(x5c), None) => Asked::Chain(x5c),
            (None, Some(assertion)) => Asked::Assertion(assertion),
            (Some(_), Some(_)) => {
                fields.wrong("assertion", "must not come with x5c");
                return None;
            }
            (None, None) => {
                fields.wrong("x5c", "is required, or assertion");
                return None;
            }
        };
        Some(Self(asked, at?))
    }
}

fn x5c(value: Value) -> Result<Vec<String>, Invalid> {
    let texts: Vec<String> =
        serde_json::from_value(value).map_err(|_| Invalid::new("must be an array of strings"))?;
    let fits = (1..=MAX_X5C).contains(&texts.len())
        && texts.iter().map(String::len).sum::<usize>() <= 2 * MAX_CHAIN_LENGTH;
    if fits {
        Ok(texts)
    } else {
        Err(Invalid::new("must have 1 to 16 entries, and 128 KiB together at most"))
    }
}

fn instant(value: Value) -> Result<OffsetDateTime, Invalid> {
    let text = fields::text(value)?;
    OffsetDateTime::parse(&text, &Rfc3339)
        .map_err(|_| Invalid::new("must be a time, such as 2026-01-31T12:00:00Z"))
}

/// The decision, and how it came about.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = CertificateExplanation)]
struct ExplanationAnswer {
    /// `admitted` where the device would get a token, else `refused`.
    decision: &'static str,
    /// Why not: the code that the edge answers with.
    code: Option<String>,
    /// The same, for people.
    detail: Option<String>,
    /// Whose certificate it is.
    device_id: Option<String>,
    /// Which client would get the token.
    client_id: Option<String>,
    /// Whether the device would come to exist by it.
    new_device: bool,
    /// The root that the chain leads to.
    root: Option<String>,
    /// The device's certificate.
    certificate_fingerprint: Option<String>,
    serial_number: Option<String>,
    steps: Vec<StepAnswer>,
}

/// A step of a decision.
#[derive(Serialize, ToSchema)]
#[schema(as = CertificateDecisionStep)]
struct StepAnswer {
    /// Which rule was asked.
    rule: &'static str,
    /// Whether it held.
    holds: bool,
    /// Where it did not, the code.
    code: Option<String>,
    /// What was found.
    detail: String,
}

impl From<TraceStep> for StepAnswer {
    fn from(step: TraceStep) -> Self {
        let TraceStep { rule, holds, code, detail } = step;
        Self { rule, holds, code, detail }
    }
}

/// Explain, step by step, whether a device would get in by its certificate. The code that decides is the edge's. It issues
/// nothing.
#[utoipa::path(
    post,
    path = "/api/internal/{clientPoolId}/certificates/explain",
    operation_id = "explainCertificate",
    tag = "Certificates",
    request_body = QuestionRequest,
    responses((status = 200, body = ExplanationAnswer))
)]
async fn explain(
    State(app): State<App>,
    pool: InPool<DeviceRead>,
    JsonBody(AskedAt(asked, at)): JsonBody<AskedAt>,
) -> Result<Response, Problem> {
    let explained = certificate_explanation::explained(app.context(), &pool.scope, &asked, at).await;
    let explanation = explained.map_err(|error| match error {
        ExplainError::Gone => Problem::not_found("client pool"),
        ExplainError::Crypto(error) => Problem::internal(&error),
        ExplainError::Store(error) => error.into(),
    })?;
    let (client_id, new_device) = match &explanation.outcome {
        Ok(Admission::Known { client_id, .. }) => (Some(client_id.to_string()), false),
        Ok(Admission::New { client_id }) => (Some(client_id.to_string()), true),
        Err(_) => (None, false),
    };
    let refusal = explanation.outcome.as_ref().err();
    let identity = explanation.identity.as_ref();
    Ok(answer(&ExplanationAnswer {
        decision: if refusal.is_some() { "refused" } else { "admitted" },
        code: refusal.map(|refusal| refusal.code().to_string()),
        detail: refusal.map(ToString::to_string),
        device_id: identity.map(|identity| identity.device_id.to_string()),
        client_id,
        new_device,
        root: identity.map(|identity| identity.root.to_string()),
        certificate_fingerprint: identity.map(|identity| identity.thumbprint.to_string()),
        serial_number: identity.map(|identity| identity.serial.clone()),
        steps: explanation.steps.into_iter().map(StepAnswer::from).collect(),
    }))
}
