//! Replaces the master key: encrypts what rests under the one before anew, in small transactions, while control planes go
//! on working. What has been done stays done: whoever asks again goes on with the rest.

use sqlx::{Connection, PgConnection};

use crate::crypto_at_rest::{MasterKey, ResealError};
use crate::entropy::Entropy;
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

/// Encrypts all private keys anew that do not rest under the key to encrypt under.
pub async fn rewrap(
    connection: &mut PgConnection,
    master_key: &MasterKey,
    entropy: &dyn Entropy,
    mut tell: impl FnMut(Told<'_>),
) -> Result<Rewrapped, StoreError> {
    let mut keys = 0;
    // Until there is nothing more to do: while it goes on, keys are made.
    loop {
        let mut pass = Rewrapped::default();
        for shelf in Shelf::ALL {
            clear(connection, shelf, master_key, entropy, &mut pass, &mut tell).await?;
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
    master_key: &MasterKey,
    entropy: &dyn Entropy,
    pass: &mut Rewrapped,
    tell: &mut impl FnMut(Told<'_>),
) -> Result<(), StoreError> {
    let (mut after, mut keys) = (String::new(), 0);
    loop {
        let mut tx = connection.begin().await?;
        let batch = sealed_key::lock_others(&mut tx, shelf, master_key.id(), &after, BATCH).await?;
        let Some(last) = batch.last() else { break };
        after = last.kid.to_string();
        for key in &batch {
            match master_key.reseal(key.purpose, &key.kid, &key.sealed, &mut entropy.rng()) {
                Ok(Some(sealed)) => {
                    sealed_key::replace(&mut tx, shelf, &key.kid, &sealed).await?;
                    keys += 1;
                }
                Ok(None) => {}
                Err(reason) => {
                    pass.left += 1;
                    tell(Told::Left { shelf, kid: key.kid.as_str(), reason });
                }
            }
        }
        tx.commit().await?;
        tell(Told::Progress { shelf, keys });
    }
    pass.keys += keys;
    Ok(())
}
