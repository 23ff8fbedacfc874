//! `sso_session`: sign-ins, each with all that comes of it.

use keypost_shared::id::{OrgId, PoolId, SessionId, SsoAppId, UserId};
use sqlx::PgConnection;
use time::OffsetDateTime;
use uuid::Uuid;

use super::super::{StoreError, id};

/// A sign-in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Session {
    /// The claim `sid`.
    pub id: SessionId,
    /// The organization.
    pub org: OrgId,
    /// The organization's sso pool.
    pub pool: PoolId,
    /// Who signed in.
    pub user: UserId,
    /// Where; none for an owner.
    pub app: Option<SsoAppId>,
    /// What the person signed in with, as far as it says.
    pub user_agent: Option<String>,
    /// Where from.
    pub address: Option<String>,
    /// When.
    pub created_at: OffsetDateTime,
    /// When tokens were last got in it.
    pub last_used_at: OffsetDateTime,
    /// When it ends unless it is refreshed.
    pub expires_at: OffsetDateTime,
    /// When it was ended.
    pub ended_at: Option<OffsetDateTime>,
}

impl Session {
    /// Whether it goes on at this time.
    pub fn is_live(&self, now: OffsetDateTime) -> bool {
        self.ended_at.is_none() && now < self.expires_at
    }
}

struct Row {
    id: Uuid,
    org_id: String,
    pool_id: Uuid,
    user_id: Uuid,
    client_app_id: Option<Uuid>,
    user_agent: Option<String>,
    address: Option<String>,
    created_at: OffsetDateTime,
    last_used_at: OffsetDateTime,
    expires_at: OffsetDateTime,
    ended_at: Option<OffsetDateTime>,
}

impl Row {
    fn read(self) -> Result<Session, StoreError> {
        Ok(Session {
            id: SessionId(self.id),
            org: id("sso_session.org_id", &self.org_id)?,
            pool: PoolId(self.pool_id),
            user: UserId(self.user_id),
            app: self.client_app_id.map(SsoAppId),
            user_agent: self.user_agent,
            address: self.address,
            created_at: self.created_at,
            last_used_at: self.last_used_at,
            expires_at: self.expires_at,
            ended_at: self.ended_at,
        })
    }
}

/// Adds a session.
pub async fn insert(tx: &mut PgConnection, session: &Session) -> Result<(), StoreError> {
    sqlx::query!(
        "insert into sso_session (id, org_id, pool_id, user_id, client_app_id, user_agent, address, created_at,
                                  last_used_at, expires_at)
         values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)",
        session.id.0,
        session.org.as_str(),
        session.pool.0,
        session.user.0,
        session.app.map(|app| app.0),
        session.user_agent,
        session.address,
        session.created_at,
        session.last_used_at,
        session.expires_at,
    )
    .execute(tx)
    .await?;
    Ok(())
}

/// A session of the organization.
pub async fn find(
    tx: &mut PgConnection,
    org: &OrgId,
    session: SessionId,
) -> Result<Option<Session>, StoreError> {
    let row = sqlx::query_as!(
        Row,
        "select id, org_id, pool_id, user_id, client_app_id, user_agent, address, created_at, last_used_at, expires_at,
                ended_at
           from sso_session where org_id = $1 and id = $2",
        org.as_str(),
        session.0,
    )
    .fetch_optional(tx)
    .await?;
    row.map(Row::read).transpose()
}

/// The same, locked until the transaction ends.
pub async fn lock(
    tx: &mut PgConnection,
    org: &OrgId,
    session: SessionId,
) -> Result<Option<Session>, StoreError> {
    sqlx::query!(
        "select id from sso_session where org_id = $1 and id = $2 for update",
        org.as_str(),
        session.0,
    )
    .fetch_optional(&mut *tx)
    .await?;
    find(tx, org, session).await
}

/// A person's sessions that go on, the latest first, at most so many.
pub async fn live_of_user(
    tx: &mut PgConnection,
    org: &OrgId,
    user: UserId,
    now: OffsetDateTime,
    limit: i64,
) -> Result<Vec<Session>, StoreError> {
    let rows = sqlx::query_as!(
        Row,
        "select id, org_id, pool_id, user_id, client_app_id, user_agent, address, created_at, last_used_at, expires_at,
                ended_at
           from sso_session
          where org_id = $1 and user_id = $2 and ended_at is null and expires_at > $3
          order by created_at desc, id
          limit $4",
        org.as_str(),
        user.0,
        now,
        limit,
    )
    .fetch_all(tx)
    .await?;
    rows.into_iter().map(Row::read).collect()
}

/// Notes when tokens were last got in a session, and until when it goes on.
pub async fn note_use(tx: &mut PgConnection, session: &Session) -> Result<(), StoreError> {
    sqlx::query!(
        "update sso_session set last_used_at = $3, expires_at = $4 where org_id = $1 and id = $2",
        session.org.as_str(),
        session.id.0,
        session.last_used_at,
        session.expires_at,
    )
    .execute(tx)
    .await?;
    Ok(())
}

/// Which sessions are meant.
#[derive(Clone, Copy, Debug)]
pub enum Which {
    /// One.
    One(SessionId),
    /// All of a person.
    OfUser(UserId),
    /// All of a person but one.
    OfUserBut(UserId, SessionId),
    /// All that began at a client app.
    OfApp(SsoAppId),
    /// All of the organization.
    All,
}

/// Ends sessions of an organization that go on, at most so many. Answers with each and its pool.
pub async fn end(
    tx: &mut PgConnection,
    org: &OrgId,
    which: Which,
    now: OffsetDateTime,
    limit: i64,
) -> Result<Vec<(PoolId, SessionId)>, StoreError> {
    let (mut one, mut user, mut but, mut app) = (None, None, None, None);
    match which {
        Which::One(session) => one = Some(session.0),
        Which::OfUser(of) => user = Some(of.0),
        Which::OfUserBut(of, session) => (user, but) = (Some(of.0), Some(session.0)),
        Which::OfApp(of) => app = Some(of.0),
        Which::All => {}
    }
    let rows = sqlx::query!(
        "with meant as (
             select id from sso_session
              where org_id = $1 and ended_at is null
                and ($2::uuid is null or id = $2) and ($3::uuid is null or user_id = $3)
                and ($4::uuid is null or id <> $4) and ($5::uuid is null or client_app_id = $5)
              order by id limit $7 for update
         )
         update sso_session s set ended_at = $6 from meant where s.org_id = $1 and s.id = meant.id
         returning s.pool_id, s.id",
        org.as_str(),
        one,
        user,
        but,
        app,
        now,
        limit,
    )
    .fetch_all(tx)
    .await?;
    Ok(rows.into_iter().map(|row| (PoolId(row.pool_id), SessionId(row.id))).collect())
}
