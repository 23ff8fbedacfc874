//! The first API key.

use std::sync::Arc;

use keypost::config::Mode;
use keypost::crypto_at_rest::MasterKey;
use keypost::entropy::SystemEntropy;
use keypost::key_maker::KeyMaker;
use keypost::metrics::Metrics;
use keypost::publisher::Publications;
use keypost::service::Context;
use keypost::service::api_key::{authenticate, ensure_first};
use keypost::service::audit::RequestSource;
use keypost::service::sso::password::{PasswordCost, Passwords};
use keypost_shared::edge_report::SharedSecret;
use keypost_shared::secret::{ApiKey, KeyKind};
use keypost_shared::signing_key::Times;
use rand_core::OsRng;

use crate::support::{TestClock, TestDatabase, no_kms, secret};

fn context(database: &TestDatabase) -> Context {
    Context {
        db: database.pool.clone(),
        clock: Arc::new(TestClock::default()),
        entropy: Arc::new(SystemEntropy),
        master_key: MasterKey::parse(&secret(1)).unwrap(),
        metrics: Metrics::new(),
        passwords: Passwords::new(PasswordCost::default(), Metrics::new()),
        api_key_uses: keypost::service::api_key_use::ApiKeyUses::default(),
        publications: Publications::new(database.pool.clone(), Publications::PATIENCE),
        edge_url: String::new(),
        public_url: String::new(),
        mode: Mode::Dev,
        key_maker: KeyMaker {
            master_key: MasterKey::parse(&secret(1)).unwrap(),
            entropy: Arc::new(SystemEntropy),
            clock: Arc::new(TestClock::default()),
            kms: no_kms(&Metrics::new()),
            db: database.pool.clone(),
        },
        key_times: Times::default(),
        kms: no_kms(&Metrics::new()),
        edge_secrets: SharedSecret::parse_list(&secret(3)).unwrap(),
        late_after: std::time::Duration::from_secs(300),
        sso: Default::default(),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_first_start_makes_one_key_and_later_ones_none() {
    let database = TestDatabase::create().await;
    let context = context(&database);
    let starts = tokio::join!(
        ensure_first(&context, None),
        ensure_first(&context, None),
        ensure_first(&context, None)
    );
    let made: Vec<ApiKey> = [starts.0, starts.1, starts.2].into_iter().filter_map(Result::unwrap).collect();
    assert_eq!(made.len(), 1, "of three starts at once exactly one makes it");
    let caller = authenticate(&context, made[0].expose(), nowhere()).await.unwrap();
    assert!(caller.org.is_none() && caller.permissions.is_none());
    assert!(ensure_first(&context, None).await.unwrap().is_none());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_configured_key_is_added_once_and_again_if_it_is_missing() {
    let database = TestDatabase::create().await;
    let context = context(&database);
    let key = ApiKey::generate(KeyKind::Admin, &mut OsRng);
    for _ in 0..3 {
        assert!(ensure_first(&context, Some(&key)).await.unwrap().is_none(), "it is not shown");
    }
    assert_eq!(database.number("select count(*) from api_key").await, 1);
    assert!(authenticate(&context, key.expose(), nowhere()).await.is_ok());
    let another = ApiKey::generate(KeyKind::Admin, &mut OsRng);
    ensure_first(&context, Some(&another)).await.unwrap();
    assert!(authenticate(&context, another.expose(), nowhere()).await.is_ok());
    assert_eq!(database.number("select count(*) from api_key").await, 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_database_holds_a_hash_and_not_the_key() {
    let database = TestDatabase::create().await;
    let key = ensure_first(&context(&database), None).await.unwrap().unwrap();
    let row: String = sqlx::query_scalar("select row_to_json(api_key)::text from api_key")
        .fetch_one(&database.pool)
        .await
        .unwrap();
    assert!(!row.contains(key.expose()), "{row}");
    assert!(row.contains(key.display_prefix()));
}

fn nowhere() -> RequestSource {
    RequestSource { address: "192.0.2.1".parse().unwrap(), request_id: None }
}
