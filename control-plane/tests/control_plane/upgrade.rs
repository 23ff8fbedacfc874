//! An upgrade from the schema before, while the version before goes on writing, loses nothing and stops nobody.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use keypost::clock::{Clock, SystemClock};
use keypost::config::RateLimitConfig;
use keypost::crypto_at_rest::{KeyPurpose, MasterKey};
use keypost::store;
use keypost_shared::document::ClientDocument;
use keypost_shared::host::PrivateKey;
use keypost_shared::id::{ClientId, PoolId};
use keypost_shared::kv_key::KvKey;
use keypost_shared::secret::{Otp, SecretHash, generate_secret};
use rand_core::OsRng;
use serde_json::json;
use sqlx::types::Json;
use sqlx::{PgConnection, PgPool};
use tokio::time::{Instant, sleep};
use uuid::Uuid;

use crate::support::{TestApp, TestDatabase, eventually, secret};

/// The longest that a write may wait for the migrations, on a machine that does other things too.
const LONGEST_WAIT: Duration = Duration::from_secs(5);
/// The devices that are there already: enough that building an index takes a while.
const DEVICES_BEFORE: i32 = 20_000;
const WRITERS: usize = 4;

/// What the version of schema 0001 does, in its own statements.
mod version_1 {
    use super::*;

    pub(super) async fn create_environment(db: &PgPool, master_key: &MasterKey, pool: PoolId) {
        let now = SystemClock.now();
        let mut tx = db.begin().await.unwrap();
        for statement in [
            "insert into organization (id, name, description, created_at, updated_at)
             values ('acme', 'Acme', null, now(), now())",
            "insert into environment
                 (org_id, id, name, description, tag_defaults, primary_server_url, server_urls, created_at, updated_at)
             values ('acme', 'prod', 'Production', null, '{\"country\": \"*\"}', null, '{}', now(), now())",
        ] {
            sqlx::query(statement).execute(&mut *tx).await.unwrap();
        }
        sqlx::query(
            "insert into client_pool (id, org_id, env_id, kind, created_at, updated_at)
             values ($1, 'acme', 'prod', 'device', $2, $2)",
        )
        .bind(pool.0)
        .bind(now)
        .execute(&mut *tx)
        .await
        .unwrap();
        for state in ["active", "next"] {
            let key = PrivateKey::generate(&mut OsRng);
            let sealed = master_key.seal(KeyPurpose::Pool(pool), &key, &mut OsRng).unwrap();
            sqlx::query(
                "insert into signing_key
                     (kid, org_id, pool_id, alg, backend, state, public_jwk, private_sealed, created_at, activated_at)
                 values ($1, 'acme', $2, 'ES256', 'local', $3, $4, $5, $6, $7)",
            )
            .bind(key.kid().as_str())
            .bind(pool.0)
            .bind(state)
            .bind(Json(key.public()))
            .bind(sealed)
            .bind(now)
            .bind((state == "active").then_some(now))
            .execute(&mut *tx)
            .await
            .unwrap();
        }
        mark(&mut tx, &KvKey::Pool(pool)).await.unwrap();
        tx.commit().await.unwrap();
    }

    /// A device with an app and a one-time password.
    pub(super) async fn register(
        db: &PgPool,
        pool: PoolId,
        device: &str,
        code_hmac: [u8; 32],
    ) -> sqlx::Result<ClientId> {
        let (now, app) =
            (SystemClock.now(), Uuid::from_u128(rand_core::RngCore::next_u64(&mut OsRng).into()));
        let client = ClientId::of_device_app(pool, &device.parse().unwrap(), &"client".parse().unwrap());
        let mut tx = db.begin().await?;
        sqlx::query(
            "insert into device
                 (org_id, env_id, id, name, description, metadata, tags, primary_server_url, server_urls, status,
                  last_activated_at, created_at, updated_at)
             values ('acme', 'prod', $1, 'Till', null, '{\"at\": \"checkout\"}'::text::json, '{\"country\": \"US\"}', null, '{}',
                     'registered', null, $2, $2)",
        )
        .bind(device)
        .bind(now)
        .execute(&mut *tx)
        .await?;
        sqlx::query(
            "insert into device_app
                 (id, org_id, env_id, device_id, client_app_id, name, description, created_at, updated_at)
             values ($1, 'acme', 'prod', $2, 'client', null, null, $3, $3)",
        )
        .bind(app)
        .bind(device)
        .bind(now)
        .execute(&mut *tx)
        .await?;
        sqlx::query(
            "insert into oauth_client
                 (client_id, org_id, env_id, pool_id, device_app_id, name, scopes, status, jwks, created_at, updated_at)
             values ($1, 'acme', 'prod', $2, $3, 'client', '{device}', 'enabled', null, $4, $4)",
        )
        .bind(client.as_str())
        .bind(pool.0)
        .bind(app)
        .bind(now)
        .execute(&mut *tx)
        .await?;
        sqlx::query(
            "insert into otp (device_app_id, org_id, code_hmac, created_at, expires_at, used_at, wrong_tries)
             values ($1, 'acme', $2, $3, $3 + interval '900 seconds', null, 0)",
        )
        .bind(app)
        .bind(code_hmac.as_slice())
        .bind(now)
        .execute(&mut *tx)
        .await?;
        mark(&mut tx, &KvKey::Client(pool, client.clone())).await?;
        tx.commit().await?;
        Ok(client)
    }

    /// Turns the password into a secret.
    pub(super) async fn activate(
        db: &PgPool,
        pool: PoolId,
        device: &str,
        client: &ClientId,
        code_hmac: [u8; 32],
        hash: &SecretHash,
    ) -> sqlx::Result<()> {
        let now = SystemClock.now();
        let mut tx = db.begin().await?;
        let used = sqlx::query(
            "update otp o
                set used_at = $2
               from device_app a
               join oauth_client c on c.org_id = a.org_id and c.env_id = a.env_id and c.device_app_id = a.id
              where o.code_hmac = $1 and o.used_at is null and o.expires_at > $2 and o.wrong_tries < 5
                and a.org_id = o.org_id and a.id = o.device_app_id",
        )
        .bind(code_hmac.as_slice())
        .bind(now)
        .execute(&mut *tx)
        .await?;
        assert_eq!(used.rows_affected(), 1);
        sqlx::query(
            "update device set status = 'active', last_activated_at = $2, updated_at = $2
              where org_id = 'acme' and env_id = 'prod' and id = $1 and status <> 'disabled'",
        )
        .bind(device)
        .bind(now)
        .execute(&mut *tx)
        .await?;
        sqlx::query(
            "update oauth_client
                set previous_secret_hash = secret_hash, previous_secret_expires_at = null,
                    secret_hash = $2, secret_created_at = $3, updated_at = $3
              where org_id = 'acme' and env_id = 'prod' and client_id = $1 and status = 'enabled'",
        )
        .bind(client.as_str())
        .bind(hash.as_bytes().as_slice())
        .bind(now)
        .execute(&mut *tx)
        .await?;
        mark(&mut tx, &KvKey::Client(pool, client.clone())).await?;
        tx.commit().await
    }

    async fn mark(tx: &mut PgConnection, key: &KvKey) -> sqlx::Result<()> {
        sqlx::query(
            "insert into publication as p (key, pool_id, generation, published_generation, priority, marked_at)
             values ($1, $2, 1, 0, 1, $3)
             on conflict (key) do update set generation = p.generation + 1, marked_at = least(p.marked_at, excluded.marked_at)",
        )
        .bind(key.to_string())
        .bind(key.pool().map(|pool| pool.0))
        .bind(SystemClock.now())
        .execute(tx)
        .await?;
        Ok(())
    }

    /// Many devices at once, with apps, clients, and passwords that have ended.
    pub(super) async fn fill(db: &PgPool, pool: PoolId) {
        let mut tx = db.begin().await.unwrap();
        for statement in [
            "insert into device (org_id, env_id, id, name, metadata, tags, server_urls, status, created_at, updated_at)
             select 'acme', 'prod', 'before-' || n, 'Till', '{}', '{}', '{}', 'registered', now(), now()
               from generate_series(1, $1) n where $2::uuid is not null",
            "insert into device_app (id, org_id, env_id, device_id, client_app_id, created_at, updated_at)
             select gen_random_uuid(), 'acme', 'prod', 'before-' || n, 'client', now(), now()
               from generate_series(1, $1) n where $2::uuid is not null",
            "insert into oauth_client
                 (client_id, org_id, env_id, pool_id, device_app_id, name, scopes, status, created_at, updated_at)
             select a.id::text, 'acme', 'prod', $2, a.id, 'client', '{device}', 'enabled', now(), now()
               from device_app a where $1 > 0",
            "insert into otp (device_app_id, org_id, code_hmac, created_at, expires_at, wrong_tries)
             select a.id, 'acme', sha256(a.id::text::bytea), now(), now() - interval '2 days', 0
               from device_app a where $1 > 0 and $2::uuid is not null",
        ] {
            sqlx::query(statement).bind(DEVICES_BEFORE).bind(pool.0).execute(&mut *tx).await.unwrap();
        }
        tx.commit().await.unwrap();
    }
}

/// A device that the version before has registered and activated: it was told that it was done.
#[derive(Clone)]
struct Acknowledged {
    device: String,
    client: ClientId,
    hash: String,
}

/// Clients of the version before, which write without a pause.
struct Load {
    stop: Arc<AtomicBool>,
    written: Arc<AtomicUsize>,
    longest: Arc<Mutex<Duration>>,
    tasks: Vec<tokio::task::JoinHandle<Vec<Acknowledged>>>,
}

impl Load {
    fn start(db: &PgPool, pool: PoolId) -> Self {
        let (stop, written) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let longest = Arc::new(Mutex::new(Duration::ZERO));
        let tasks = (0..WRITERS)
            .map(|writer| {
                let (db, stop, written) = (db.clone(), stop.clone(), written.clone());
                let longest = longest.clone();
                tokio::spawn(async move {
                    let mut done = Vec::new();
                    while !stop.load(Ordering::Relaxed) {
                        let device = format!("during-{writer}-{}", done.len());
                        let code = *SecretHash::of(device.as_bytes()).as_bytes();
                        let hash = generate_secret(&mut OsRng).hash();
                        let started = Instant::now();
                        let client =
                            version_1::register(&db, pool, &device, code).await.expect("it is registered");
                        let registered = started.elapsed();
                        version_1::activate(&db, pool, &device, &client, code, &hash)
                            .await
                            .expect("it is activated");
                        let activated = started.elapsed() - registered;
                        {
                            let mut longest = longest.lock().unwrap();
                            *longest = (*longest).max(registered).max(activated);
                        }
                        written.fetch_add(1, Ordering::Relaxed);
                        done.push(Acknowledged { device, client, hash: String::from(hash) });
                        // As many as there are would only make the rest of the test long.
                        sleep(Duration::from_millis(5)).await;
                    }
                    done
                })
            })
            .collect();
        Self { stop, written, longest, tasks }
    }

    async fn more(&self, devices: usize) {
        let enough = self.written.load(Ordering::Relaxed) + devices;
        eventually("the version before writes", async || {
            assert!(self.tasks.iter().all(|task| !task.is_finished()), "a write failed");
            self.written.load(Ordering::Relaxed) >= enough
        })
        .await;
    }

    async fn stop(self) -> (Vec<Acknowledged>, Duration) {
        self.stop.store(true, Ordering::Relaxed);
        let mut all = Vec::new();
        for task in self.tasks {
            all.extend(task.await.expect("no write failed"));
        }
        (all, *self.longest.lock().unwrap())
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_upgrade_from_the_first_schema_under_load_loses_nothing() {
    let database = TestDatabase::create_at(1).await;
    let master_key = MasterKey::parse(&secret(1)).unwrap();
    let pool = PoolId(Uuid::from_u128(0x1234));
    version_1::create_environment(&database.pool, &master_key, pool).await;
    version_1::fill(&database.pool, pool).await;
    let otp = Otp::generate(&mut OsRng);
    version_1::register(&database.pool, pool, "waiting", master_key.otp_hmac(&otp)).await.unwrap();

    let load = Load::start(&database.pool, pool);
    load.more(20).await;
    let migrated = "select count(*) from _sqlx_migrations where success";
    assert_eq!(database.number(migrated).await, 1);
    store::migrate(&database.pool).await.unwrap();
    // The version before is still there for a while, on the new schema.
    load.more(50).await;
    let (acknowledged, longest) = load.stop().await;
    assert!(longest < LONGEST_WAIT, "a write waited for {longest:?}");

    // The new version serves all that the version before was told to keep.
    let app = TestApp::start_on(database, &[], RateLimitConfig::default()).await;
    let devices = "/api/internal/org/acme/env/prod/device";
    let expected = acknowledged.len() as i64;
    let active = "select count(*) from device where status = 'active'";
    assert_eq!(app.database.number(active).await, expected);
    assert_eq!(
        app.database.number("select count(*) from oauth_client where secret_hash is not null").await,
        expected
    );
    assert_eq!(
        app.database.number("select count(*) from device").await,
        expected + i64::from(DEVICES_BEFORE) + 1
    );
    for one in acknowledged.iter().step_by(10) {
        let answer = app.call("GET", &format!("{devices}/{}", one.device), None).await;
        assert_eq!(
            (answer.status.as_u16(), &answer.json()["status"]),
            (200, &json!("active")),
            "{}",
            answer.text
        );
        assert_eq!(answer.json()["metadata"], json!({"at": "checkout"}));
    }
    for one in &acknowledged {
        let key = KvKey::Client(pool, one.client.clone());
        eventually("its document is published", async || app.kv.get(&key).is_some()).await;
        let document = app.kv.verified::<ClientDocument>(&app.publisher.root, &key).await.unwrap().document;
        let hashes: Vec<String> =
            document.secrets.iter().map(|secret| String::from(secret.sha256.clone())).collect();
        assert_eq!(hashes, [one.hash.as_str()], "{}", one.device);
    }
    let activated = app.activate(json!({"otp": otp.expose(), "deviceId": "waiting"})).await;
    assert_eq!(activated.status, 200, "{}", activated.text);
    let client = activated.json()["clientId"].as_str().unwrap().parse().unwrap();
    let key = KvKey::Client(pool, client);
    eventually("its document is published", async || app.kv.get(&key).is_some()).await;
}
