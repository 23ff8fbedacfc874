//! Work on all documents, asked for by an administrator: a rebuild marks every one of them, a verification compares what
//! KV lists with what the database says, and marks what differs.
//!
//! Of all control planes on a database one works at a time. A job goes on in pieces: each is one transaction with its
//! marks and with how far the job is, so that a crash repeats nothing and loses nothing. No piece holds more than a page.
//!
//! A list of KV shows metadata, not values: a verification finds documents that are missing, older, or not the ones that
//! were written, but not a text that was spoilt under metadata that are right. A rebuild writes everything anew.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use base64ct::{Base64UrlUnpadded, Encoding};
use keypost_shared::kv_key::{EdgeKey, KvKey};
use sqlx::{Connection, PgConnection};
use time::OffsetDateTime;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::Publisher;
use super::batch::{self, BatchError};
use super::pace::{Haste, Pace, backoff};
use crate::kv::{KvError, Listed, ListedKey, Metadata};
use crate::metrics::Repair;
use crate::store::publication::{Expected, Priority};
use crate::store::sync_job::{JobKind, JobState, SyncJob};
use crate::store::{self, AdvisoryLock, StoreError};

/// The keys of a piece: as many as a page of KV's list has.
const PIECE: u16 = 1_000;
/// What all keys of Keypost begin with. What begins otherwise is left alone.
const PREFIX: &str = "v1/";
/// The families that Keypost has documents in.
const FAMILIES: [&str; 5] = ["v1/pool/", "v1/client/", "v1/device/", "v1/revoked/", "v1/status/"];

pub(super) struct Jobs {
    publisher: Arc<Publisher>,
    pace: Arc<Pace>,
}

/// Why a piece failed.
#[derive(Debug, thiserror::Error)]
enum PieceError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Kv(#[from] KvError),
    #[error(transparent)]
    Batch(#[from] BatchError),
    /// Trying again would not help.
    #[error("KV does not list its keys in their order: {0:?} comes after {1:?}")]
    NotInOrder(String, String),
}

impl From<sqlx::Error> for PieceError {
    fn from(error: sqlx::Error) -> Self {
        Self::Store(error.into())
    }
}

/// What a piece of a verification has found.
#[derive(Default)]
struct Findings {
    missing: BTreeSet<KvKey>,
    differing: BTreeSet<KvKey>,
    unowned: BTreeSet<KvKey>,
    /// What stands where documents are, under names that no document can have.
    junk: Vec<String>,
    strange: i64,
    skipped: i64,
    /// What agrees with what was written last, and when that was: it remains to be seen whether that is still right.
    agreeing: Vec<(KvKey, OffsetDateTime)>,
}

impl Jobs {
    pub(super) fn new(publisher: Arc<Publisher>, pace: Arc<Pace>) -> Self {
        Self { publisher, pace }
    }

    /// Works on what is asked for until told to stop.
    pub(super) async fn run(self, stop: CancellationToken) {
        let mut wakes = self.publisher.publications.subscribe_wakes();
        let mut failing = false;
        while !stop.is_cancelled() {
            wakes.borrow_and_update();
            match stop.run_until_cancelled(self.work()).await {
                None => return,
                Some(Ok(())) => failing = false,
                Some(Err(error)) => {
                    if !failing {
                        tracing::warn!(%error, "work on all documents stands still");
                    }
                    failing = true;
                }
            }
            let woken = timeout(self.publisher.settings.poll, wakes.changed());
            stop.run_until_cancelled(woken).await;
        }
    }

    /// Works on the jobs that are running until there is none, unless another control plane is about it.
    async fn work(&self) -> Result<(), StoreError> {
        let mut connection = self.publisher.db.acquire().await?;
        if store::sync_job::running(&mut connection).await?.is_empty() {
            return Ok(());
        }
        drop(connection);
        // Not a connection of the pool's, which are there for requests. The lock ends with it, whatever happens.
        let options = self.publisher.db.connect_options();
        let mut connection = PgConnection::connect_with(options.as_ref()).await?;
        if store::try_lock_for_connection(&mut connection, AdvisoryLock::SyncJobs).await? {
            loop {
                let jobs = store::sync_job::running(&mut connection).await?;
                if jobs.is_empty() {
                    break;
                }
                for job in jobs {
                    self.advance(&mut connection, job).await?;
                }
            }
        }
        store::unlock_and_close(connection).await
    }

    /// One piece of a job.
    async fn advance(&self, connection: &mut PgConnection, mut job: SyncJob) -> Result<(), StoreError> {
        let done = match job.kind {
            JobKind::Rebuild => self.mark_piece(connection, job.clone()).await,
            JobKind::Verify => self.compare_page(connection, job.clone()).await,
        };
        let Err(error) = done else { return Ok(()) };
        let settings = &self.publisher.settings;
        let reason: String = error.to_string();
        tracing::warn!(job = %job.id, kind = job.kind.as_str(), reason, "work on all documents failed");
        // What had been done by then is written down: the job as it stands in the database goes on.
        if let Some(current) =
            store::sync_job::running(connection).await?.into_iter().find(|other| other.id == job.id)
        {
            job = current;
        }
        match error {
            PieceError::NotInOrder(..) => {
                job.state = JobState::Failed;
                job.finished_at = Some(self.publisher.clock.now());
            }
            // A cursor does not last for ever: the list begins anew, and what has been dealt with is passed over.
            PieceError::Kv(KvError::Refused { .. }) => job.list_cursor = None,
            PieceError::Kv(KvError::RateLimited { retry_after: Some(pause) }) => {
                self.pace.be_quiet_for(pause).await?
            }
            _ => {}
        }
        let attempts = job.attempts.unsigned_abs();
        job.attempts = job.attempts.saturating_add(1);
        job.last_error = Some(reason);
        store::sync_job::update(connection, &job).await?;
        let mut rng = self.publisher.entropy.rng();
        tokio::time::sleep(backoff(settings.first_backoff, settings.longest_backoff, attempts, &mut rng))
            .await;
        Ok(())
    }

    /// Marks the next documents of a rebuild.
    async fn mark_piece(&self, connection: &mut PgConnection, mut job: SyncJob) -> Result<(), PieceError> {
        let now = self.publisher.clock.now();
        let mut tx = connection.begin().await?;
        let page = store::publication::mark_page(&mut tx, &job.after, PIECE, job.started_at, now).await?;
        job.counts.checked += page.looked_at;
        job.counts.marked += page.marked;
        match page.last {
            Some(last) => job.after = last,
            None => self.finish(&mut job, now),
        }
        job.attempts = 0;
        job.last_error = None;
        store::sync_job::update(&mut tx, &job).await?;
        tx.commit().await?;
        self.publisher.publications.wake();
        Ok(())
    }

    fn finish(&self, job: &mut SyncJob, now: OffsetDateTime) {
        job.state = JobState::Done;
        job.finished_at = Some(now);
        tracing::info!(job = %job.id, kind = job.kind.as_str(), counts = ?job.counts, "work on all documents is done");
    }

    /// Compares the next page of KV's list.
    async fn compare_page(&self, connection: &mut PgConnection, mut job: SyncJob) -> Result<(), PieceError> {
        while let Some(pause) = self.pace.quiet_for().await? {
            tokio::time::sleep(pause).await;
        }
        self.pace.call(Haste::CanWait).await?;
        // What was written from here on may or may not be in the list.
        let judged_before = self.publisher.clock.now() - self.publisher.settings.list_lag;
        let Listed { keys, cursor } = self.publisher.kv.list(PREFIX, job.list_cursor.as_deref()).await?;
        in_order(&keys)?;
        let page_end = cursor.as_ref().and_then(|_| keys.last()).map(|key| key.name.clone());
        let listed: BTreeMap<&str, &Option<Metadata>> =
            keys.iter().map(|key| (key.name.as_str(), &key.metadata)).collect();
        // As many rows may lie in the page's range as there are documents: they come in pieces too.
        loop {
            let mut tx = connection.begin().await?;
            let rows = store::publication::expected(&mut tx, &job.after, page_end.as_deref(), PIECE).await?;
            tx.commit().await?;
            let all = rows.len() < usize::from(PIECE);
            let end = if all { page_end.clone() } else { rows.last().map(|row| row.key.to_string()) };
            let names = listed
                .iter()
                .filter(|(name, _)| {
                    **name > job.after.as_str() && end.as_deref().is_none_or(|end| **name <= end)
                })
                .map(|(name, metadata)| (*name, *metadata));
            let findings = compare(names.collect(), &rows, judged_before);
            let found = self.settle(connection, &mut job, rows.len(), findings, end, all, &cursor).await;
            found?;
            if all {
                return Ok(());
            }
        }
    }

    /// Looks once more at what agrees, marks what does not, and writes down how far the job is.
    #[expect(clippy::too_many_arguments, reason = "it is the second half of one function")]
    async fn settle(
        &self,
        connection: &mut PgConnection,
        job: &mut SyncJob,
        rows: usize,
        mut findings: Findings,
        end: Option<String>,
        page_is_done: bool,
        cursor: &Option<String>,
    ) -> Result<(), PieceError> {
        let current = batch::digests(&self.publisher, &findings.agreeing).await?;
        findings.differing.extend(current.outdated);
        if !findings.junk.is_empty() {
            self.pace.call(Haste::CanWait).await?;
            self.publisher.kv.delete_named(&findings.junk).await?;
        }
        let now = self.publisher.clock.now();
        let marked: BTreeSet<&KvKey> =
            findings.missing.iter().chain(&findings.differing).chain(&findings.unowned).collect();
        let marked: Vec<KvKey> = marked.into_iter().cloned().collect();
        let count = |number: usize| i64::try_from(number).unwrap_or(i64::MAX);
        job.counts.checked += count(rows);
        job.counts.marked += count(marked.len());
        job.counts.missing += count(findings.missing.len());
        job.counts.differing += count(findings.differing.len());
        job.counts.unowned += count(findings.unowned.len() + findings.junk.len());
        job.counts.skipped += findings.skipped;
        job.counts.strange += findings.strange;
        job.attempts = 0;
        job.last_error = None;
        match (&end, page_is_done, cursor) {
            // A list that began anew may not have come as far yet as the job is.
            (Some(end), true, cursor) => {
                job.after = std::mem::take(&mut job.after).max(end.clone());
                job.list_cursor.clone_from(cursor);
            }
            (Some(end), false, _) => job.after.clone_from(end),
            (None, ..) => self.finish(job, now),
        }
        let mut tx = connection.begin().await?;
        if !marked.is_empty() {
            store::publication::mark(&mut tx, &marked, Priority::Change, now).await?;
        }
        store::sync_job::update(&mut tx, job).await?;
        tx.commit().await?;
        for key in &marked {
            tracing::info!(%key, "KV does not have this document as it should be");
        }
        let metrics = &self.publisher.metrics;
        metrics.repaired(Repair::Missing, findings.missing.len());
        metrics.repaired(Repair::Differing, findings.differing.len());
        metrics.repaired(Repair::Unowned, findings.unowned.len() + findings.junk.len());
        if !marked.is_empty() {
            self.publisher.publications.wake();
        }
        Ok(())
    }
}

/// Cloudflare lists keys in the order of their bytes. What is missing could not be found otherwise.
fn in_order(keys: &[ListedKey]) -> Result<(), PieceError> {
    for pair in keys.windows(2) {
        if let [first, second] = pair
            && first.name >= second.name
        {
            return Err(PieceError::NotInOrder(second.name.clone(), first.name.clone()));
        }
    }
    Ok(())
}

/// Compares a stretch of KV's list with what should be there. What was written after `judged_before`, or is to be
/// written anyway, is not judged.
fn compare(
    mut listed: BTreeMap<&str, &Option<Metadata>>,
    expected: &[Expected],
    judged_before: OffsetDateTime,
) -> Findings {
    let mut findings = Findings::default();
    for row in expected {
        let in_kv = listed.remove(row.key.to_string().as_str());
        let judged = row.published_at.filter(|at| !row.is_pending && *at < judged_before);
        match (judged, &row.digest, in_kv) {
            (None, None, None) | (Some(_), None, None) => {}
            (None, ..) => findings.skipped += 1,
            (Some(_), Some(_), None) => {
                findings.missing.insert(row.key.clone());
            }
            (Some(_), None, Some(_)) => {
                findings.unowned.insert(row.key.clone());
            }
            (Some(at), Some(digest), Some(metadata)) => {
                if metadata.as_ref().is_some_and(|metadata| agrees(metadata, digest, row)) {
                    findings.agreeing.push((row.key.clone(), at));
                } else {
                    findings.differing.insert(row.key.clone());
                }
            }
        }
    }
    for name in listed.into_keys() {
        if name.starts_with(EdgeKey::PREFIX) {
            continue;
        }
        match name.parse::<KvKey>() {
            Ok(key) => {
                findings.unowned.insert(key);
            }
            Err(_) if FAMILIES.iter().any(|family| name.starts_with(family)) => {
                findings.junk.push(name.to_owned())
            }
            // Perhaps a later version's.
            Err(_) => findings.strange += 1,
        }
    }
    findings
}

fn agrees(metadata: &Metadata, digest: &[u8; 32], row: &Expected) -> bool {
    let version = match row.version {
        Some(version) => metadata.version == version,
        None => metadata.version <= row.highest_version,
    };
    version && metadata.digest == Base64UrlUnpadded::encode_string(digest)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn at(seconds: u64) -> OffsetDateTime {
        OffsetDateTime::UNIX_EPOCH + Duration::from_secs(seconds)
    }

    fn row(key: &str, digest: Option<[u8; 32]>) -> Expected {
        Expected {
            key: key.parse().unwrap(),
            is_pending: false,
            version: digest.map(|_| 5),
            highest_version: 9,
            digest,
            published_at: Some(at(100)),
        }
    }

    fn metadata(version: u64, byte: u8) -> Option<Metadata> {
        Some(Metadata { version, digest: Base64UrlUnpadded::encode_string(&[byte; 32]) })
    }

    #[test]
    fn every_way_in_which_kv_may_differ_is_told_apart() {
        let pool = "6ba7b810-9dad-11d1-80b4-00c04fd430c8";
        let key = |name: &str| format!("v1/client/{pool}/{name}");
        let mut waiting = row(&key("g-pending"), Some([1; 32]));
        waiting.is_pending = true;
        let mut young = row(&key("h-young"), Some([1; 32]));
        young.published_at = Some(at(200));
        let mut unknown = row(&key("i-unknown-version"), Some([1; 32]));
        unknown.version = None;
        let mut ahead = row(&key("j-ahead"), Some([1; 32]));
        ahead.version = None;
        let expected = [
            row(&key("a-good"), Some([1; 32])),
            row(&key("b-missing"), Some([1; 32])),
            row(&key("c-older"), Some([1; 32])),
            row(&key("d-other"), Some([1; 32])),
            row(&key("e-bare"), Some([1; 32])),
            row(&key("f-deleted"), None),
            row(&key("f-gone"), None),
            waiting,
            young,
            unknown,
            ahead,
        ];
        let listed = [
            (key("a-good"), metadata(5, 1)),
            (key("c-older"), metadata(4, 1)),
            (key("d-other"), metadata(5, 2)),
            (key("e-bare"), None),
            (key("f-deleted"), metadata(5, 1)),
            (key("i-unknown-version"), metadata(9, 1)),
            (key("j-ahead"), metadata(10, 1)),
            (key("k-invented"), metadata(5, 1)),
            (format!("v1/client/{pool}/a/b"), None),
            (format!("v1/edge/{pool}/report/pos-1"), None),
            ("v1/later/thing".to_owned(), None),
        ];
        let listed = listed.iter().map(|(name, metadata)| (name.as_str(), metadata)).collect();
        let findings = compare(listed, &expected, at(150));
        let names = |keys: &BTreeSet<KvKey>| -> Vec<String> {
            keys.iter().map(|key| key.to_string().rsplit('/').next().unwrap().to_owned()).collect()
        };
        assert_eq!(names(&findings.missing), ["b-missing"]);
        assert_eq!(names(&findings.differing), ["c-older", "d-other", "e-bare", "j-ahead"]);
        assert_eq!(names(&findings.unowned), ["f-deleted", "k-invented"]);
        assert_eq!(findings.junk, [format!("v1/client/{pool}/a/b")]);
        assert_eq!((findings.skipped, findings.strange), (2, 1));
        let agreeing: BTreeSet<KvKey> = findings.agreeing.into_iter().map(|(key, _)| key).collect();
        assert_eq!(names(&agreeing), ["a-good", "i-unknown-version"]);
    }

    #[test]
    fn a_list_out_of_order_is_no_list() {
        let key = |name: &str| ListedKey { name: name.to_owned(), metadata: None };
        assert!(in_order(&[key("a"), key("b")]).is_ok());
        assert!(in_order(&[key("b"), key("a")]).is_err());
        assert!(in_order(&[key("a"), key("a")]).is_err());
    }
}
