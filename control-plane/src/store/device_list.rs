//! Lists of devices, by what they have.
//!
//! The statement is put together from the filters that are there, and planned for their values each time: whether a tag is
//! common or rare decides how its devices are best found.

use keypost_shared::id::DeviceId;
use sqlx::{PgConnection, Postgres, QueryBuilder};

use super::StoreError;
use super::device::{Device, DeviceStatus, Row};
use super::environment::EnvScope;

/// The shortest text that the index of trigrams can find.
const TRIGRAM: usize = 3;

/// Which devices are asked for: those to which all of it applies.
#[derive(Clone, Debug, Default)]
pub struct DeviceFilter {
    /// Where they stand.
    pub status: Option<DeviceStatus>,
    /// The tags that they have themselves, by name and value.
    pub tags: Vec<(String, String)>,
    /// What stands in their id or name, in capitals or not.
    pub text: Option<String>,
}

/// Devices of the environment, by id, after `after`; at most `rows`. The transaction ends with it, or the planner's
/// settings for it would last.
pub async fn list(
    tx: &mut PgConnection,
    scope: &EnvScope,
    filter: &DeviceFilter,
    after: Option<&DeviceId>,
    rows: i64,
) -> Result<Vec<Device>, StoreError> {
    set_up(tx).await?;
    let mut query = statement("", scope, filter, after, rows);
    let found: Vec<Row> = query.build_query_as().persistent(false).fetch_all(tx).await?;
    found.into_iter().map(Device::try_from).collect()
}

/// How PostgreSQL answers [`list`], line by line: its plan, and how long that took.
pub async fn explain(
    tx: &mut PgConnection,
    scope: &EnvScope,
    filter: &DeviceFilter,
    after: Option<&DeviceId>,
    rows: i64,
) -> Result<Vec<String>, StoreError> {
    set_up(tx).await?;
    let mut query =
        statement("explain (analyze, costs off, timing off, buffers off) ", scope, filter, after, rows);
    Ok(query.build_query_scalar().persistent(false).fetch_all(tx).await?)
}

async fn set_up(tx: &mut PgConnection) -> Result<(), StoreError> {
    // What begins at the right place and stops after a page is always better than what reads all first, however the
    // planner estimates.
    sqlx::query!(
        r#"select set_config('enable_mergejoin', 'off', true) as "merge", set_config('enable_hashjoin', 'off', true) as "hash""#
    )
    .fetch_one(tx)
    .await?;
    Ok(())
}

fn statement(
    prefix: &str,
    scope: &EnvScope,
    filter: &DeviceFilter,
    after: Option<&DeviceId>,
    rows: i64,
) -> QueryBuilder<Postgres> {
    let mut query = QueryBuilder::new(prefix);
    query.push(
        "select d.id, d.name, d.description, d.metadata, d.tags, d.primary_server_url, d.server_urls, d.status,
                d.last_activated_at, d.provisioned_by, d.provisioned_at, d.certificate_fingerprint, d.created_at,
                d.updated_at
           from device d",
    );
    for position in 0..filter.tags.len() {
        let t = format!("t{position}");
        query.push(format!(
            " join device_tag {t} on {t}.org_id = d.org_id and {t}.env_id = d.env_id and {t}.device_id = d.id"
        ));
    }
    query.push(" where d.org_id = ").push_bind(scope.org().as_str().to_owned());
    query.push(" and d.env_id = ").push_bind(scope.env().as_str().to_owned());
    if let Some(after) = after {
        query.push(" and d.id > ").push_bind(after.as_str().to_owned());
    }
    for (position, (name, value)) in filter.tags.iter().enumerate() {
        let t = format!("t{position}");
        query.push(format!(" and {t}.tag = ")).push_bind(format!("{name}={value}"));
        // What holds for the device is said of each tag as well: each may be where the search begins.
        query.push(format!(" and {t}.org_id = ")).push_bind(scope.org().as_str().to_owned());
        query.push(format!(" and {t}.env_id = ")).push_bind(scope.env().as_str().to_owned());
        if let Some(after) = after {
            query.push(format!(" and {t}.device_id > ")).push_bind(after.as_str().to_owned());
        }
    }
    if let Some(status) = filter.status {
        query.push(" and d.status = ").push_bind(status.as_str());
    }
    if let Some(text) = &filter.text {
        let pattern = format!("%{}%", escaped(text));
        if text.chars().count() >= TRIGRAM {
            // As in the index; neither ids nor names nor texts that are looked for have a line break.
            query.push(" and ((d.id || E'\\n' || d.name) collate \"default\") ilike ").push_bind(pattern);
        } else {
            // Not as in the index, which would be read whole for less than a trigram.
            query.push(" and (d.id collate \"default\" ilike ").push_bind(pattern.clone());
            query.push(" or d.name ilike ").push_bind(pattern).push(")");
        }
    }
    query.push(" order by d.id limit ").push_bind(rows);
    query
}

/// A text as a pattern of `like` that stands for itself.
fn escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        if matches!(c, '%' | '_' | '\\') {
            escaped.push('\\');
        }
        escaped.push(c);
    }
    escaped
}
