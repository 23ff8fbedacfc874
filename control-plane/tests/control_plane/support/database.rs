use std::str::FromStr;

use keypost::config::DatabaseConfig;
use keypost::store;
use rand_core::{OsRng, RngCore};
use sqlx::migrate::Migrator;
use sqlx::postgres::PgConnectOptions;
use sqlx::{AssertSqlSafe, ConnectOptions, PgPool};

/// A database of the test's own, with the schema, dropped at its end.
///
/// Dropping waits, so the test needs a runtime of several threads: on one thread, a connection that is just being made
/// would stand still half-way, and PostgreSQL waits for it.
pub(crate) struct TestDatabase {
    pub(crate) pool: PgPool,
    pub(crate) config: DatabaseConfig,
    admin: PgConnectOptions,
    name: String,
}

impl TestDatabase {
    pub(crate) async fn create() -> Self {
        let database = Self::create_empty().await;
        store::migrate(&database.pool).await.unwrap();
        database
    }

    /// With the schema as it was after the migration of that number.
    pub(crate) async fn create_at(version: i64) -> Self {
        let database = Self::create_empty().await;
        let all = sqlx::migrate!("../migrations");
        let until = all.iter().filter(|migration| migration.version <= version).cloned().collect();
        Migrator::with_migrations(until).run(&database.pool).await.unwrap();
        database
    }

    async fn create_empty() -> Self {
        let url = std::env::var("KEYPOST_TEST_DATABASE_URL")
            .expect("KEYPOST_TEST_DATABASE_URL is not set: run cargo xtask test");
        let admin =
            PgConnectOptions::from_str(&url).expect("KEYPOST_TEST_DATABASE_URL must be a PostgreSQL URL");
        let name = format!("keypost_test_{:016x}", OsRng.next_u64());
        let mut connection = admin.connect().await.expect("the test PostgreSQL must answer");
        sqlx::raw_sql(AssertSqlSafe(format!("create database {name}")))
            .execute(&mut connection)
            .await
            .unwrap();
        let config = DatabaseConfig { options: admin.clone().database(&name), connections: 10 };
        let pool = store::connect(&config);
        Self { pool, config, admin, name }
    }

    /// Runs a statement that no code of the control plane would.
    pub(crate) async fn execute(&self, statement: &str) -> sqlx::Result<u64> {
        let done = sqlx::raw_sql(AssertSqlSafe(statement)).execute(&self.pool).await?;
        Ok(done.rows_affected())
    }

    /// A number that a query finds.
    pub(crate) async fn number(&self, query: &str) -> i64 {
        sqlx::query_scalar(AssertSqlSafe(query)).fetch_one(&self.pool).await.unwrap()
    }
}

impl Drop for TestDatabase {
    fn drop(&mut self) {
        let (admin, name) = (self.admin.clone(), self.name.clone());
        // Dropping cannot wait on the test's own runtime.
        let dropped = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(drop_database(admin, name))
        });
        if let Ok(Err(error)) = dropped.join() {
            eprintln!("a test database was left behind: {error}");
        }
    }
}

async fn drop_database(admin: PgConnectOptions, name: String) -> sqlx::Result<()> {
    let mut connection = admin.connect().await?;
    let statement = AssertSqlSafe(format!("drop database if exists {name} with (force)"));
    sqlx::raw_sql(statement).execute(&mut connection).await?;
    Ok(())
}
