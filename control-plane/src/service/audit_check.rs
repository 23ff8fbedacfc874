//! Whether the chains of audit events are whole: what was altered, taken out or put in is found.
//!
//! Who can write the database can write a whole chain anew, with hashes that fit. That is found by whoever has noted the
//! chain's end elsewhere before: the event at that place has another hash now.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use sqlx::{Connection, PgConnection};

use super::audit::event_hash;
use crate::store::audit::{ChainHead, ChainRow, StoredEvent};
use crate::store::{self, StoreError};

/// How many events are read at a time.
const BATCH: i64 = 1000;

/// Something that is wrong with a chain.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Finding {
    /// Events have been taken out.
    #[error("events {from} to {to} are missing")]
    Missing {
        /// The first of them.
        from: i64,
        /// The last of them.
        to: i64,
    },
    /// An event and its hash do not fit.
    #[error("event {seq} does not fit its hash: it was altered, or it is not the one that was written there")]
    Altered {
        /// Its place.
        seq: i64,
    },
    /// An event stands beyond the chain's end, or before its beginning.
    #[error("event {seq} does not belong to the chain, which goes from {first} to {last}")]
    Foreign {
        /// Its place.
        seq: i64,
        /// The first place of the chain.
        first: i64,
        /// The last place of the chain.
        last: i64,
    },
    /// The last event is not the one that the chain's row names.
    #[error("the chain's end was altered: its last event, {seq}, has another hash")]
    EndAltered {
        /// The last event's place.
        seq: i64,
    },
    /// There are events, and no row that says where their chain ends.
    #[error("the chain's end is missing, though it has events")]
    NoEnd,
    /// The event at a place that was noted before is another one now, or gone.
    #[error("event {seq} is not the one that was noted")]
    NotAsNoted {
        /// Its place.
        seq: i64,
    },
}

/// The end of a chain, to be noted elsewhere: the chain's name (`-` for what belongs to no organization), the place and the
/// hash of its last event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NotedEnd {
    /// The chain.
    pub chain: String,
    /// Its end.
    pub head: ChainHead,
}

/// A text that is no [`NotedEnd`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("must be the name of a chain, a number and a hash")]
pub struct NotedEndError;

impl fmt::Display for NotedEnd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = if self.chain.is_empty() { "-" } else { &self.chain };
        write!(f, "{name} {} ", self.head.seq)?;
        self.head.hash.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl FromStr for NotedEnd {
    type Err = NotedEndError;

    fn from_str(text: &str) -> Result<Self, NotedEndError> {
        let mut parts = text.split_ascii_whitespace();
        let (Some(name), Some(seq), Some(hex), None) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(NotedEndError);
        };
        let chain = if name == "-" { String::new() } else { name.to_owned() };
        let seq = seq.parse().ok().filter(|seq| *seq >= 0).ok_or(NotedEndError)?;
        if hex.len() != 64 || !hex.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Err(NotedEndError);
        }
        let mut hash = [0; 32];
        for (position, byte) in hash.iter_mut().enumerate() {
            let digits = hex.get(2 * position..2 * position + 2).ok_or(NotedEndError)?;
            *byte = u8::from_str_radix(digits, 16).map_err(|_| NotedEndError)?;
        }
        Ok(Self { chain, head: ChainHead { seq, hash } })
    }
}

/// A chain that is being walked.
struct Walk {
    row: ChainRow,
    noted: Option<ChainHead>,
    /// The event before, as it is stored: where that was altered itself, the next one is still checked against it.
    before: ChainHead,
}

impl Walk {
    fn new(row: ChainRow, noted: Option<ChainHead>) -> Self {
        Self { before: row.purged, row, noted }
    }

    /// The next event in the order of the places.
    fn event(&mut self, stored: &StoredEvent) -> Vec<Finding> {
        let seq = stored.event.seq;
        let (first, last) = (self.row.purged.seq + 1, self.row.head.seq);
        if !(first..=last).contains(&seq) {
            return vec![Finding::Foreign { seq, first, last }];
        }
        let mut findings = Vec::new();
        let expected = self.before.seq + 1;
        if seq > expected {
            // What it was chained to is gone, so that it fits cannot be seen.
            findings.push(Finding::Missing { from: expected, to: seq - 1 });
        } else if event_hash(&self.before.hash, &stored.event) != stored.hash {
            findings.push(Finding::Altered { seq });
        }
        self.before = ChainHead { seq, hash: stored.hash };
        if self.noted.is_some_and(|noted| noted.seq == seq && noted.hash != stored.hash) {
            findings.push(Finding::NotAsNoted { seq });
        }
        findings
    }

    /// After the last event.
    fn finish(&self) -> Vec<Finding> {
        let mut findings = Vec::new();
        let head = self.row.head;
        if self.before.seq < head.seq {
            findings.push(Finding::Missing { from: self.before.seq + 1, to: head.seq });
        } else if self.before.hash != head.hash {
            findings.push(Finding::EndAltered { seq: head.seq });
        }
        match self.noted {
            Some(noted) if noted.seq > head.seq => findings.push(Finding::NotAsNoted { seq: noted.seq }),
            Some(noted) if noted.seq == self.row.purged.seq && noted.hash != self.row.purged.hash => {
                findings.push(Finding::NotAsNoted { seq: noted.seq });
            }
            // What was purged since cannot be compared.
            _ => {}
        }
        findings
    }
}

/// Walks all chains, or the one of that name, and compares them with what was noted before. Tells each finding, with the
/// chain's name, and the end of each chain.
///
/// Each chain is read at one instant, in batches, so that it may have any length and grow meanwhile.
pub async fn verify(
    connection: &mut PgConnection,
    only: Option<&str>,
    noted: &BTreeMap<String, ChainHead>,
    mut tell: impl FnMut(&str, Told),
) -> Result<(), StoreError> {
    let mut unseen: BTreeMap<&str, ChainHead> = noted
        .iter()
        .filter(|(chain, _)| only.is_none_or(|only| only == chain.as_str()))
        .map(|(chain, head)| (chain.as_str(), *head))
        .collect();
    let mut after: Option<String> = None;
    loop {
        let chain = match (only, &after) {
            (Some(_), Some(_)) => None,
            (Some(only), None) => Some(only.to_owned()),
            (None, after) => store::audit::next_chain(connection, after.as_deref()).await?,
        };
        let Some(chain) = chain else { break };
        let noted = unseen.remove(chain.as_str());
        verify_chain(connection, &chain, noted, &mut |told| tell(&chain, told)).await?;
        after = Some(chain);
    }
    for (chain, head) in unseen {
        tell(chain, Told::Finding(Finding::NotAsNoted { seq: head.seq }));
    }
    Ok(())
}

/// What [`verify`] tells of a chain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Told {
    /// Something is wrong.
    Finding(Finding),
    /// Where it ends.
    End(ChainHead),
}

async fn verify_chain(
    connection: &mut PgConnection,
    chain: &str,
    noted: Option<ChainHead>,
    tell: &mut impl FnMut(Told),
) -> Result<(), StoreError> {
    let mut tx = connection.begin().await?;
    store::snapshot::freeze(&mut tx).await?;
    let row = store::audit::chain(&mut tx, chain).await?;
    let first = store::audit::events(&mut tx, chain, i64::MIN, 1).await?;
    let Some(row) = row else {
        if !first.is_empty() {
            tell(Told::Finding(Finding::NoEnd));
        }
        if let Some(noted) = noted {
            tell(Told::Finding(Finding::NotAsNoted { seq: noted.seq }));
        }
        return Ok(());
    };
    let head = row.head;
    let mut walk = Walk::new(row, noted);
    let mut after = i64::MIN;
    loop {
        let batch = store::audit::events(&mut tx, chain, after, BATCH).await?;
        let Some(last) = batch.last() else { break };
        after = last.event.seq;
        batch.iter().flat_map(|stored| walk.event(stored)).for_each(|finding| tell(Told::Finding(finding)));
    }
    walk.finish().into_iter().for_each(|finding| tell(Told::Finding(finding)));
    tell(Told::End(head));
    Ok(tx.commit().await?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_noted_end_is_read_as_it_was_written() {
        for chain in ["acme", ""] {
            let noted = NotedEnd { chain: chain.to_owned(), head: ChainHead { seq: 7, hash: [0xa5; 32] } };
            assert_eq!(noted.to_string().parse(), Ok(noted));
        }
        let hash = "a5".repeat(32);
        for bad in [
            "",
            "acme",
            "acme 7",
            "acme -7 ",
            &format!("acme 7 {hash} x"),
            "acme 7 +5",
            &format!("acme x {hash}"),
        ] {
            assert_eq!(bad.parse::<NotedEnd>(), Err(NotedEndError), "{bad}");
        }
        let signed = format!("acme 7 {}", "+5".repeat(32));
        assert_eq!(signed.parse::<NotedEnd>(), Err(NotedEndError));
    }
}
