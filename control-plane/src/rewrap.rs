//! Replaces the master key: encrypts what rests under the one before anew, in small transactions, while control planes go
//! on working. What has been done stays done: whoever asks again goes on with the rest. Each transaction has an audit event
//! with how many keys it was.

use base64ct::{Base64UrlUnpadded, Encoding};
use serde_json::json;
use sqlx::{Connection, PgConnection};

use crate::clock::Clock;
use crate::crypto_at_rest::{MasterKey, ResealError};
use crate::entropy::Entropy;
use crate::service::audit::{Actor, Event, Target};
use crate::service::change::write_events;
use crate::store::StoreError;
use crate::store::sealed_key::{self, Shelf};

/// The most keys of one transaction: some milliseconds.
const BATCH: i64 = 200;

/// What there is to tell while it goes on.
#[derive(Debug)]
pub enum Told<'a> {
    /// So many keys of this kind have been encrypted anew so far.
    Progress {
        /// The kind.
        shelf: Shelf,
        /// How many.
        keys: u64,
    },
    /// A key was left as it was.
    Left {
        /// Its kind.
        shelf: Shelf,
        /// Its id.
        kid: &'a str,
        /// Why.
        reason: ResealError,
    },
}

/// What it has come to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rewrapped {
    /// Keys that have been encrypted anew.
    pub keys: u64,
    /// Keys that rest under neither of the two master keys, or are damaged.
    pub left: u64,
}

/// What it works with.
pub struct Rewrapping<'a> {
    /// The key to encrypt under, and the one before it.
    pub master_key: &'a MasterKey,
    /// Randomness.
    pub entropy: &'a dyn Entropy,
    /// The time.
    pub clock: &'a dyn Clock,
}

/// Encrypts all private keys anew that do not rest under the key to encrypt under.
pub async fn rewrap(
    connection: &mut PgConnection,
    with: &Rewrapping<'_>,
    mut tell: impl FnMut(Told<'_>),
) -> Result<Rewrapped, StoreError> {
    let mut keys = 0;
    // Until there is nothing more to do: while it goes on, keys are made.
    loop {
        let mut pass = Rewrapped::default();
        for shelf in Shelf::ALL {
            clear(connection, shelf, with, &mut pass, &mut tell).await?;
        }
        keys += pass.keys;
        if pass.keys == 0 {
            return Ok(Rewrapped { keys, left: pass.left });
        }
    }
}

async fn clear(
    connection: &mut PgConnection,
    shelf: Shelf,
    with: &Rewrapping<'_>,
    pass: &mut Rewrapped,
    tell: &mut impl FnMut(Told<'_>),
) -> Result<(), StoreError> {
    let (mut after, mut keys) = (String::new(), 0);
    let master_key = with.master_key;
    loop {
        let mut tx = connection.begin().await?;
        let batch = sealed_key::lock_others(&mut tx, shelf, master_key.id(), &after, BATCH).await?;
        let Some(last) = batch.last() else { break };
        after = last.kid.to_string();
        let mut moved = 0;
        for key in &batch {
            match master_key.reseal(key.purpose, &key.kid, &key.sealed, &mut with.entropy.rng()) {
                Ok(Some(sealed)) => {
                    sealed_key::replace(&mut tx, shelf, &key.kid, &sealed).await?;
                    moved += 1;
                }
                Ok(None) => {}
                Err(reason) => {
                    pass.left += 1;
                    tell(Told::Left { shelf, kid: key.kid.as_str(), reason });
                }
            }
        }
        if moved > 0 {
            let events = vec![event(master_key, shelf, moved)];
            write_events(&mut tx, &Actor::command("keys rewrap"), with.clock.now(), events).await?;
        }
        tx.commit().await?;
        keys += moved;
        tell(Told::Progress { shelf, keys });
    }
    pass.keys += keys;
    Ok(())
}

/// So many keys of a kind rest under the master key of this name now.
fn event(master_key: &MasterKey, shelf: Shelf, keys: u64) -> Event {
    let id = Base64UrlUnpadded::encode_string(&master_key.id());
    let target = Target { org: None, env: None, kind: "master_key", id };
    Event::new(target, "rewrap", json!({"after": {"kind": shelf.name(), "keys": keys}}))
}
