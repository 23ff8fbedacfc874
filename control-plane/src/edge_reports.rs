//! Takes up what the edge has left in KV: reports whose POST was lost, because the control plane was down, say.
//!
//! Every report lies there, also when its POST has been answered, until it is found here: taking it up once more changes
//! nothing, and then it is deleted. Of all control planes on a database one does it at a time.

use std::time::Duration;

use keypost_shared::edge_report::{EdgeReport, SignedReport};
use keypost_shared::kv_key::EdgeKey;
use sqlx::{Connection, PgConnection};
use tokio::task::JoinHandle;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use crate::kv::{KvApi, KvError};
use crate::publisher::pace::{CALL_PERIOD, Haste, Pace};
use crate::service::Context;
use crate::service::edge_report::{self, ReportFailure};
use crate::service::revocation::{self, Outcome};
use crate::store::{self, AdvisoryLock, StoreError};

/// The most values of one read: all of them together are an answer that the KV client still takes.
const READ_AT_ONCE: usize = 32;
/// The least pause for each page of names: of the calls that KV allows, a fifth at most goes into looking.
const PAUSE_FOR_A_PAGE: Duration = Duration::from_millis(1250);
/// The most pages of one search: a million keys. What is beyond them has its turn once these are gone.
const MOST_PAGES: usize = 1000;

/// What it works with.
pub struct EdgeReports {
    /// The rules.
    pub context: Context,
    /// KV.
    pub kv: KvApi,
    /// How often KV is searched.
    pub interval: Duration,
}

/// The search at work.
pub struct RunningEdgeReports {
    stop: CancellationToken,
    task: JoinHandle<()>,
}

/// Why a search broke off. The next one begins again.
#[derive(Debug, thiserror::Error)]
pub enum SearchError {
    /// KV.
    #[error(transparent)]
    Kv(#[from] KvError),
    /// The database.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// What a search has found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Found {
    /// Reports that were taken up.
    pub taken_up: usize,
    /// What no edge has signed.
    pub junk: usize,
    /// How many pages of names there were.
    pub pages: u32,
}

impl EdgeReports {
    /// Sets it to work on the current runtime.
    pub fn start(self) -> RunningEdgeReports {
        let stop = CancellationToken::new();
        let told = stop.clone();
        let task = tokio::spawn(async move {
            let mut pause = self.interval;
            while told.run_until_cancelled(sleep(pause)).await.is_some() {
                let searched = told.run_until_cancelled(self.search()).await;
                if let Some(Ok(found)) = &searched {
                    // Where much lies there, revocations above all, it is looked for less often: each page is a call.
                    pause = self.interval.max(PAUSE_FOR_A_PAGE * found.pages);
                }
                match searched {
                    Some(Ok(Found { taken_up: 0, junk: 0, .. })) | None => {}
                    Some(Ok(found)) => tracing::info!(?found, "reports of the edge were in KV"),
                    Some(Err(error)) => {
                        tracing::warn!(%error, "looking for reports of the edge in KV failed, and will be tried again");
                    }
                }
            }
        });
        RunningEdgeReports { stop, task }
    }

    /// Takes up all that is there, unless another control plane is about it.
    pub async fn search(&self) -> Result<Found, SearchError> {
        let mut left = None;
        let searched = self.search_and_count(&mut left).await;
        // Also where it broke off: what it had seen by then is still there.
        self.context.metrics.edge_reports_waiting(left);
        searched
    }

    /// Searches. `left` is how many of the names that were listed are still there; none where nothing was listed.
    async fn search_and_count(&self, left: &mut Option<usize>) -> Result<Found, SearchError> {
        // Not a connection of the pool's, which are there for requests. The lock ends with it, whatever happens.
        let options = self.context.db.connect_options();
        let mut connection = PgConnection::connect_with(options.as_ref()).await.map_err(StoreError::from)?;
        let found = if store::try_lock_for_connection(&mut connection, AdvisoryLock::EdgeReports).await? {
            self.take_up_all(left).await
        } else {
            Ok(Found::default())
        };
        store::unlock_and_close(connection).await?;
        found
    }

    async fn take_up_all(&self, left: &mut Option<usize>) -> Result<Found, SearchError> {
        let mut found = Found::default();
        let mut cursor = None;
        for _ in 0..MOST_PAGES {
            self.pace().await?;
            let page = self.kv.list(EdgeKey::PREFIX, cursor.as_deref()).await?;
            let names: Vec<String> = page.keys.into_iter().map(|key| key.name).collect();
            *left = Some(left.unwrap_or(0) + names.iter().filter(|name| waits(name)).count());
            found.pages += 1;
            for names in self.unknown(names).await?.chunks(READ_AT_ONCE) {
                self.context.metrics.edge_reports_waiting(*left);
                let gone = self.take_up(names, &mut found).await?;
                *left = left.map(|left| left.saturating_sub(gone));
            }
            cursor = page.cursor;
            if cursor.is_none() {
                break;
            }
        }
        Ok(found)
    }

    /// Waits for a place among the account's calls.
    async fn pace(&self) -> Result<(), StoreError> {
        Pace::new(self.context.db.clone(), CALL_PERIOD).call(Haste::CanWait).await
    }

    /// What has not been taken up. Revocations stay in KV until their tokens have expired, so most of them are known.
    async fn unknown(&self, names: Vec<String>) -> Result<Vec<String>, SearchError> {
        let revocation = |name: &String| match name.parse() {
            Ok(EdgeKey::Revocation(pool, jti)) => Some((pool, jti)),
            _ => None,
        };
        let revocations: Vec<_> = names.iter().filter_map(revocation).collect();
        let known = revocation::known(&self.context, &revocations).await?;
        Ok(names.into_iter().filter(|name| !revocation(name).is_some_and(|it| known.contains(&it))).collect())
    }

    /// Takes these up, and says how many are gone.
    async fn take_up(&self, names: &[String], found: &mut Found) -> Result<usize, SearchError> {
        let mut done = Vec::new();
        for (name, value) in self.values(names).await? {
            if self.take_up_one(&name, &value, found).await? {
                done.push(name);
            }
        }
        if !done.is_empty() {
            self.pace().await?;
            self.kv.delete_named(&done).await?;
        }
        Ok(done.iter().filter(|name| waits(name)).count())
    }

    /// The values. One that KV will not hand out keeps nobody from the others.
    async fn values(&self, names: &[String]) -> Result<Vec<(String, String)>, SearchError> {
        self.pace().await?;
        match self.kv.values(names).await {
            Ok(values) => Ok(values.into_iter().collect()),
            Err(error @ (KvError::NotSent(_) | KvError::RateLimited { .. })) => Err(error.into()),
            Err(error) if names.len() <= 1 => {
                tracing::warn!(%error, "a report of the edge in KV cannot be read");
                Ok(Vec::new())
            }
            Err(_) => {
                let (first, second) = names.split_at(names.len() / 2);
                let mut values = Box::pin(self.values(first)).await?;
                values.extend(Box::pin(self.values(second)).await?);
                Ok(values)
            }
        }
    }

    /// Takes one up. Says whether it is to be deleted.
    async fn take_up_one(&self, name: &str, value: &str, found: &mut Found) -> Result<bool, SearchError> {
        let report = name
            .parse::<EdgeKey>()
            .ok()
            .and_then(|key| SignedReport::verify_kv(value, &key, &self.context.edge_secrets).ok());
        // Whoever can write to KV can put anything here. A real report that cannot be read comes again with the next
        // token of its device.
        let report = match report {
            Some(EdgeReport::Device(report)) => report,
            // It stays until its token has expired: the edge reads it.
            Some(EdgeReport::Revocation(report)) => {
                if revocation::take_up(&self.context, &report).await? == Outcome::Revoked {
                    found.taken_up += 1;
                }
                return Ok(false);
            }
            None => {
                found.junk += 1;
                self.context.metrics.edge_report("junk");
                return Ok(true);
            }
        };
        match edge_report::take_up(&self.context, &report).await {
            Ok(_) => {
                found.taken_up += 1;
                Ok(true)
            }
            Err(ReportFailure::Store(error)) => Err(error.into()),
            Err(ReportFailure::Internal(reason)) => {
                tracing::error!(reason, "a report of the edge was not taken up");
                Ok(false)
            }
        }
    }
}

/// Whether what has this name waits to be taken up: a revocation stays in KV for the edge.
fn waits(name: &str) -> bool {
    !matches!(name.parse(), Ok(EdgeKey::Revocation(..)))
}

impl RunningEdgeReports {
    /// Stops. A report that is just being taken up is taken up by the next start.
    pub async fn stop(self) {
        self.stop.cancel();
        if let Err(error) = self.task.await {
            tracing::error!(%error, "the search for reports of the edge broke off");
        }
    }
}
