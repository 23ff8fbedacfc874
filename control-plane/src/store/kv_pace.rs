//! `kv_pace`: when calls to KV may be made, of all control planes on this database together.
//!
//! The database's clock counts, so that control planes whose clocks differ do not wait for each other.

use std::time::Duration;

use sqlx::PgConnection;

use super::StoreError;

/// Which calls are spaced: all, or those that can wait, which leave room to the others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Track {
    /// All calls.
    All,
    /// Calls that sign again or compare.
    Resign,
}

/// Takes the next place on a track whose places are `period` apart, and says how long to wait for it.
pub async fn take_place(
    connection: &mut PgConnection,
    track: Track,
    period: Duration,
) -> Result<Duration, StoreError> {
    // A time that is farther off than any queue comes from a database whose clock was put back.
    let seconds = match track {
        Track::All => {
            sqlx::query_scalar!(
                r#"update kv_pace
                      set next_call_at = make_interval(secs => $1)
                          + case when next_call_at > clock_timestamp() + interval '10 minutes' then clock_timestamp()
                                 else greatest(next_call_at, clock_timestamp()) end
                   returning extract(epoch from next_call_at - clock_timestamp())::float8 - $1 as "seconds!""#,
                period.as_secs_f64(),
            )
            .fetch_one(connection)
            .await?
        }
        Track::Resign => {
            sqlx::query_scalar!(
                r#"update kv_pace
                      set next_resign_at = make_interval(secs => $1)
                          + case when next_resign_at > clock_timestamp() + interval '10 minutes' then clock_timestamp()
                                 else greatest(next_resign_at, clock_timestamp()) end
                   returning extract(epoch from next_resign_at - clock_timestamp())::float8 - $1 as "seconds!""#,
                period.as_secs_f64(),
            )
            .fetch_one(connection)
            .await?
        }
    };
    Ok(Duration::try_from_secs_f64(seconds.max(0.0)).unwrap_or_default())
}

/// How long it is until the next place on a track.
pub async fn next_place(connection: &mut PgConnection, track: Track) -> Result<Duration, StoreError> {
    let row = sqlx::query!(
        r#"select extract(epoch from next_call_at - clock_timestamp())::float8 as "all!",
                  extract(epoch from next_resign_at - clock_timestamp())::float8 as "resign!"
             from kv_pace"#,
    )
    .fetch_one(connection)
    .await?;
    let seconds = match track {
        Track::All => row.all,
        Track::Resign => row.all.max(row.resign),
    };
    Ok(Duration::try_from_secs_f64(seconds.clamp(0.0, 600.0)).unwrap_or_default())
}

/// Nobody calls for so long: KV has asked for a pause.
pub async fn be_quiet_for(connection: &mut PgConnection, pause: Duration) -> Result<(), StoreError> {
    sqlx::query!(
        "update kv_pace set quiet_until = greatest(quiet_until, clock_timestamp() + make_interval(secs => $1))",
        pause.as_secs_f64(),
    )
    .execute(connection)
    .await?;
    Ok(())
}

/// How long the pause that KV has asked for goes on; none where there is none.
pub async fn quiet_for(connection: &mut PgConnection) -> Result<Option<Duration>, StoreError> {
    let seconds = sqlx::query_scalar!(
        r#"select extract(epoch from quiet_until - clock_timestamp())::float8 as "seconds!" from kv_pace
            where quiet_until > clock_timestamp() and quiet_until < clock_timestamp() + interval '10 minutes'"#,
    )
    .fetch_optional(connection)
    .await?;
    Ok(seconds.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok()))
}
