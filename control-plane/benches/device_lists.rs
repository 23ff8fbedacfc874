//! How long a page of 50 out of a million devices takes in PostgreSQL, filter by filter, with the plans: `cargo xtask lists`.
//!
//! It needs an empty, migrated database in `KEYPOST_BENCH_DATABASE_URL`, and fills it. Each list is asked for three times,
//! and the middle time counts: the first may find nothing in memory.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stdout,
    reason = "a measurement on the command line, which may fail"
)]

use std::str::FromStr;

use keypost::config::DatabaseConfig;
use keypost::service::access::{Caller, Permission};
use keypost::service::audit::Actor;
use keypost::store;
use keypost::store::device::DeviceStatus;
use keypost::store::device_list::{DeviceFilter, explain};
use keypost::store::environment::EnvScope;
use sqlx::PgPool;
use sqlx::postgres::PgConnectOptions;
use uuid::Uuid;

/// A million devices of one environment, as a chain of shops might have them: the shops of a country have neighbouring
/// numbers, and with them the ids of their devices.
const FILL: &str = "
    insert into organization (id, name, created_at, updated_at) values ('bench', 'Bench', now(), now());
    insert into environment (org_id, id, name, tag_defaults, server_urls, created_at, updated_at)
    values ('bench', 'prod', 'Production', '{}', '{}', now(), now());
    insert into client_pool (id, org_id, env_id, kind, created_at, updated_at)
    values (gen_random_uuid(), 'bench', 'prod', 'device', now(), now());
    insert into device (org_id, env_id, id, name, metadata, tags, server_urls, status, created_at, updated_at)
    select 'bench', 'prod', lpad((n / 40)::text, 5, '0') || '-' || lpad((n % 40)::text, 3, '0'),
           'Till ' || n % 40 || ' in shop ' || n / 40 || case when n >= 900000 then ' (Auckland)' else '' end,
           json_build_object('location', 'checkout-' || n % 40),
           jsonb_build_object('business_unit_id', lpad((n / 40)::text, 5, '0'), 'device_type', 'till',
                              'country', case when n >= 900000 then 'NZ' else 'US' end,
                              'parity', case when n / 1000 % 5 = 0 then 'even' when n % 2 = 0 then 'some' else 'odd' end,
                              'state', (array['NY', 'CA', 'TX', 'WA', 'OR'])[1 + n / 1000 % 5],
                              'campaign', case when n % 100000 = 7 then 'spring' else 'none' end),
           '{}', case when n % 1000 = 3 then 'disabled' when n % 3 = 0 then 'registered' else 'active' end, now(), now()
      from generate_series(0, 999999) n;";

/// What is asked for: a name, the filter, and after which device.
type Case = (&'static str, DeviceFilter, Option<&'static str>);

#[tokio::main]
async fn main() {
    let url = std::env::var("KEYPOST_BENCH_DATABASE_URL").expect("KEYPOST_BENCH_DATABASE_URL is not set");
    let options =
        PgConnectOptions::from_str(&url).expect("KEYPOST_BENCH_DATABASE_URL must be a PostgreSQL URL");
    let pool = store::connect(&DatabaseConfig { options, connections: 1 });
    fill(&pool).await;
    let scope = scope(&pool).await;
    for (name, filter, after) in cases() {
        let after = after.map(|after| after.parse().unwrap());
        let mut runs = Vec::new();
        for _ in 0..3 {
            let mut tx = pool.begin().await.unwrap();
            let plan = explain(&mut tx, &scope, &filter, after.as_ref(), 51).await.unwrap();
            runs.push((milliseconds(&plan), plan));
        }
        runs.sort_by(|(a, _), (b, _)| a.total_cmp(b));
        let (time, plan) = runs.swap_remove(1);
        println!("{time:9.2} ms  {name}");
        for line in plan.iter().filter(|line| line.contains("->") || line.contains("Scan")) {
            println!("                 {line}");
        }
    }
}

async fn fill(pool: &PgPool) {
    let mut connection = pool.acquire().await.unwrap();
    sqlx::raw_sql("set statement_timeout = 0").execute(&mut *connection).await.unwrap();
    sqlx::raw_sql(FILL).execute(&mut *connection).await.unwrap();
    sqlx::raw_sql("vacuum analyze").execute(&mut *connection).await.unwrap();
    let sizes: Vec<(String, String)> = sqlx::query_as(
        "select relname::text, pg_size_pretty(pg_relation_size(oid))
           from pg_class
          where relname in ('device', 'device_pkey', 'device_status', 'device_text', 'device_tag', 'device_tag_pkey')
          order by 1",
    )
    .fetch_all(&mut *connection)
    .await
    .unwrap();
    for (name, size) in sizes {
        println!("{size:>9}     {name}");
    }
}

async fn scope(pool: &PgPool) -> EnvScope {
    let caller = Caller {
        api_key_id: Uuid::nil(),
        org: None,
        permissions: None,
        expires_at: None,
        actor: Actor::system(),
    };
    let scope = caller.enter(&"bench".parse().unwrap(), Permission::DeviceRead).unwrap();
    let mut connection = pool.acquire().await.unwrap();
    let found = store::environment::find(&mut connection, &scope, &"prod".parse().unwrap()).await;
    found.unwrap().unwrap().within(&scope)
}

fn cases() -> Vec<Case> {
    let tags = |tags: &[(&str, &str)]| DeviceFilter {
        tags: tags.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect(),
        ..DeviceFilter::default()
    };
    let text = |text: &str| DeviceFilter { text: Some(text.to_owned()), ..DeviceFilter::default() };
    let status = |status| DeviceFilter { status: Some(status), ..DeviceFilter::default() };
    let disabled = DeviceStatus::Disabled;
    let deep = Some("22500-000");
    vec![
        ("no filter, first page", DeviceFilter::default(), None),
        ("no filter, after 900,000", DeviceFilter::default(), deep),
        ("status, 1 in 1,000", status(disabled), None),
        ("status, 2 in 3, after 900,000", status(DeviceStatus::Active), deep),
        ("tag, 9 in 10", tags(&[("country", "US")]), None),
        ("tag, 9 in 10, after 890,000", tags(&[("country", "US")]), Some("22250-000")),
        ("tag, the last 1 in 10", tags(&[("country", "NZ")]), None),
        ("tag, 40 devices", tags(&[("business_unit_id", "12345")]), None),
        ("tag, 10 devices", tags(&[("campaign", "spring")]), None),
        ("tag, none", tags(&[("campaign", "autumn")]), None),
        ("two tags, common", tags(&[("country", "US"), ("state", "CA")]), None),
        ("two tags, common and rare", tags(&[("country", "NZ"), ("campaign", "spring")]), None),
        ("two tags, 1 in 5 and 1 in 10", tags(&[("state", "OR"), ("country", "NZ")]), None),
        ("two tags, 2 in 5 and 1 in 5, no device", tags(&[("parity", "odd"), ("state", "NY")]), None),
        ("q, in all", text("till"), None),
        ("q, in the last 1 in 10", text("auckland"), None),
        ("q, one device", text("12345-007"), None),
        ("q, no device", text("warehouse"), None),
        ("q, no device, of common trigrams", text("shop 99999"), None),
        ("q, 1 character, in all", text("t"), None),
        ("q, 2 characters, 1 in 10", text("(a"), None),
        ("q, 2 characters, no device", text("xq"), None),
        (
            "status 1 in 1,000, tag 9 in 10",
            DeviceFilter { status: Some(disabled), ..tags(&[("country", "US")]) },
            None,
        ),
        (
            "status 1 in 1,000, tag the last 1 in 10",
            DeviceFilter { status: Some(disabled), ..tags(&[("country", "NZ")]) },
            None,
        ),
        (
            "tag 10 devices, q in all",
            DeviceFilter { text: Some("till".to_owned()), ..tags(&[("campaign", "spring")]) },
            None,
        ),
        (
            "tag 9 in 10, q one device",
            DeviceFilter { text: Some("12345-007".to_owned()), ..tags(&[("country", "US")]) },
            None,
        ),
        (
            "tag 9 in 10, q in the last 1 in 10, no device",
            DeviceFilter { text: Some("auckland".to_owned()), ..tags(&[("country", "US")]) },
            None,
        ),
    ]
}

/// `Execution Time: 0.123 ms`
fn milliseconds(plan: &[String]) -> f64 {
    let line = plan.iter().find(|line| line.contains("Execution Time")).expect("a plan with its time");
    line.split_whitespace().nth_back(1).and_then(|number| number.parse().ok()).expect("a number")
}
