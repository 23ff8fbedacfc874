//! The SQL. One file per table or question; nothing else in the control plane contains a query.
//!
//! What belongs to an organization is asked for with an [`OrgScope`](crate::service::access::OrgScope), which only an
//! authorised caller has, and the owner stands in every `where`. What the publisher and the activation of devices read is
//! not a caller's and has questions of its own.

pub mod api_key;
pub mod audit;
pub mod client_pool;
pub mod deleted_pool;
pub mod denied_certificate;
pub mod device;
pub mod device_app;
pub mod device_certificate;
pub mod device_import;
pub mod device_list;
pub mod environment;
pub mod idempotency;
pub mod kms_key;
pub mod kv_pace;
pub mod oauth_client;
pub mod organization;
pub mod otp;
pub mod publication;
pub mod publisher_key;
pub mod purge;
pub mod revoked_record;
pub mod revoked_token;
pub mod root_key;
pub mod sealed_key;
pub mod service_client;
pub mod signing_key;
pub mod snapshot;
pub mod sso;
pub mod status_block;
pub mod sync_job;
pub mod trust_anchor;

use std::str::FromStr;
use std::time::Duration;

use keypost_shared::certificate::Fingerprint;
use keypost_shared::id::IdError;
use sqlx::migrate::{MigrateError, Migrator};
use sqlx::postgres::{PgConnection, PgPoolOptions};
use sqlx::{Connection, PgPool};

use crate::config::DatabaseConfig;

static MIGRATIONS: Migrator = sqlx::migrate!("../migrations");

/// How long a request waits for a database connection.
const ACQUIRE_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a connection may have been idle before it is asked whether it is still there.
const ASK_AGAIN: Duration = Duration::from_secs(1);

/// Why the database did not answer.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// It cannot be reached, has no connection free, or gave the transaction up: trying again later may help.
    #[error("the database is not available: {0}")]
    Unavailable(#[source] sqlx::Error),
    /// It refused the statement.
    #[error("the database refused: {0}")]
    Refused(#[source] sqlx::Error),
    /// A row holds what no version of Keypost writes.
    #[error("{column} holds a value that cannot be read: {reason}")]
    Corrupt {
        /// The table's column.
        column: &'static str,
        /// What is wrong with it.
        reason: String,
    },
}

impl From<sqlx::Error> for StoreError {
    fn from(error: sqlx::Error) -> Self {
        let passing = match &error {
            sqlx::Error::Io(_)
            | sqlx::Error::Tls(_)
            | sqlx::Error::PoolTimedOut
            | sqlx::Error::PoolClosed
            | sqlx::Error::WorkerCrashed
            | sqlx::Error::BeginFailed => true,
            // Connection exceptions (08), insufficient resources (53), operator intervention and statement timeouts
            // (57), deadlocks and serialization failures (40), a lock that was not to be had (55P03): none of them is
            // the request's fault.
            sqlx::Error::Database(error) => error.code().is_some_and(|code| {
                ["08", "53", "57", "40", "55P03"].iter().any(|class| code.starts_with(class))
            }),
            _ => false,
        };
        if passing { Self::Unavailable(error) } else { Self::Refused(error) }
    }
}

impl StoreError {
    /// A value that cannot be read, or not be written as it must be.
    pub(crate) fn unreadable(column: &'static str, reason: impl std::fmt::Display) -> Self {
        corrupt(column, reason)
    }

    /// Whether the statement would have made a second row of what may be there once.
    pub fn is_duplicate(&self) -> bool {
        self.database_error().is_some_and(|error| error.is_unique_violation())
    }

    /// Whether the statement refers to a row that is not there (any more).
    pub fn is_dangling(&self) -> bool {
        self.database_error().is_some_and(|error| error.is_foreign_key_violation())
    }

    /// The constraint that the statement would have broken.
    pub fn constraint(&self) -> Option<&str> {
        self.database_error()?.constraint()
    }

    /// Whether PostgreSQL gave the transaction up because of others (class 40), so that it can be tried again as it was.
    pub fn was_rolled_back(&self) -> bool {
        // 40003 is that nobody knows how it ended.
        self.database_error()
            .is_some_and(|error| error.code().is_some_and(|code| code.starts_with("40") && code != "40003"))
    }

    fn database_error(&self) -> Option<&dyn sqlx::error::DatabaseError> {
        match self {
            Self::Refused(sqlx::Error::Database(error)) | Self::Unavailable(sqlx::Error::Database(error)) => {
                Some(error.as_ref())
            }
            _ => None,
        }
    }
}

/// Opens the pool of connections. Nothing is connected until somebody asks.
pub fn connect(config: &DatabaseConfig) -> PgPool {
    let options = config.options.clone().application_name("keypost").options([
        ("statement_timeout", "20s"),
        ("lock_timeout", "10s"),
        ("idle_in_transaction_session_timeout", "60s"),
        ("timezone", "UTC"),
    ]);
    PgPoolOptions::new()
        .max_connections(config.connections)
        .acquire_timeout(ACQUIRE_TIMEOUT)
        .test_before_acquire(false)
        .before_acquire(|connection, about| {
            // It was asked when it came back: asking at once again would only take a request's time.
            Box::pin(async move { Ok(about.idle_for < ASK_AGAIN || connection.ping().await.is_ok()) })
        })
        .connect_lazy_with(options)
}

/// Brings the schema up to date. Several processes may do so at once: PostgreSQL's advisory lock lets one at a time.
pub async fn migrate(pool: &PgPool) -> Result<(), MigrateError> {
    // A connection of its own: where the pool would only say that it has waited in vain, this says why.
    let mut connection = PgConnection::connect_with(&pool.connect_options()).await?;
    // A migration may take longer than a request may, and waits for its turn as long as it must.
    sqlx::raw_sql("set statement_timeout = 0; set lock_timeout = 0").execute(&mut connection).await?;
    let migrated = MIGRATIONS.run(&mut connection).await;
    connection.close().await?;
    migrated
}

/// Whether the database answers.
pub async fn ping(pool: &PgPool) -> Result<(), StoreError> {
    sqlx::query_scalar!("select 1").fetch_one(pool).await?;
    Ok(())
}

/// Takes a lock that lasts until the transaction ends, waiting for it.
pub async fn lock(tx: &mut PgConnection, lock: AdvisoryLock) -> Result<(), StoreError> {
    sqlx::query!("select pg_advisory_xact_lock($1)", lock as i64).execute(tx).await?;
    Ok(())
}

/// Takes a lock that lasts until the transaction ends, or says that another process has it.
pub async fn try_lock(tx: &mut PgConnection, lock: AdvisoryLock) -> Result<bool, StoreError> {
    let taken =
        sqlx::query_scalar!("select pg_try_advisory_xact_lock($1)", lock as i64).fetch_one(tx).await?;
    Ok(taken == Some(true))
}

/// Takes a lock that lasts until the connection ends, or says that another process has it.
pub async fn try_lock_for_connection(
    connection: &mut PgConnection,
    lock: AdvisoryLock,
) -> Result<bool, StoreError> {
    let taken =
        sqlx::query_scalar!("select pg_try_advisory_lock($1)", lock as i64).fetch_one(connection).await?;
    Ok(taken == Some(true))
}

/// Closes a connection that has taken a lock. The lock is free by then: the server sees the end of a connection later than
/// who ends it.
pub async fn unlock_and_close(mut connection: PgConnection) -> Result<(), StoreError> {
    sqlx::query!("select pg_advisory_unlock_all()").execute(&mut connection).await?;
    Ok(connection.close().await?)
}

/// The things that one process at a time may do.
#[derive(Clone, Copy, Debug)]
#[repr(i64)]
pub enum AdvisoryLock {
    /// Make the first API key.
    FirstApiKey = 0x6b70_0001,
    /// Take the steps of the publisher keys' schedule.
    PublisherKeys = 0x6b70_0002,
    /// Make the root.
    Root = 0x6b70_0003,
    /// Remove what nobody needs any more.
    Housekeeping = 0x6b70_0004,
    /// Take up what the edge has left in KV.
    EdgeReports = 0x6b70_0005,
    /// Look after the signing keys of pools.
    SigningKeys = 0x6b70_0006,
    /// Work on the jobs that compare or rebuild all documents.
    SyncJobs = 0x6b70_0015,
}

/// Reads an id that the control plane itself wrote.
pub(crate) fn id<T: FromStr<Err = IdError>>(column: &'static str, text: &str) -> Result<T, StoreError> {
    text.parse().map_err(|error: IdError| corrupt(column, error))
}

fn corrupt(column: &'static str, reason: impl std::fmt::Display) -> StoreError {
    StoreError::Corrupt { column, reason: reason.to_string() }
}

/// A stored hash.
fn hash(column: &'static str, bytes: Vec<u8>) -> Result<[u8; 32], StoreError> {
    bytes.try_into().map_err(|_| corrupt(column, "not 32 bytes"))
}

/// A stored fingerprint of a certificate.
fn fingerprint(column: &'static str, bytes: Vec<u8>) -> Result<Fingerprint, StoreError> {
    hash(column, bytes).map(Fingerprint::from_bytes)
}
