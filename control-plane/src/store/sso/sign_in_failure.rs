//! What has failed lately: `sign_in_failure`, by hashes that belong to no organization, because most accounts that are
//! guessed at do not exist.

use keypost_shared::secret::SecretHash;
use sqlx::PgConnection;
use time::OffsetDateTime;

use super::super::{StoreError, hash};
use crate::service::sso::delay::Failures;

/// What a failure counts for: an account, an account from a network, or a network, hashed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct FailureKey([u8; 32]);

impl FailureKey {
    /// The key of a thing of a kind. Things of a kind have different names.
    pub fn of(kind: &str, name: &str) -> Self {
        // No kind has a line feed.
        Self(*SecretHash::of(format!("keypost sign-in {kind}\n{name}").as_bytes()).as_bytes())
    }
}

/// What has failed, for each of the keys for which anything has.
pub async fn read(
    connection: &mut PgConnection,
    keys: &[FailureKey],
) -> Result<Vec<(FailureKey, Failures)>, StoreError> {
    let rows = sqlx::query!(
        "select key, failures, counted_at, delayed_until from sign_in_failure where key = any($1)",
        &bytes(keys),
    )
    .fetch_all(connection)
    .await?;
    rows.into_iter().map(|row| failures(row.key, row.failures, row.counted_at, row.delayed_until)).collect()
}

/// Refuses attempts from now until a time, unless they have been refused since `before` was read: of several that come
/// at once, one gets through.
pub async fn claim(
    connection: &mut PgConnection,
    key: FailureKey,
    before: &Failures,
    until: OffsetDateTime,
) -> Result<bool, StoreError> {
    let done = sqlx::query!(
        "update sign_in_failure set delayed_until = $3 where key = $1 and delayed_until = $2",
        key.0.as_slice(),
        before.delayed_until,
        until,
    )
    .execute(connection)
    .await?;
    Ok(done.rows_affected() > 0)
}

/// Lets attempts through again that were refused for the sake of one that has succeeded.
pub async fn release(connection: &mut PgConnection, key: FailureKey) -> Result<(), StoreError> {
    sqlx::query!(
        "update sign_in_failure set delayed_until = to_timestamp(0) where key = $1",
        key.0.as_slice(),
    )
    .execute(connection)
    .await?;
    Ok(())
}

/// Forgets what has failed.
pub async fn forget(connection: &mut PgConnection, key: FailureKey) -> Result<(), StoreError> {
    sqlx::query!("delete from sign_in_failure where key = $1", key.0.as_slice()).execute(connection).await?;
    Ok(())
}

/// Lets `change` say what has failed from now on, for each of the keys, which no one else changes meanwhile.
pub async fn update(
    tx: &mut PgConnection,
    keys: &[FailureKey],
    now: OffsetDateTime,
    change: impl Fn(FailureKey, Failures) -> Failures,
) -> Result<(), StoreError> {
    let keys = bytes(keys);
    sqlx::query!(
        "insert into sign_in_failure (key, failures, counted_at, delayed_until)
         select key, 0, $2, to_timestamp(0) from unnest($1::bytea[]) as key order by key on conflict do nothing",
        &keys,
        now,
    )
    .execute(&mut *tx)
    .await?;
    // In one order, so that two of them never wait for each other.
    let rows = sqlx::query!(
        "select key, failures, counted_at, delayed_until from sign_in_failure
          where key = any($1) order by key for update",
        &keys,
    )
    .fetch_all(&mut *tx)
    .await?;
    let (mut keys, mut counts, mut counted, mut delayed) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for row in rows {
        let (key, before) = failures(row.key, row.failures, row.counted_at, row.delayed_until)?;
        let after = change(key, before);
        keys.push(key.0.to_vec());
        counts.push(i32::from(after.count));
        counted.push(after.counted_at);
        delayed.push(after.delayed_until);
    }
    sqlx::query!(
        "update sign_in_failure f
            set failures = n.failures, counted_at = n.counted_at, delayed_until = n.delayed_until
           from unnest($1::bytea[], $2::int[], $3::timestamptz[], $4::timestamptz[])
                as n (key, failures, counted_at, delayed_until)
          where f.key = n.key",
        &keys,
        &counts,
        &counted,
        &delayed,
    )
    .execute(tx)
    .await?;
    Ok(())
}

/// Forgets what nothing has been added to since a time, and delays nobody any more.
pub async fn purge(
    connection: &mut PgConnection,
    before: OffsetDateTime,
    limit: u16,
) -> Result<u64, StoreError> {
    let done = sqlx::query!(
        "with due as (
             select key from sign_in_failure where greatest(counted_at, delayed_until) < $1
              order by greatest(counted_at, delayed_until) limit $2 for update skip locked
         )
         delete from sign_in_failure f using due where f.key = due.key",
        before,
        i64::from(limit),
    )
    .execute(connection)
    .await?;
    Ok(done.rows_affected())
}

fn bytes(keys: &[FailureKey]) -> Vec<Vec<u8>> {
    keys.iter().map(|key| key.0.to_vec()).collect()
}

fn failures(
    key: Vec<u8>,
    count: i32,
    counted_at: OffsetDateTime,
    delayed_until: OffsetDateTime,
) -> Result<(FailureKey, Failures), StoreError> {
    let key = FailureKey(hash("sign_in_failure.key", key)?);
    let count =
        u16::try_from(count).map_err(|error| StoreError::unreadable("sign_in_failure.failures", error))?;
    Ok((key, Failures { count, counted_at, delayed_until }))
}
