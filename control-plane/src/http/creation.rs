//! Creating requests: with an `Idempotency-Key`, the same request gets the same answer (api.md).
//!
//! The key's row is taken, the thing created and the answer kept in one transaction. So whoever asks again, because the
//! answer was lost, either gets that answer or is the first.

use std::sync::Arc;

use axum::extract::{FromRequest, Request};
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use time::OffsetDateTime;

use super::App;
use super::body::{FromFields, read_json, read_optional_json};
use super::precondition::etag;
use super::problem::Problem;
use crate::crypto_at_rest::AnswerKey;
use crate::service::audit::Actor;
use crate::service::change::Change;
use crate::store::idempotency::{self, Claim};
use crate::store::publication::Mark;

const IDEMPOTENCY_KEY: &str = "idempotency-key";
const MAX_KEY_LENGTH: usize = 255;
/// Says that an answer is one that was given before.
const REPLAYED: HeaderName = HeaderName::from_static("idempotent-replayed");

/// A creating request with a body that must be there.
pub(super) struct Create<T>(pub(super) T, pub(super) CreateRequest);

/// A creating request whose body may be absent, which is the same as an empty object.
pub(super) struct CreateWithDefaults<T>(pub(super) T, pub(super) CreateRequest);

/// What a creating request is known by.
pub(super) struct CreateRequest {
    idempotency_key: Option<String>,
    method: String,
    path: String,
    body_hash: [u8; 32],
}

/// The same, before its body has been read.
pub(super) struct CreateHead {
    idempotency_key: Option<String>,
    method: String,
    path: String,
}

impl CreateHead {
    /// Of this request.
    pub(super) fn read(request: &Request) -> Result<Self, Problem> {
        let path = request.uri().path_and_query().map_or_else(String::new, |path| path.as_str().to_owned());
        Ok(Self {
            idempotency_key: idempotency_key(request.headers())?,
            method: request.method().to_string(),
            path,
        })
    }
}

/// A creation under way.
pub(super) struct Creation {
    /// The change that creates.
    pub(super) change: Change,
    /// The rows to keep the answer in: none without an `Idempotency-Key`, two while the master key is being replaced.
    kept: Vec<([u8; 32], AnswerKey)>,
    status: StatusCode,
}

/// Why a creating request ends before its end.
pub(super) enum Interrupted {
    /// It is wrong.
    Problem(Problem),
    /// It has been answered before.
    Answered(Response),
}

/// An answer as it is kept.
#[derive(Serialize, Deserialize)]
struct KeptAnswer {
    status: u16,
    etag: Option<String>,
    body: String,
}

impl<T: FromFields> FromRequest<App> for Create<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, _: &App) -> Result<Self, Problem> {
        let head = CreateHead::read(&request)?;
        let (body, bytes) = read_json(request).await?;
        Ok(Self(body, CreateRequest::of(head, &bytes)))
    }
}

impl<T: FromFields> FromRequest<App> for CreateWithDefaults<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, _: &App) -> Result<Self, Problem> {
        let head = CreateHead::read(&request)?;
        let (body, bytes) = read_optional_json(request).await?;
        Ok(Self(body, CreateRequest::of(head, &bytes)))
    }
}

fn idempotency_key(headers: &HeaderMap) -> Result<Option<String>, Problem> {
    let refused = || {
        let detail = format!("must be one text of 1 to {MAX_KEY_LENGTH} visible ASCII characters");
        Problem::invalid_field("Idempotency-Key", detail)
    };
    let mut values = headers.get_all(IDEMPOTENCY_KEY).iter();
    let Some(value) = values.next() else { return Ok(None) };
    let text = value.to_str().map_err(|_| refused())?;
    let good = (1..=MAX_KEY_LENGTH).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_graphic());
    if good && values.next().is_none() { Ok(Some(text.to_owned())) } else { Err(refused()) }
}

impl CreateRequest {
    /// Of a request whose body is read elsewhere, and says `content`: what tells one request from another.
    pub(super) fn of(head: CreateHead, content: impl AsRef<[u8]>) -> Self {
        let CreateHead { idempotency_key, method, path } = head;
        Self { idempotency_key, method, path, body_hash: Sha256::digest(content).into() }
    }

    /// Whether it is to be known again.
    pub(super) fn has_key(&self) -> bool {
        self.idempotency_key.is_some()
    }

    /// Begins the creation, unless the request has been answered before.
    pub(super) async fn begin(self, app: &App, actor: &Arc<Actor>) -> Result<Creation, Interrupted> {
        let caller = actor.id.as_deref().unwrap_or_default();
        let body_hash = self.body_hash;
        self.begin_as(app, actor, &[caller], |_| body_hash).await
    }

    /// The same for a request that holds a password, on behalf of whoever `caller` names. What is kept to know it by can be
    /// told from nothing but the key, so that nobody guesses the password by it.
    pub(super) async fn begin_with_password(
        self,
        app: &App,
        actor: &Arc<Actor>,
        caller: &[&str],
    ) -> Result<Creation, Interrupted> {
        let body_hash = self.body_hash;
        self.begin_as(app, actor, caller, |key| key.hash(&body_hash)).await
    }

    async fn begin_as(
        self,
        app: &App,
        actor: &Arc<Actor>,
        caller: &[&str],
        body_hash: impl Fn(&AnswerKey) -> [u8; 32],
    ) -> Result<Creation, Interrupted> {
        let mut change = Change::begin(app.context(), actor).await?;
        let Some(key) = &self.idempotency_key else {
            return Ok(Creation { change, kept: Vec::new(), status: StatusCode::CREATED });
        };
        let scope: Vec<&str> = caller.iter().copied().chain([&*self.method, &*self.path]).collect();
        let kept = app.context().master_key.idempotency(&scope, key);
        let now = change.now();
        for (id, answer_key) in &kept {
            match idempotency::claim(change.tx(), id, &body_hash(answer_key), now).await? {
                Claim::First => {}
                Claim::OtherBody => return Err(Problem::idempotency_key_reused().into()),
                Claim::Answered(sealed) => return Err(replay(answer_key, &sealed)?),
            }
        }
        Ok(Creation { change, kept, status: StatusCode::CREATED })
    }
}

/// The answer that was given before.
fn replay(key: &AnswerKey, sealed: &[u8]) -> Result<Interrupted, Problem> {
    let opened = key.open(sealed).map_err(|error| Problem::internal(&error))?;
    let kept: KeptAnswer = serde_json::from_slice(&opened).map_err(|error| Problem::internal(&error))?;
    let mut response = kept.into_response();
    response.headers_mut().insert(REPLAYED, HeaderValue::from_static("true"));
    Ok(Interrupted::Answered(response))
}

impl Creation {
    /// Answers 200, for the creation whose answer is not that of the thing.
    pub(super) fn with_message(self) -> Self {
        Self { status: StatusCode::OK, ..self }
    }

    /// Answers 200, for what creates a secret and no thing of its own.
    pub(super) fn of_a_secret(self) -> Self {
        Self { status: StatusCode::OK, ..self }
    }

    /// Makes it so, and answers 201. `updated_at` is for the ETag of a thing that can be asked for again.
    pub(super) async fn finish(
        self,
        answer: &impl Serialize,
        updated_at: Option<OffsetDateTime>,
    ) -> Result<Response, Problem> {
        let kept = KeptAnswer::new(self.status, answer, updated_at)?;
        self.keep_and_commit(&kept).await?;
        Ok(kept.into_response())
    }

    /// Makes it so, waits for what `wait` does with the marks, and answers 201 with what `answer` makes of the outcome.
    pub(super) async fn finish_after<A: Serialize>(
        self,
        app: &App,
        updated_at: Option<OffsetDateTime>,
        wait: impl AsyncFnOnce(Vec<Mark>) -> bool,
        answer: impl Fn(bool) -> A,
    ) -> Result<Response, Problem> {
        let (not_yet, done) = (answer(false), answer(true));
        let status = self.status;
        let kept = KeptAnswer::new(status, &not_yet, updated_at)?;
        let (marks, rows) = self.keep_and_commit(&kept).await?;
        if !wait(marks).await {
            return Ok(kept.into_response());
        }
        let kept = KeptAnswer::new(status, &done, updated_at)?;
        // Whoever asks again now is told the truth of now. Where that fails, the truth of then is good enough.
        let kept_again = async {
            for (id, key) in &rows {
                let mut connection =
                    app.context().db.acquire().await.map_err(crate::store::StoreError::from)?;
                let sealed = kept.seal(key, app)?;
                idempotency::answer(&mut connection, id, &sealed).await?;
            }
            Ok::<_, Problem>(())
        };
        if kept_again.await.is_err() {
            tracing::debug!("an answer was not kept a second time");
        }
        Ok(kept.into_response())
    }

    async fn keep_and_commit(
        mut self,
        kept: &KeptAnswer,
    ) -> Result<(Vec<Mark>, Vec<([u8; 32], AnswerKey)>), Problem> {
        for (id, key) in &self.kept {
            let sealed = kept.seal_with(key, self.change.rng())?;
            idempotency::answer(self.change.tx(), id, &sealed).await?;
        }
        Ok((self.change.commit().await?, self.kept))
    }
}

impl KeptAnswer {
    fn new(
        status: StatusCode,
        answer: &impl Serialize,
        updated_at: Option<OffsetDateTime>,
    ) -> Result<Self, Problem> {
        let body = serde_json::to_string(answer).map_err(|error| Problem::internal(&error))?;
        Ok(Self { status: status.as_u16(), etag: updated_at.map(etag), body })
    }

    fn seal(&self, key: &AnswerKey, app: &App) -> Result<Vec<u8>, Problem> {
        self.seal_with(key, app.context().entropy.rng())
    }

    fn seal_with(&self, key: &AnswerKey, mut rng: crate::entropy::Rng) -> Result<Vec<u8>, Problem> {
        let bytes = serde_json::to_vec(self).map_err(|error| Problem::internal(&error))?;
        key.seal(&bytes, &mut rng).map_err(|error| Problem::internal(&error))
    }

    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.status).unwrap_or(StatusCode::CREATED);
        let mut response = (status, self.body).into_response();
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        if let Some(Ok(etag)) = self.etag.map(|etag| HeaderValue::from_str(&etag)) {
            headers.insert(axum::http::header::ETAG, etag);
        }
        response
    }
}

impl<E> From<E> for Interrupted
where
    Problem: From<E>,
{
    fn from(error: E) -> Self {
        Self::Problem(error.into())
    }
}

impl IntoResponse for Interrupted {
    fn into_response(self) -> Response {
        match self {
            Interrupted::Problem(problem) => problem.into_response(),
            Interrupted::Answered(response) => response,
        }
    }
}
