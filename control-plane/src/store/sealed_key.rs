//! All private keys that rest under the master key, wherever they are: for whoever encrypts them anew.

use keypost_shared::id::{Kid, PoolId};
use sqlx::PgConnection;

use super::{StoreError, id};
use crate::crypto_at_rest::{KEY_ID_LENGTH, KeyPurpose};

/// Where private keys rest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shelf {
    /// `root_key`.
    Root,
    /// `publisher_key`.
    Publishers,
    /// `signing_key`, those of the backend `local`.
    SigningKeys,
}

/// A private key at rest.
#[derive(Clone)]
pub struct SealedKey {
    /// Its thumbprint.
    pub kid: Kid,
    /// What it is for.
    pub purpose: KeyPurpose,
    /// The private half, encrypted.
    pub sealed: Vec<u8>,
}

impl Shelf {
    /// All of them.
    pub const ALL: [Shelf; 3] = [Shelf::Root, Shelf::Publishers, Shelf::SigningKeys];

    /// What is on it, for people.
    pub fn name(self) -> &'static str {
        match self {
            Shelf::Root => "root",
            Shelf::Publishers => "publisher keys",
            Shelf::SigningKeys => "signing keys",
        }
    }
}

/// Keys on a shelf that do not rest under the master key of that name, in the order of their ids after `after`, locked
/// until the transaction ends.
pub async fn lock_others(
    tx: &mut PgConnection,
    shelf: Shelf,
    master_key: [u8; KEY_ID_LENGTH],
    after: &str,
    limit: i64,
) -> Result<Vec<SealedKey>, StoreError> {
    struct Row {
        kid: String,
        pool_id: Option<uuid::Uuid>,
        sealed: Option<Vec<u8>>,
    }
    let master_key = master_key.as_slice();
    // The second to the ninth byte of what is sealed name the master key.
    let rows = match shelf {
        Shelf::Root => {
            sqlx::query_as!(
                Row,
                r#"select kid, null::uuid as pool_id, private_sealed as "sealed?" from root_key
                    where kid > $1 and substring(private_sealed from 2 for 8) <> $2
                    order by kid
                    limit $3
                      for no key update"#,
                after,
                master_key,
                limit,
            )
            .fetch_all(tx)
            .await?
        }
        Shelf::Publishers => {
            sqlx::query_as!(
                Row,
                r#"select kid, null::uuid as pool_id, private_sealed as "sealed?" from publisher_key
                    where kid > $1 and substring(private_sealed from 2 for 8) <> $2
                    order by kid
                    limit $3
                      for no key update"#,
                after,
                master_key,
                limit,
            )
            .fetch_all(tx)
            .await?
        }
        Shelf::SigningKeys => {
            sqlx::query_as!(
                Row,
                r#"select kid, pool_id as "pool_id?", private_sealed as "sealed?" from signing_key
                    where kid > $1 and backend = 'local' and substring(private_sealed from 2 for 8) <> $2
                    order by kid
                    limit $3
                      for no key update"#,
                after,
                master_key,
                limit,
            )
            .fetch_all(tx)
            .await?
        }
    };
    let sealed = rows.into_iter().filter_map(|row| Some((row.kid, row.pool_id, row.sealed?)));
    sealed
        .map(|(kid, pool, sealed)| {
            let purpose = match (shelf, pool) {
                (Shelf::Root, _) => KeyPurpose::Root,
                (Shelf::SigningKeys, Some(pool)) => KeyPurpose::Pool(PoolId(pool)),
                (Shelf::Publishers | Shelf::SigningKeys, _) => KeyPurpose::Publisher,
            };
            Ok(SealedKey { kid: id("kid", &kid)?, purpose, sealed })
        })
        .collect()
}

/// Puts a key that has been encrypted anew in its place.
pub async fn replace(
    tx: &mut PgConnection,
    shelf: Shelf,
    kid: &Kid,
    sealed: &[u8],
) -> Result<(), StoreError> {
    match shelf {
        Shelf::Root => {
            sqlx::query!("update root_key set private_sealed = $2 where kid = $1", kid.as_str(), sealed)
        }
        Shelf::Publishers => {
            sqlx::query!("update publisher_key set private_sealed = $2 where kid = $1", kid.as_str(), sealed)
        }
        Shelf::SigningKeys => {
            sqlx::query!("update signing_key set private_sealed = $2 where kid = $1", kid.as_str(), sealed)
        }
    }
    .execute(tx)
    .await?;
    Ok(())
}
