//! Revoking tokens that have been issued (design §9): by whoever has a token, by its id, or all of a client.
//!
//! What ends a token is a bit of a status list. The client's document is made anew with it, so that the next token gets
//! another bit. In a pool of people, what is said of clients here is said of sessions: those have the bits, and no document.

use std::collections::BTreeSet;

use keypost_shared::document::PoolKind;
use keypost_shared::edge_report::RevocationReport;
use keypost_shared::host::HostCrypto;
use keypost_shared::id::{ClientId, PoolId, TokenId};
use keypost_shared::issued_token::{TokenClaims, UnverifiedToken};
use keypost_shared::jwk::{Jwk, JwkSet};
use keypost_shared::kv_key::KvKey;
use keypost_shared::status_list::StatusIndex;
use time::{Duration, OffsetDateTime};
use uuid::Uuid;

use super::audit::{Actor, Event};
use super::change::{Change, PROPAGATION};
use super::pool_urls::PoolUrls;
use super::{ChangeError, Context, EDGE_CATCHES_UP, client_pool};
use crate::clock::from_unix;
use crate::entropy::random_uuid;
use crate::store::publication::Priority;
use crate::store::revoked_token::{RevokedBy, RevokedToken};
use crate::store::signing_key::PoolOwner;
use crate::store::status_block::Which;
use crate::store::{self, StoreError, snapshot};

/// What is to be revoked.
#[derive(Clone)]
pub enum ToRevoke {
    /// This token.
    Token(String),
    /// All tokens that this client, or session, has had so far.
    Client(ClientId),
    /// The token of this id.
    Jti {
        /// Its id.
        jti: TokenId,
        /// When it expires.
        expires_at: OffsetDateTime,
        /// Whose it is.
        client_id: ClientId,
    },
}

/// What has come of a report of the edge.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The token is revoked now.
    Revoked,
    /// It was.
    Known,
    /// It has expired, or its pool is gone.
    Void,
}

impl Outcome {
    /// Its name in answers and metrics.
    pub fn name(self) -> &'static str {
        match self {
            Outcome::Revoked => "revoked",
            Outcome::Known => "known",
            Outcome::Void => "void",
        }
    }
}

/// By when what is revoked now is revoked everywhere.
pub fn effective_by(revoked_at: OffsetDateTime) -> OffsetDateTime {
    revoked_at + EDGE_CATCHES_UP
}

/// Revokes tokens. A token that has been revoked stays as it is.
pub async fn revoke(
    change: &mut Change,
    owner: &PoolOwner,
    to_revoke: ToRevoke,
) -> Result<RevokedToken, ChangeError> {
    let now = change.now();
    let Some(pool) = snapshot::pools(change.tx(), &[owner.pool()]).await?.pop() else {
        return Err(ChangeError::Gone);
    };
    let longest_ttl = Duration::seconds(pool.longest_token_ttl(now).into());
    let (client_id, jti, expires_at, which) = match to_revoke {
        ToRevoke::Token(text) => {
            let issuer = PoolUrls::new(&change.context().edge_url, owner.pool()).issuer;
            let read = read_token(&text, pool, &issuer).await;
            let (claims, client_id) = read.map_err(|detail| wrong("token", detail))?;
            let expires_at = from_unix(claims.exp);
            if expires_at <= now {
                return Err(wrong("token", "has expired"));
            }
            // One without a place in a status list is of a client that had none yet: its first is used up for it.
            let which = claims.status_index().map_or(Which::Current, Which::Index);
            (client_id, Some(claims.jti), expires_at, which)
        }
        ToRevoke::Jti { jti, expires_at, client_id } => {
            if expires_at <= now {
                return Err(wrong("exp", "is over: the token has expired"));
            }
            if expires_at > now + longest_ttl + Duration::minutes(1) {
                return Err(wrong("exp", "is later than any token of the pool expires"));
            }
            (client_id, Some(jti), expires_at, Which::Current)
        }
        ToRevoke::Client(client_id) => (client_id, None, now + longest_ttl, Which::Current),
    };
    if !store::revoked_token::is_holder(change.tx(), owner, &client_id).await? {
        let detail =
            if owner.env().is_some() { "is no client of the pool" } else { "is no session of the pool" };
        return Err(wrong("clientId", detail));
    }
    let revoked = RevokedToken {
        id: random_uuid(&mut change.rng()),
        client_id,
        jti,
        expires_at,
        revoked_at: now,
        revoked_by: RevokedBy::Administrator,
    };
    if carry_out(change, owner, &revoked, Some(which)).await? {
        return Ok(revoked);
    }
    let jti = revoked.jti.as_ref().ok_or(ChangeError::Gone)?;
    store::revoked_token::find(change.tx(), owner, jti).await?.ok_or(ChangeError::Gone)
}

/// The pool's revocations by id, after `after`, of what has not expired.
pub async fn list(
    context: &Context,
    owner: &PoolOwner,
    after: Option<Uuid>,
    rows: i64,
) -> Result<Vec<RevokedToken>, StoreError> {
    let now = context.now();
    let mut connection = context.connection().await?;
    store::revoked_token::list(&mut connection, owner, after, now, rows).await
}

/// Takes up what a client has revoked at the edge. It may come twice, late, or for what is gone.
pub async fn take_up(context: &Context, report: &RevocationReport) -> Result<Outcome, StoreError> {
    let outcome = match take_up_once(context, report).await {
        // Somebody has revoked it at this very moment, or deleted the environment.
        Err(error) if error.is_dangling() => Outcome::Void,
        outcome => outcome?,
    };
    context.metrics.edge_report(outcome.name());
    Ok(outcome)
}

/// Those of the tokens, of whatever pool, that have been revoked already.
pub async fn known(
    context: &Context,
    tokens: &[(PoolId, TokenId)],
) -> Result<BTreeSet<(PoolId, TokenId)>, StoreError> {
    if tokens.is_empty() {
        return Ok(BTreeSet::new());
    }
    let mut connection = context.connection().await?;
    Ok(store::revoked_token::known(&mut connection, tokens).await?.into_iter().collect())
}

async fn take_up_once(context: &Context, report: &RevocationReport) -> Result<Outcome, StoreError> {
    let Some(owner) = client_pool::owner_of(context, report.pool).await? else { return Ok(Outcome::Void) };
    let mut change = Change::begin(context, &Actor::system()).await?;
    let expires_at = from_unix(report.exp);
    if expires_at <= change.now() {
        return Ok(Outcome::Void);
    }
    let revoked = RevokedToken {
        id: random_uuid(&mut change.rng()),
        client_id: report.client_id.clone(),
        jti: Some(report.jti.clone()),
        expires_at,
        revoked_at: change.now(),
        revoked_by: RevokedBy::Client,
    };
    // A token without an index is ended by the edge's own entry alone: it lives five minutes.
    let index = report.list.zip(report.idx).map(|(list, idx)| Which::Index(StatusIndex { list, idx }));
    if !carry_out(&mut change, &owner, &revoked, index).await? {
        return Ok(Outcome::Known);
    }
    change.commit().await?;
    Ok(Outcome::Revoked)
}

/// Notes the revocation and sets the bits. False where the token has been revoked before.
async fn carry_out(
    change: &mut Change,
    owner: &PoolOwner,
    revoked: &RevokedToken,
    which: Option<Which>,
) -> Result<bool, StoreError> {
    if !store::revoked_token::insert(change.tx(), owner, revoked).await? {
        return Ok(false);
    }
    let (pool, client) = (owner.pool(), &revoked.client_id);
    let document = owner.env().map(|_| KvKey::Client(pool, client.clone()));
    let gives_up_block = match (which, &revoked.jti) {
        (None, _) => false,
        (Some(_), None) => true,
        (Some(which), Some(_)) => {
            let bit = store::status_block::revoke(change.tx(), pool, client, which).await?;
            if let Some(bit) = bit {
                change.mark(KvKey::Status(pool, bit.list), Priority::Revocation);
                if let Some(key) = &document {
                    change.mark(key.clone(), Priority::Revocation);
                }
            }
            bit.is_some_and(|bit| bit.is_full)
        }
    };
    if gives_up_block {
        change.revoke_tokens(pool, std::slice::from_ref(client)).await?;
        if let Some(key) = &document {
            // The block will be another's one day. There is time: who goes on by it gets tokens that are revoked.
            change.mark(key.clone(), Priority::Revocation);
            let now = change.now();
            change.lose_later(key.clone(), now + PROPAGATION);
        }
    }
    change.context().metrics.revocation(match revoked.revoked_by {
        RevokedBy::Client => "client",
        RevokedBy::Administrator => "administrator",
    });
    change.record(Event::new(
        owner.target_of(if document.is_some() { "client" } else { "sso_session" }, client),
        "revoke_tokens",
        serde_json::json!({"after": revoked}),
    ));
    Ok(true)
}

/// The claims of a token that one of the pool's keys has signed, and whose it is. The error is for people.
async fn read_token(
    text: &str,
    pool: snapshot::PoolRows,
    issuer: &str,
) -> Result<(TokenClaims, ClientId), &'static str> {
    const NO_TOKEN: &str = "is not an access token of the pool";
    let keys = JwkSet { keys: pool.keys.into_iter().map(|key| Jwk::es256(key.public)).collect() };
    let token = UnverifiedToken::parse(text).map_err(|_| NO_TOKEN)?;
    let claims = token.verify(&HostCrypto, &keys).await.map_err(|_| NO_TOKEN)?;
    let is_its_own = claims.iss == issuer && (pool.kind == PoolKind::Device || claims.is_of_a_person());
    let holder = claims.status_holder().filter(|_| is_its_own).ok_or(NO_TOKEN)?;
    Ok((claims, holder))
}

fn wrong(field: &'static str, detail: &str) -> ChangeError {
    ChangeError::Wrong { field, detail: detail.to_owned() }
}
