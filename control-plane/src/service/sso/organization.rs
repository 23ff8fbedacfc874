//! Organizations as their owners see them, with the pool of their people and the key `org_…`.

use keypost_shared::id::{OrgId, PoolId, UserId};
use keypost_shared::kv_key::KvKey;
use keypost_shared::secret::{ApiKey, KeyKind};
use serde_json::json;
use sqlx::PgConnection;
use time::format_description::well_known::Rfc3339;
use time::{Duration, OffsetDateTime};

use super::super::access::{MayFound, OrgScope};
use super::super::audit::{Event, Target};
use super::super::change::Change;
use super::super::organization::{self, Founded, NewOrganization};
use super::super::{ChangeError, Context, CreateError};
use super::manager::Manager;
use crate::entropy::random_uuid;
use crate::store::organization::Organization;
use crate::store::sso::key::{self, KeyHolder};
use crate::store::sso::{owner, pool};
use crate::store::{self, StoreError};

/// The most organizations that one person founds.
const MOST_OWNED: i64 = 50;

/// An organization, with what its owner needs of its pool.
#[derive(Clone, Debug)]
pub struct Listed {
    /// The organization.
    pub organization: Organization,
    /// The pool of its people; none for a moment, in an organization from before there were any.
    pub sso_pool: Option<PoolId>,
    /// Whether the pool's document has been in KV.
    pub published: bool,
}

/// Why an organization is not founded.
#[derive(Debug, thiserror::Error)]
pub enum FoundError {
    /// As many as one person may have.
    #[error("a person owns at most {MOST_OWNED} organizations")]
    TooMany,
    /// The key of an organization founds no other.
    #[error("an organization's key cannot create another organization")]
    ByKey,
    /// The database, or a duplicate.
    #[error(transparent)]
    Create(#[from] CreateError),
}

impl From<StoreError> for FoundError {
    fn from(error: StoreError) -> Self {
        Self::Create(error.into())
    }
}

/// Founds an organization: for an owner one more of theirs, for a global admin one that nobody owns yet. Answers with its
/// key, to be shown once.
pub async fn found(
    change: &mut Change,
    manager: &Manager,
    new: NewOrganization,
) -> Result<(Founded, ApiKey), FoundError> {
    match manager {
        Manager::Everything(scope) => {
            let founded = organization::create(change, scope.into(), new).await?;
            let key = add_key(change, &founded.organization.id).await?;
            Ok((founded, key))
        }
        Manager::Key(_) => Err(FoundError::ByKey),
        Manager::Owner { id, .. } => {
            if owner::count_locked(change.tx(), *id).await? >= MOST_OWNED {
                return Err(FoundError::TooMany);
            }
            let (founded, key) = begin(change, new).await?;
            add_owner(change, &founded.organization.id, *id).await?;
            Ok((founded, key))
        }
    }
}

/// Founds an organization for a person whom the same transaction adds next, and who is then made its
/// [owner](add_owner). Answers with its key, to be shown once.
pub async fn begin(change: &mut Change, new: NewOrganization) -> Result<(Founded, ApiKey), CreateError> {
    let founded = organization::create(change, MayFound::as_its_owner(), new).await?;
    let key = add_key(change, &founded.organization.id).await?;
    Ok((founded, key))
}

/// Makes a person the owner of an organization.
pub async fn add_owner(change: &mut Change, org: &OrgId, user: UserId) -> Result<(), CreateError> {
    let now = change.now();
    owner::insert(change.tx(), org, user, now).await?;
    let target = organization::target(org);
    change.record(Event::new(target, "add_owner", json!({"after": {"userId": user}})));
    Ok(())
}

async fn add_key(change: &mut Change, org: &OrgId) -> Result<ApiKey, StoreError> {
    let (now, mut rng) = (change.now(), change.rng());
    let key = ApiKey::generate(KeyKind::SsoOrganization, &mut rng);
    let holder = KeyHolder { key_id: random_uuid(&mut rng), org: org.clone(), app: None };
    key::insert(change.tx(), &holder, &key.hash(), now).await?;
    Ok(key)
}

/// A key that has taken another's place.
pub struct Rotated {
    /// The key, to be shown once.
    pub key: ApiKey,
    /// Until when the one before counts; none where it does no more.
    pub previous_expires_at: Option<OffsetDateTime>,
}

impl Rotated {
    /// What is told of it.
    pub(super) fn event(&self, target: Target) -> Event {
        let until = self.previous_expires_at.and_then(|until| until.format(&Rfc3339).ok());
        Event::new(target, "rotate_key", json!({"after": {"previousExpiresAt": until}}))
    }
}

/// Gives an organization another key. The one before counts for the overlap; one that was before that ends now.
pub async fn rotate_key(
    change: &mut Change,
    scope: &OrgScope,
    overlap_seconds: u32,
) -> Result<Rotated, ChangeError> {
    store::organization::find_for_update(change.tx(), scope).await?.ok_or(ChangeError::Gone)?;
    let now = change.now();
    let until = now + Duration::seconds(overlap_seconds.into());
    key::end_older(change.tx(), scope.org(), None).await?;
    key::expire(change.tx(), scope.org(), None, until).await?;
    let rotated = Rotated {
        key: add_key(change, scope.org()).await?,
        previous_expires_at: (overlap_seconds > 0).then_some(until),
    };
    change.record(rotated.event(organization::target(scope.org())));
    Ok(rotated)
}

/// An organization with its pool.
pub async fn with_pool(context: &Context, organization: Organization) -> Result<Listed, StoreError> {
    let mut connection = context.connection().await?;
    let unknown = Listed { organization: organization.clone(), sso_pool: None, published: false };
    Ok(with_pools(&mut connection, vec![organization]).await?.pop().unwrap_or(unknown))
}

pub(super) async fn with_pools(
    connection: &mut PgConnection,
    organizations: Vec<Organization>,
) -> Result<Vec<Listed>, StoreError> {
    let ids: Vec<OrgId> = organizations.iter().map(|organization| organization.id.clone()).collect();
    let pools = pool::of_organizations(connection, &ids).await?;
    let keys: Vec<KvKey> = pools.values().copied().map(KvKey::Pool).collect();
    let published = store::publication::ever_published(connection, &keys).await?;
    let listed = organizations.into_iter().map(|organization| {
        let sso_pool = pools.get(&organization.id).copied();
        let published = sso_pool.is_some_and(|pool| published.contains(&KvKey::Pool(pool)));
        Listed { organization, sso_pool, published }
    });
    Ok(listed.collect())
}
