//! `kv_pace`: when calls to KV may be made, of all control planes on this database together.
//!
//! The database's clock counts, so that control planes whose clocks differ do not wait for each other.

use std::time::Duration;

use sqlx::PgConnection;

use super::StoreError;

/// When calls may follow each other.
#[derive(Clone, Copy, Debug)]
pub struct Spacing {
    /// How far places are apart in the long run.
    pub period: Duration,
    /// How soon a call may follow the one before it: the period, or less where somebody waits for it.
    pub gap: Duration,
    /// By how much calls may be ahead of the long run, all together.
    pub allowance: Duration,
}

/// Takes the next place, and says how long to wait for it.
pub async fn take_place(connection: &mut PgConnection, spacing: Spacing) -> Result<Duration, StoreError> {
    let Spacing { period, gap, allowance } = spacing;
    // A time that is farther off than any queue comes from a database whose clock was put back.
    let seconds = sqlx::query_scalar!(
        r#"update kv_pace
              set (next_call_at, spent_until) = (
                      select at + make_interval(secs => $1),
                             greatest(at, case when spent_until < at + interval '10 minutes' then spent_until end)
                                 + make_interval(secs => $1)
                        from (select greatest(
                                  clock_timestamp(),
                                  case when next_call_at < clock_timestamp() + interval '10 minutes'
                                       then next_call_at - make_interval(secs => $1) + make_interval(secs => $2) end,
                                  case when spent_until < clock_timestamp() + interval '10 minutes'
                                       then spent_until - make_interval(secs => $3) end) as at) as place)
           returning extract(epoch from next_call_at - clock_timestamp())::float8 - $1 as "seconds!""#,
        period.as_secs_f64(),
        gap.as_secs_f64(),
        allowance.as_secs_f64(),
    )
    .fetch_one(connection)
    .await?;
    Ok(Duration::try_from_secs_f64(seconds.max(0.0)).unwrap_or_default())
}

/// Takes the next place of calls that can wait, which leave room to the others. Such a call takes one of all calls too.
pub async fn take_resign_place(
    connection: &mut PgConnection,
    period: Duration,
) -> Result<Duration, StoreError> {
    let seconds = sqlx::query_scalar!(
        r#"update kv_pace
              set next_resign_at = make_interval(secs => $1)
                  + case when next_resign_at > clock_timestamp() + interval '10 minutes' then clock_timestamp()
                         else greatest(next_resign_at, clock_timestamp()) end
           returning extract(epoch from next_resign_at - clock_timestamp())::float8 - $1 as "seconds!""#,
        period.as_secs_f64(),
    )
    .fetch_one(connection)
    .await?;
    Ok(Duration::try_from_secs_f64(seconds.max(0.0)).unwrap_or_default())
}

/// How long it is until the next place, and until the next one of calls that can wait.
pub async fn next_places(
    connection: &mut PgConnection,
    spacing: Spacing,
) -> Result<(Duration, Duration), StoreError> {
    let Spacing { period, gap, allowance } = spacing;
    let row = sqlx::query!(
        r#"select extract(epoch from greatest(
                      next_call_at - make_interval(secs => $1) + make_interval(secs => $2),
                      spent_until - make_interval(secs => $3)) - clock_timestamp())::float8 as "all!",
                  extract(epoch from next_resign_at - clock_timestamp())::float8 as "resign!"
             from kv_pace"#,
        period.as_secs_f64(),
        gap.as_secs_f64(),
        allowance.as_secs_f64(),
    )
    .fetch_one(connection)
    .await?;
    let pause = |seconds: f64| Duration::try_from_secs_f64(seconds.clamp(0.0, 600.0)).unwrap_or_default();
    Ok((pause(row.all), pause(row.resign)))
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
