//! The namespace, its limits, and what is remembered of the calls.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use serde::Serialize;
use serde_json::Value;

use crate::{Fault, Limits, Options};

/// What stands at a key.
#[derive(Clone, Debug, PartialEq)]
pub struct Entry {
    /// The value; empty where values are not kept.
    pub value: String,
    /// The metadata; null where there is none.
    pub metadata: Value,
    /// When it ends, in Unix seconds.
    pub expiration: Option<u64>,
}

/// What a call wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CallKind {
    /// A bulk write.
    Put,
    /// A bulk delete.
    Delete,
    /// A list, or a read.
    Read,
}

/// A call that came.
#[derive(Clone, Debug)]
pub struct CallRecord {
    /// When.
    pub at: Instant,
    /// What it wanted.
    pub kind: CallKind,
    /// The keys of a bulk call, where calls are kept.
    pub keys: Vec<String>,
    /// How many.
    pub pairs: usize,
}

/// What can be said of all that was written.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// The calls of all kinds.
    pub calls: usize,
    /// The bulk writes and deletes.
    pub writes: usize,
    /// The pairs that were written.
    pub pairs: usize,
    /// The most calls in any ten seconds.
    pub most_calls_in_ten_seconds: usize,
    /// The limits that a caller has exceeded, in words, at most a hundred.
    pub exceeded: Vec<String>,
    /// The keys at which a version has taken the place of a higher one, in calls that were answered in time.
    pub older_over_newer: Vec<String>,
    /// The keys that now hold another version than the highest that was ever written there.
    pub not_the_newest: Vec<String>,
    /// The keys that are there.
    pub keys: usize,
}

/// A pair to write, checked already.
#[derive(Clone, Debug)]
pub(crate) struct Pair {
    pub(crate) key: String,
    pub(crate) value: String,
    pub(crate) metadata: Value,
    pub(crate) expiration: Option<u64>,
}

/// A bulk call.
#[derive(Clone, Debug)]
pub(crate) enum Bulk {
    Put(Vec<Pair>),
    Delete(Vec<String>),
}

/// What was ever written at a key.
struct History {
    highest: u64,
    last_write: Option<Instant>,
}

pub(crate) struct Account {
    token: String,
    limits: Limits,
    keep_values: bool,
    keep_calls: bool,
    entries: BTreeMap<String, Entry>,
    history: HashMap<String, History>,
    faults: VecDeque<Fault>,
    /// What was sent in calls that were never carried out.
    lost: Vec<Bulk>,
    calls: Vec<CallRecord>,
    pairs: usize,
    exceeded: Vec<String>,
    older_over_newer: Vec<String>,
}

impl Account {
    pub(crate) fn new(options: Options) -> Self {
        Self {
            token: options.token,
            limits: options.limits,
            keep_values: options.keep_values,
            keep_calls: options.keep_calls,
            entries: BTreeMap::new(),
            history: HashMap::new(),
            faults: VecDeque::new(),
            lost: Vec::new(),
            calls: Vec::new(),
            pairs: 0,
            exceeded: Vec::new(),
            older_over_newer: Vec::new(),
        }
    }

    pub(crate) fn limits(&self) -> &Limits {
        &self.limits
    }

    pub(crate) fn takes_token(&self, authorization: Option<&str>) -> bool {
        authorization.and_then(|value| value.strip_prefix("Bearer ")) == Some(self.token.as_str())
    }

    /// Counts a call. False where it is one too many.
    pub(crate) fn arrive(&mut self, kind: CallKind, keys: Vec<String>) -> bool {
        let now = Instant::now();
        let pairs = keys.len();
        let keys = if self.keep_calls { keys } else { Vec::new() };
        self.calls.push(CallRecord { at: now, kind, keys, pairs });
        let in_window = self.calls.iter().rev();
        let in_window = in_window.take_while(|call| now - call.at < self.limits.calls_window).count();
        if in_window > self.limits.calls {
            self.note_exceeded(format!("{in_window} calls in {:?}", self.limits.calls_window));
            return false;
        }
        true
    }

    /// The fault that happens to a bulk call of these keys.
    pub(crate) fn next_fault(&mut self, bulk: &Bulk) -> Option<Fault> {
        if let Some(Fault::RefuseEach(part)) = self.faults.front() {
            let hit = bulk.keys().iter().any(|key| key.contains(part.as_str()));
            return hit.then(|| Fault::RefuseEach(part.clone()));
        }
        self.faults.pop_front()
    }

    /// Carries a bulk call out, but for keys that contain `except`; a call that comes `late` is nobody's fault. Refuses the
    /// whole call where a key was written a moment ago.
    pub(crate) fn carry_out(&mut self, bulk: &Bulk, except: Option<&str>, late: bool) -> Result<(), String> {
        let now = Instant::now();
        let excepted = |key: &str| except.is_some_and(|part| key.contains(part));
        if !late {
            for key in bulk.keys() {
                let since = self.history.get(key).and_then(|history| Some(now - history.last_write?));
                if let Some(since) =
                    since.filter(|since| *since < self.limits.write_interval && !excepted(key))
                {
                    let problem = format!("{key} was written {} ms ago", since.as_millis());
                    self.note_exceeded(problem.clone());
                    return Err(problem);
                }
            }
        }
        match bulk {
            Bulk::Put(pairs) => {
                for pair in pairs.iter().filter(|pair| !excepted(&pair.key)) {
                    self.put(pair, now, late);
                }
            }
            Bulk::Delete(keys) => {
                for key in keys.iter().filter(|key| !excepted(key)) {
                    self.entries.remove(key);
                    self.history
                        .entry(key.clone())
                        .or_insert(History { highest: 0, last_write: None })
                        .last_write = Some(now);
                }
            }
        }
        Ok(())
    }

    fn put(&mut self, pair: &Pair, now: Instant, late: bool) {
        self.pairs += 1;
        let version = pair.metadata["version"].as_u64().unwrap_or(0);
        let history =
            self.history.entry(pair.key.clone()).or_insert(History { highest: version, last_write: None });
        // Whoever gave a call up cannot know when it lands, so it does not count for the next one.
        if !late {
            history.last_write = Some(now);
        }
        if version < history.highest && !late {
            self.older_over_newer.push(pair.key.clone());
        }
        history.highest = history.highest.max(version);
        let value = if self.keep_values { pair.value.clone() } else { String::new() };
        let entry = Entry { value, metadata: pair.metadata.clone(), expiration: pair.expiration };
        self.entries.insert(pair.key.clone(), entry);
    }

    pub(crate) fn lose(&mut self, bulk: Bulk) {
        self.lost.push(bulk);
    }

    pub(crate) fn fail_next(&mut self, faults: impl IntoIterator<Item = Fault>) {
        self.faults.extend(faults);
    }

    pub(crate) fn faults_left(&self) -> usize {
        self.faults.len()
    }

    pub(crate) fn recover(&mut self) {
        self.faults.clear();
    }

    pub(crate) fn land_lost_calls(&mut self) {
        for bulk in std::mem::take(&mut self.lost) {
            self.carry_out(&bulk, None, true).expect("late calls are not refused");
        }
    }

    pub(crate) fn get(&self, key: &str) -> Option<Entry> {
        self.entries.get(key).filter(|entry| is_alive(entry)).cloned()
    }

    pub(crate) fn keys(&self) -> Vec<String> {
        self.entries.iter().filter(|(_, entry)| is_alive(entry)).map(|(key, _)| key.clone()).collect()
    }

    /// At most `limit` keys that begin with `prefix` and come after `after`, and whether there are more.
    pub(crate) fn list(&self, prefix: &str, after: &str, limit: usize) -> (Vec<(String, Entry)>, bool) {
        let from = std::ops::Bound::Excluded(after.to_owned());
        let from = if after < prefix { std::ops::Bound::Included(prefix.to_owned()) } else { from };
        let mut found = (self.entries.range((from, std::ops::Bound::Unbounded)))
            .take_while(|(key, _)| key.starts_with(prefix))
            .filter(|(_, entry)| is_alive(entry));
        let light = |entry: &Entry| Entry { value: String::new(), ..entry.clone() };
        let page: Vec<_> = (&mut found).take(limit).map(|(key, entry)| (key.clone(), light(entry))).collect();
        let more = found.next().is_some();
        (page, more)
    }

    pub(crate) fn write(&mut self, key: &str, value: &str, metadata: Value) {
        let entry = Entry { value: value.to_owned(), metadata, expiration: None };
        self.entries.insert(key.to_owned(), entry);
    }

    pub(crate) fn delete(&mut self, key: &str) {
        self.entries.remove(key);
    }

    pub(crate) fn calls(&self) -> Vec<CallRecord> {
        self.calls.clone()
    }

    pub(crate) fn note_exceeded(&mut self, problem: String) {
        if self.exceeded.len() < 100 {
            self.exceeded.push(problem);
        }
    }

    pub(crate) fn report(&self) -> Report {
        let version = |entry: &Entry| entry.metadata["version"].as_u64();
        let not_the_newest = self.entries.iter().filter(|(key, entry)| {
            let highest = self.history.get(*key).map(|history| history.highest);
            highest.is_some() && version(entry).is_some() && version(entry) != highest
        });
        Report {
            calls: self.calls.len(),
            writes: self.calls.iter().filter(|call| call.kind != CallKind::Read).count(),
            pairs: self.pairs,
            most_calls_in_ten_seconds: most_within(&self.calls, Duration::from_secs(10)),
            exceeded: self.exceeded.clone(),
            older_over_newer: self.older_over_newer.clone(),
            not_the_newest: not_the_newest.map(|(key, _)| key.clone()).collect(),
            keys: self.entries.len(),
        }
    }
}

impl Bulk {
    pub(crate) fn keys(&self) -> Vec<&String> {
        match self {
            Bulk::Put(pairs) => pairs.iter().map(|pair| &pair.key).collect(),
            Bulk::Delete(keys) => keys.iter().collect(),
        }
    }
}

/// The time now, in Unix seconds.
pub(crate) fn unix_now() -> u64 {
    #[expect(clippy::disallowed_methods, reason = "what expires here expires in real time")]
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

fn is_alive(entry: &Entry) -> bool {
    entry.expiration.is_none_or(|expiration| expiration > unix_now())
}

/// The most calls within any stretch of this length.
fn most_within(calls: &[CallRecord], length: Duration) -> usize {
    let mut first = 0;
    let mut most = 0;
    for (last, call) in calls.iter().enumerate() {
        while call.at - calls[first].at >= length {
            first += 1;
        }
        most = most.max(last + 1 - first);
    }
    most
}
