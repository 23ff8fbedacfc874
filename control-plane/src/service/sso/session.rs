//! Sessions: what signing in begins, what refreshing goes on with, and what ends both.
//!
//! All refresh tokens of a session are one family, and all its access tokens stand in one block of the pool's Token Status
//! List. So ending a session ends everything that has come of it, whichever client app it was for.

use keypost_shared::id::{ClientId, OrgId, SessionId, SsoAppId};
use keypost_shared::secret::{SecretHash, SecretText, generate_secret};
use serde_json::json;
use time::{Duration, OffsetDateTime};

use super::super::audit::{Event, RequestSource, Target};
use super::super::change::Change;
use super::super::{Context, audit};
use super::access_token::{AccessToken, PoolSigner, SignError, UserClaims};
use super::openid::scope::OpenIdScope;
use crate::clock::unix;
use crate::entropy::random_uuid;
use crate::store::publication::Priority;
use crate::store::sso::pool::{self, SsoPool};
use crate::store::sso::refresh_token::RefreshToken;
use crate::store::sso::session::{Session, Which};
use crate::store::sso::user::{User, UserStatus};
use crate::store::sso::{refresh_token, session, user};
use crate::store::{StoreError, status_block};

/// A refresh token that is used again so soon is a retry (api.md §4).
const RETRY_WINDOW: Duration = Duration::seconds(10);
/// How many sessions a change ends at once. Who has more goes on with the next change.
const SESSIONS_AT_ONCE: i64 = 1000;

/// Tokens, to be shown once.
#[derive(Debug)]
pub struct TokenPair {
    /// The access token.
    pub access_token: SecretText,
    /// What to go on with.
    pub refresh_token: SecretText,
    /// How long the access token lives, in seconds.
    pub expires_in: i64,
    /// What it says of the person.
    pub claims: UserClaims,
    /// The session.
    pub session: Session,
    /// The scopes of OpenID Connect; none outside of its flow.
    pub scope: Option<String>,
}

/// What a pair is for.
#[derive(Clone, Debug)]
pub struct PairFor {
    /// The client app; none for an owner.
    pub app: Option<SsoAppId>,
    /// Whether refreshing it makes the session last longer: a pair that signing in gave does, one got by exchange does not.
    pub extends_session: bool,
    /// The scopes of OpenID Connect; none outside of its flow.
    pub scope: Option<String>,
    /// Those of the access token, where they are fewer.
    pub narrowed: Option<String>,
}

/// From where somebody signs in.
#[derive(Clone, Debug, Default)]
pub struct SignInFrom {
    /// What the request's `User-Agent` says.
    pub user_agent: Option<String>,
    /// Its address.
    pub address: Option<String>,
}

/// Why there are no tokens.
#[derive(Debug, thiserror::Error)]
pub enum SessionError {
    /// The session, its person or the token is not there, or does not count any more. There is no telling which.
    #[error("the session does not go on")]
    Over,
    /// More scopes are asked for than were granted.
    #[error("more scopes are asked for than were granted")]
    WiderScope,
    /// Nothing can be signed at the moment.
    #[error(transparent)]
    Sign(#[from] SignError),
    /// The database.
    #[error(transparent)]
    Store(StoreError),
}

impl From<StoreError> for SessionError {
    /// What a session or its tokens refer to has just been deleted: then it is over, too.
    fn from(error: StoreError) -> Self {
        if error.is_dangling() { Self::Over } else { Self::Store(error) }
    }
}

/// Begins a session of a person, who has proved who they are.
pub async fn begin(
    change: &mut Change,
    user: &User,
    from: SignInFrom,
) -> Result<(SsoPool, Session), SessionError> {
    let now = change.now();
    let pool = pool::find(change.tx(), &user.org).await?.ok_or(SessionError::Over)?;
    let started = Session {
        id: SessionId(random_uuid(&mut change.rng())),
        org: user.org.clone(),
        pool: pool.id,
        user: user.id,
        app: user.app,
        user_agent: from.user_agent.map(|text| text.chars().take(400).collect()),
        address: from.address,
        created_at: now,
        last_used_at: now,
        expires_at: now + change.context().sso.refresh_token_ttl,
        ended_at: None,
    };
    session::insert(change.tx(), &started).await?;
    user::note_login(change.tx(), &user.org, user.id, now).await?;
    Ok((pool, started))
}

/// An access token without a refresh token, to be shown once.
#[derive(Debug)]
pub struct AccessGrant {
    /// The access token.
    pub access_token: SecretText,
    /// How long it lives, in seconds.
    pub expires_in: i64,
    /// What it says of the person.
    pub claims: UserClaims,
    /// The session.
    pub session: Session,
}

/// Makes tokens in a session that goes on, and that the caller has begun or locked.
pub async fn issue(
    change: &mut Change,
    pool: &SsoPool,
    session: &Session,
    user: &User,
    pair: PairFor,
) -> Result<TokenPair, SessionError> {
    let AccessGrant { access_token, expires_in, claims, session } =
        issue_access_token(change, pool, session, user, &pair).await?;
    let refresh = generate_secret(&mut change.rng());
    let stored = RefreshToken {
        hash: refresh.hash(),
        org: session.org.clone(),
        session: session.id,
        app: pair.app,
        extends_session: pair.extends_session,
        scope: pair.scope.clone(),
        expires_at: session.expires_at,
        rotated_at: None,
        retried_at: None,
    };
    let now = change.now();
    refresh_token::insert(change.tx(), &stored, now).await?;
    let scope = pair.narrowed.or(pair.scope);
    Ok(TokenPair { access_token, refresh_token: refresh, expires_in, claims, session, scope })
}

/// Makes an access token alone, in a session that goes on, and that the caller has begun or locked.
pub async fn issue_access_token(
    change: &mut Change,
    pool: &SsoPool,
    session: &Session,
    user: &User,
    pair: &PairFor,
) -> Result<AccessGrant, SessionError> {
    let now = change.now();
    let settings = change.context().sso.clone();
    if !session.is_live(now) || user.status != UserStatus::Enabled {
        return Err(SessionError::Over);
    }
    let expires_at = if pair.extends_session { now + settings.refresh_token_ttl } else { session.expires_at };
    let used = Session { last_used_at: now, expires_at, ..session.clone() };
    // One that has just begun says so already.
    if used != *session {
        session::note_use(change.tx(), &used).await?;
    }
    let session = used;

    let (block, stale) = status_block::allocate_to_session(change.tx(), pool.id, session.id, now).await?;
    for key in stale {
        change.mark(key, Priority::Change);
    }
    // A longer life than the pool's document tells of would outlive its status.
    let longest = Duration::seconds(pool.token_ttl_seconds.into()).min(settings.access_token_ttl);
    let ttl = longest.min(expires_at - now).whole_seconds();
    let claims = UserClaims::of(user, &pool.org_name, pair.app);
    let (iat, mut rng) = (unix(now), change.rng());
    let token = AccessToken {
        claims: &claims,
        session: session.id,
        jti: random_uuid(&mut rng).to_string(),
        iat,
        exp: iat + ttl.unsigned_abs(),
        scope: pair.narrowed.as_deref().or(pair.scope.as_deref()),
        status: block.and_then(|block| block.next_index(0)),
    };
    let access_token = PoolSigner::open(change.context(), pool)?.access_token(&token)?;
    Ok(AccessGrant { access_token, expires_in: ttl, claims, session })
}

/// What becomes of a refresh token that is used.
enum Use {
    First,
    Retry,
    /// Somebody else has it too.
    Stolen,
}

/// What a refresh token is to give.
#[derive(Clone, Copy, Debug, Default)]
pub struct Refreshing {
    /// The client app whose it must be, where that is asked for.
    pub app: Option<SsoAppId>,
    /// What the access token shall be for, of what was granted (RFC 6749 §6); all of it where it is not said. The next
    /// refresh token is for all of it again.
    pub scope: Option<OpenIdScope>,
}

/// Goes on with a refresh token.
///
/// Any use but the first, and one retry within [`RETRY_WINDOW`] of it, ends the session: somebody else has the token.
pub async fn refresh(
    context: &Context,
    source: RequestSource,
    token: &str,
    Refreshing { app, scope: wanted }: Refreshing,
) -> Result<TokenPair, SessionError> {
    let hash = SecretHash::of(token.as_bytes());
    let actor = source.actor(audit::ActorKind::User, None, None);
    let mut change = Change::begin(context, &std::sync::Arc::new(actor)).await?;
    let found = refresh_token::find(change.tx(), &hash).await?.ok_or(SessionError::Over)?;
    let session = session::lock(change.tx(), &found.org, found.session).await?.ok_or(SessionError::Over)?;
    // Read again: whoever held the lock may have used it.
    let mut found = refresh_token::find(change.tx(), &hash).await?.ok_or(SessionError::Over)?;
    let now = change.now();
    if !session.is_live(now) || app.is_some() && app != found.app {
        return Err(SessionError::Over);
    }
    let narrowed = narrow(found.scope.as_deref(), wanted);
    match use_of(&found, now) {
        Use::First | Use::Retry if narrowed.is_err() => return Err(SessionError::WiderScope),
        Use::First if now >= found.expires_at => return Err(SessionError::Over),
        Use::First => found.rotated_at = Some(now),
        Use::Retry => found.retried_at = Some(now),
        Use::Stolen => {
            end(&mut change, &session.org, Which::One(session.id), "refresh_token_reused").await?;
            change.commit().await?;
            return Err(SessionError::Over);
        }
    }
    refresh_token::update(change.tx(), &found).await?;
    let pool = pool::find(change.tx(), &session.org).await?.ok_or(SessionError::Over)?;
    let user = user::find(change.tx(), &session.org, session.user).await?.ok_or(SessionError::Over)?;
    let RefreshToken { app, extends_session, scope, .. } = found;
    let pair = PairFor { app, extends_session, scope, narrowed: narrowed? };
    let pair = issue(&mut change, &pool, &session, &user, pair).await?;
    change.commit().await?;
    Ok(pair)
}

/// The scopes of an access token, where they are to be fewer than those that were granted. Outside of OpenID Connect's flow
/// there are none, and there is nothing to narrow.
fn narrow(granted: Option<&str>, wanted: Option<OpenIdScope>) -> Result<Option<String>, SessionError> {
    let (Some(text), Some(wanted)) = (granted, wanted) else { return Ok(None) };
    let granted =
        OpenIdScope::parse(text).map_err(|error| StoreError::unreadable("refresh_token.scope", error))?;
    if wanted.within(granted) == wanted {
        Ok(Some(wanted.to_string()))
    } else {
        Err(SessionError::WiderScope)
    }
}

fn use_of(token: &RefreshToken, now: OffsetDateTime) -> Use {
    match (token.rotated_at, token.retried_at) {
        (None, _) => Use::First,
        (Some(used), None) if now - used <= RETRY_WINDOW => Use::Retry,
        (Some(_), _) => Use::Stolen,
    }
}

/// Ends sessions of an organization, with all tokens that have come of them; at most a thousand. Answers with how many.
pub async fn end(
    change: &mut Change,
    org: &OrgId,
    which: Which,
    why: &'static str,
) -> Result<usize, StoreError> {
    let now = change.now();
    let ended = session::end(change.tx(), org, which, now, SESSIONS_AT_ONCE).await?;
    let ids: Vec<SessionId> = ended.iter().map(|(_, session)| *session).collect();
    // An organization has one pool of people.
    if let Some((pool, _)) = ended.first() {
        let owners: Vec<ClientId> = ids.iter().copied().map(ClientId::from).collect();
        change.revoke_tokens(*pool, &owners).await?;
    }
    for session in &ids {
        let target =
            Target { org: Some(org.clone()), env: None, kind: "sso_session", id: session.to_string() };
        change.record(Event::new(target, "end", json!({"reason": why})));
    }
    Ok(ended.len())
}

/// Whether a change has ended as many sessions as one may, so that there may be more.
pub fn may_be_more(ended: usize) -> bool {
    i64::try_from(ended).is_ok_and(|ended| ended >= SESSIONS_AT_ONCE)
}
