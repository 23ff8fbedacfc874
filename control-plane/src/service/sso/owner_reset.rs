//! A code for an owner who has forgotten their password: made on the machine of the control plane, because nobody stands
//! above owners whom the API knows.

use keypost_shared::secret::{SecretText, generate_secret};
use rand_core::CryptoRngCore;
use serde_json::json;
use sqlx::{Connection, PgConnection};
use time::OffsetDateTime;

use super::super::audit::{Actor, Event, Target};
use super::super::change::write_events;
use super::name;
use super::new_password::RESET_LASTS;
use crate::store::StoreError;
use crate::store::sso::password_reset;
use crate::store::sso::user::{SignInName, find_to_sign_in};

/// Makes a code with which this owner, named by username or address, sets another password, and says until when it is good.
/// None where there is no such owner. A code from before is good no more.
pub async fn make_code(
    connection: &mut PgConnection,
    owner: &str,
    now: OffsetDateTime,
    rng: &mut impl CryptoRngCore,
) -> Result<Option<(SecretText, OffsetDateTime)>, StoreError> {
    let mut tx = connection.begin().await?;
    let key = name::key(owner);
    let Some((owner, _)) = find_to_sign_in(&mut tx, SignInName::Owner(&key)).await? else { return Ok(None) };
    let (code, expires_at) = (generate_secret(rng), now + RESET_LASTS);
    password_reset::replace(&mut tx, &owner.org, owner.id, &code.hash(), now, expires_at).await?;
    let target =
        Target { org: Some(owner.org.clone()), env: None, kind: "sso_user", id: owner.id.to_string() };
    let event = Event::new(target, "make_reset_code", json!({}));
    write_events(&mut tx, &Actor::command("owner password-reset"), now, vec![event]).await?;
    tx.commit().await?;
    Ok(Some((code, expires_at)))
}
