//! Client apps: the applications of an organization that its people sign in to, each with a key (`app_…`).

use keypost_shared::id::{ClientId, SsoAppId};
use keypost_shared::kv_key::KvKey;
use keypost_shared::secret::{ApiKey, KeyKind};
use time::Duration;
use utoipa::ToSchema;

use super::super::access::OrgScope;
use super::super::audit::{Event, Target};
use super::super::change::Change;
use super::super::{ChangeError, Context};
use super::organization::Rotated;
use crate::entropy::random_uuid;
use crate::store::publication::{Mark, Priority};
use crate::store::sso::client_app::{self, ClientApp};
use crate::store::sso::key::{self, KeyHolder};
use crate::store::sso::pool;
use crate::store::{self, StoreError};

/// The most client apps of an organization.
const MOST_APPS: i64 = 500;

/// What an owner says of a client app.
#[derive(Clone, Debug, ToSchema)]
#[schema(rename_all = "camelCase")]
pub struct ClientAppSettings {
    /// Its name.
    #[schema(min_length = 1, max_length = 200)]
    pub name: String,
    /// What it is.
    #[schema(max_length = 2000)]
    pub description: Option<String>,
    /// Where people may be sent after they have signed in on the hosted page: absolute, `https`, or `http` on this machine.
    #[schema(value_type = Option<Vec<String>>, max_items = 32)]
    pub redirect_uris: Vec<String>,
    /// The origins whose pages may call with its key (CORS), such as `https://app.example.com`.
    #[schema(value_type = Option<Vec<String>>, max_items = 32)]
    pub origins: Vec<String>,
    /// Whether whoever holds its key may create users; true unless said otherwise.
    #[schema(value_type = Option<bool>)]
    pub public_signup: bool,
    /// The members of `user_metadata` that a user may bring along; any where none are given.
    #[schema(max_items = 64)]
    pub signup_metadata_keys: Option<Vec<String>>,
}

/// Why a client app is not created.
#[derive(Debug, thiserror::Error)]
pub enum CreateAppError {
    /// As many as an organization may have.
    #[error("an organization has at most {MOST_APPS} client apps")]
    TooMany,
    /// The organization is gone, or the database.
    #[error(transparent)]
    Change(#[from] ChangeError),
}

impl From<StoreError> for CreateAppError {
    fn from(error: StoreError) -> Self {
        Self::Change(error.into())
    }
}

/// Creates a client app. Answers with its key, to be shown once.
pub async fn create(
    change: &mut Change,
    scope: &OrgScope,
    settings: ClientAppSettings,
) -> Result<(ClientApp, ApiKey), CreateAppError> {
    // Nobody adds another one meanwhile, and nobody deletes the organization.
    store::organization::find_for_update(change.tx(), scope).await?.ok_or(ChangeError::Gone)?;
    if client_app::count(change.tx(), scope).await? >= MOST_APPS {
        return Err(CreateAppError::TooMany);
    }
    let now = change.now();
    let app = ClientApp {
        id: SsoAppId(random_uuid(&mut change.rng())),
        org_id: scope.org().clone(),
        name: settings.name,
        description: settings.description,
        redirect_uris: settings.redirect_uris,
        origins: settings.origins,
        public_signup: settings.public_signup,
        signup_metadata_keys: settings.signup_metadata_keys,
        created_at: now,
        updated_at: now,
    };
    client_app::insert(change.tx(), scope, &app).await?;
    change.record(Event::created(target(&app), &app));
    let key = add_key(change, &app).await?;
    if let Some(document) = document(change, &app).await? {
        change.mark(document, Priority::Change);
    }
    Ok((app, key))
}

/// Client apps of the organization, by id, after `after`.
pub async fn list(
    context: &Context,
    scope: &OrgScope,
    after: Option<SsoAppId>,
    rows: i64,
) -> Result<Vec<ClientApp>, StoreError> {
    let mut connection = context.connection().await?;
    client_app::list(&mut connection, scope, after, rows).await
}

/// A client app of the organization.
pub async fn find(
    context: &Context,
    scope: &OrgScope,
    app: SsoAppId,
) -> Result<Option<ClientApp>, StoreError> {
    let mut connection = context.connection().await?;
    client_app::find(&mut connection, scope.org(), app).await
}

/// Replaces what can be changed of a client app. Its key stays.
pub async fn replace(
    context: &Context,
    scope: &OrgScope,
    app: SsoAppId,
    settings: ClientAppSettings,
) -> Result<ClientApp, ChangeError> {
    let mut change = Change::begin(context, scope.actor()).await?;
    let before = client_app::find_for_update(change.tx(), scope, app).await?.ok_or(ChangeError::Gone)?;
    let after = ClientApp {
        name: settings.name,
        description: settings.description,
        redirect_uris: settings.redirect_uris,
        origins: settings.origins,
        public_signup: settings.public_signup,
        signup_metadata_keys: settings.signup_metadata_keys,
        updated_at: change.touch(before.updated_at),
        ..before.clone()
    };
    client_app::update(change.tx(), scope, &after).await?;
    change.record(Event::updated(target(&after), &before, &after));
    change.commit().await?;
    Ok(after)
}

/// Gives a client app another key. The one before counts for the overlap, here and at the edge; one that was before that
/// ends now.
pub async fn rotate_key(
    change: &mut Change,
    scope: &OrgScope,
    app: SsoAppId,
    overlap_seconds: u32,
) -> Result<Rotated, ChangeError> {
    let app = client_app::find_for_update(change.tx(), scope, app).await?.ok_or(ChangeError::Gone)?;
    let until = change.now() + Duration::seconds(overlap_seconds.into());
    let ends_one_early = key::end_older(change.tx(), scope.org(), Some(app.id)).await?;
    key::expire(change.tx(), scope.org(), Some(app.id), until).await?;
    let rotated = Rotated {
        key: add_key(change, &app).await?,
        previous_expires_at: (overlap_seconds > 0).then_some(until),
    };
    if let Some(document) = document(change, &app).await? {
        if overlap_seconds > 0 && !ends_one_early {
            change.lose_later(document, until);
        } else {
            change.lose(document);
        }
    }
    change.record(rotated.event(target(&app)));
    Ok(rotated)
}

/// Deletes a client app with its keys and its users: their sessions end, and their tokens.
pub async fn delete(context: &Context, scope: &OrgScope, app: SsoAppId) -> Result<(), ChangeError> {
    if super::deletion::delete_app(context, scope, app).await? { Ok(()) } else { Err(ChangeError::Gone) }
}

/// Waits until a client app's document is in KV, for a while. Says whether it is.
pub async fn wait_until_published(context: &Context, marks: Vec<Mark>) -> bool {
    context.publications.published(&marks).await
}

async fn add_key(change: &mut Change, app: &ClientApp) -> Result<ApiKey, StoreError> {
    let (now, mut rng) = (change.now(), change.rng());
    let key = ApiKey::generate(KeyKind::SsoApp, &mut rng);
    let holder = KeyHolder { key_id: random_uuid(&mut rng), org: app.org_id.clone(), app: Some(app.id) };
    key::insert(change.tx(), &holder, &key.hash(), now).await?;
    Ok(key)
}

/// What the edge knows a client app by; none for a moment, in an organization from before there were pools of people.
async fn document(change: &mut Change, app: &ClientApp) -> Result<Option<KvKey>, StoreError> {
    let pool = pool::find_id(change.tx(), &app.org_id).await?;
    Ok(pool.map(|pool| KvKey::Client(pool, ClientId::from(app.id))))
}

pub(super) fn target(app: &ClientApp) -> Target {
    Target { org: Some(app.org_id.clone()), env: None, kind: "client_app", id: app.id.to_string() }
}
