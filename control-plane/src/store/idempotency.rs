//! `idempotency`: answers that are given again.

use sqlx::PgConnection;
use time::{Duration, OffsetDateTime};

use super::StoreError;

/// How long an answer is given again (api.md).
const KEPT: Duration = Duration::hours(24);

/// What is known of a request that comes with an `Idempotency-Key`.
#[derive(Debug, PartialEq, Eq)]
pub enum Claim {
    /// It is the first: what it makes must be answered in the same transaction.
    First,
    /// It has been answered: this is the encrypted answer.
    Answered(Vec<u8>),
    /// The same key came with another body.
    OtherBody,
}

/// Looks a request up, and takes its place where it is the first. Of several at once, the others wait here until the
/// first one's transaction has ended.
pub async fn claim(
    tx: &mut PgConnection,
    id: &[u8; 32],
    body_hash: &[u8; 32],
    now: OffsetDateTime,
) -> Result<Claim, StoreError> {
    let claimed = sqlx::query_scalar!(
        "insert into idempotency (id, body_hash, created_at) values ($1, $2, $3)
         on conflict (id) do update
            set body_hash = excluded.body_hash, answer = null, created_at = excluded.created_at
          where idempotency.created_at < $4
         returning id",
        id.as_slice(),
        body_hash.as_slice(),
        now,
        now - KEPT,
    )
    .fetch_optional(&mut *tx)
    .await?;
    if claimed.is_some() {
        return Ok(Claim::First);
    }
    let row = sqlx::query!("select body_hash, answer from idempotency where id = $1", id.as_slice())
        .fetch_one(tx)
        .await?;
    Ok(match row.answer {
        Some(answer) if row.body_hash == body_hash => Claim::Answered(answer),
        // Without an answer no transaction ever commits, so that is another body's too.
        _ => Claim::OtherBody,
    })
}

/// Keeps the answer to a request.
pub async fn answer(tx: &mut PgConnection, id: &[u8; 32], sealed: &[u8]) -> Result<(), StoreError> {
    sqlx::query!("update idempotency set answer = $2 where id = $1", id.as_slice(), sealed)
        .execute(tx)
        .await?;
    Ok(())
}
