//! `device`, `device_app`, `oauth_client` and `otp`, many rows at once.
//!
//! Whatever is written is written in the order of the devices' ids, so that several imports never wait for each other in a
//! circle.

use std::collections::{BTreeMap, BTreeSet};

use keypost_shared::id::{ClientAppId, ClientId, DeviceId};
use keypost_shared::scope::Scopes;
use keypost_shared::secret::SecretHash;
use serde_json::value::RawValue;
use sqlx::PgConnection;
use sqlx::types::Json;
use time::OffsetDateTime;
use uuid::Uuid;

use super::device::{Device, Row};
use super::device_app::DeviceApp;
use super::environment::EnvScope;
use super::{StoreError, corrupt, id};

/// An app that is on a device already.
#[derive(Clone, Debug)]
pub struct PresentApp {
    /// Its id.
    pub id: Uuid,
    /// Its OAuth client.
    pub client_id: ClientId,
    /// What its tokens may be for.
    pub scopes: Scopes,
    /// Whether its client may have tokens.
    pub enabled: bool,
    /// Whether its client has a secret.
    pub activated: bool,
    /// When its one-time password was made, used or not.
    pub otp_created_at: Option<OffsetDateTime>,
}

/// A one-time password for an app.
#[derive(Clone, Debug)]
pub struct AppOtp {
    /// The app.
    pub app: Uuid,
    /// The password's keyed hash.
    pub code_hmac: [u8; 32],
}

/// Adds those of the devices, which must be in the order of their ids, that are not there. Answers which they are.
///
/// [`StoreError::is_dangling`] where the environment has gone.
pub async fn insert_missing(
    tx: &mut PgConnection,
    scope: &EnvScope,
    devices: &[&Device],
) -> Result<BTreeSet<DeviceId>, StoreError> {
    let texts =
        |of: fn(&Device) -> &str| devices.iter().map(|device| of(device).to_owned()).collect::<Vec<_>>();
    let options = |of: fn(&Device) -> Option<&str>| {
        devices.iter().map(|device| of(device).map(ToOwned::to_owned)).collect::<Vec<_>>()
    };
    let tags: Vec<Json<&BTreeMap<String, String>>> =
        devices.iter().map(|device| Json(&device.tags)).collect();
    // Arrays of arrays must be rectangular, so each list goes as one text. A URL has no space in it.
    let server_urls: Vec<String> = devices.iter().map(|device| device.server_urls.join(" ")).collect();
    let activated: Vec<Option<OffsetDateTime>> =
        devices.iter().map(|device| device.last_activated_at).collect();
    let created: Vec<OffsetDateTime> = devices.iter().map(|device| device.created_at).collect();
    let updated: Vec<OffsetDateTime> = devices.iter().map(|device| device.updated_at).collect();
    let added = sqlx::query_scalar!(
        r#"insert into device
               (org_id, env_id, id, name, description, metadata, tags, primary_server_url, server_urls, status,
                last_activated_at, created_at, updated_at)
           select $1, $2, d.id, d.name, d.description, d.metadata::json, d.tags, d.primary_server_url,
                  string_to_array(d.server_urls, ' '), d.status, d.last_activated_at, d.created_at, d.updated_at
             from unnest($3::text[], $4::text[], $5::text[], $6::text[], $7::jsonb[], $8::text[], $9::text[],
                         $10::text[], $11::timestamptz[], $12::timestamptz[], $13::timestamptz[])
                  with ordinality
                  as d (id, name, description, metadata, tags, primary_server_url, server_urls, status,
                        last_activated_at, created_at, updated_at, place)
            order by d.place
           on conflict do nothing
           returning id"#,
        scope.org().as_str(),
        scope.env().as_str(),
        &texts(|device| device.id.as_str()),
        &texts(|device| &device.name),
        &options(|device| device.description.as_deref()) as _,
        &texts(|device| device.metadata.get()),
        &tags as _,
        &options(|device| device.primary_server_url.as_deref()) as _,
        &server_urls,
        &texts(|device| device.status.as_str()),
        &activated as _,
        &created,
        &updated,
    )
    .fetch_all(tx)
    .await?;
    added.iter().map(|text| id("device.id", text)).collect()
}

/// Those of the devices that are there.
pub async fn find(
    tx: &mut PgConnection,
    scope: &EnvScope,
    devices: &[&DeviceId],
) -> Result<BTreeMap<DeviceId, Device>, StoreError> {
    let rows = sqlx::query_as!(
        Row,
        r#"select id, name, description, metadata as "metadata: Json<Box<RawValue>>",
                  tags as "tags: Json<BTreeMap<String, String>>", primary_server_url, server_urls, status,
                  last_activated_at, provisioned_by, provisioned_at, certificate_fingerprint, created_at, updated_at
             from device
            where org_id = $1 and env_id = $2 and id = any($3)"#,
        scope.org().as_str(),
        scope.env().as_str(),
        &texts(devices),
    )
    .fetch_all(tx)
    .await?;
    rows.into_iter()
        .map(|row| {
            let device = Device::try_from(row)?;
            Ok((device.id.clone(), device))
        })
        .collect()
}

/// Adds those of the apps, which must be in the order of their devices, that are not there, each with its client, whose
/// secret is the one at its place if there is one. Answers which devices got theirs.
pub async fn insert_missing_apps(
    tx: &mut PgConnection,
    scope: &EnvScope,
    apps: &[DeviceApp],
    secrets: &[Option<SecretHash>],
) -> Result<BTreeSet<DeviceId>, StoreError> {
    let ids: Vec<Uuid> = apps.iter().map(|app| app.id).collect();
    let texts = |of: fn(&DeviceApp) -> &str| apps.iter().map(|app| of(app).to_owned()).collect::<Vec<_>>();
    let scopes: Vec<String> =
        apps.iter().map(|app| app.scopes.iter().collect::<Vec<_>>().join(" ")).collect();
    let created: Vec<OffsetDateTime> = apps.iter().map(|app| app.created_at).collect();
    let secrets: Vec<Option<Vec<u8>>> =
        secrets.iter().map(|secret| secret.as_ref().map(|hash| hash.as_bytes().to_vec())).collect();
    let added = sqlx::query!(
        r#"insert into device_app (id, org_id, env_id, device_id, client_app_id, created_at, updated_at)
           select a.id, $1, $2, a.device_id, a.client_app_id, a.created_at, a.created_at
             from unnest($3::uuid[], $4::text[], $5::text[], $6::timestamptz[]) with ordinality
                  as a (id, device_id, client_app_id, created_at, place)
            order by a.place
           on conflict (org_id, env_id, device_id, client_app_id) do nothing
           returning id, device_id"#,
        scope.org().as_str(),
        scope.env().as_str(),
        &ids,
        &texts(|app| app.device_id.as_str()),
        &texts(|app| app.client_app_id.as_str()),
        &created,
    )
    .fetch_all(&mut *tx)
    .await?;
    let added_ids: Vec<Uuid> = added.iter().map(|row| row.id).collect();
    sqlx::query!(
        "insert into oauth_client
             (client_id, org_id, env_id, pool_id, device_app_id, name, scopes, status, secret_hash, secret_created_at,
              created_at, updated_at)
         select c.client_id, $1, $2, $3, c.app_id, c.name, string_to_array(c.scopes, ' '), 'enabled', c.secret_hash,
                case when c.secret_hash is not null then c.created_at end, c.created_at, c.created_at
           from unnest($4::uuid[], $5::text[], $6::text[], $7::text[], $8::bytea[], $9::timestamptz[]) with ordinality
                as c (app_id, client_id, name, scopes, secret_hash, created_at, place)
          where c.app_id = any($10)
          order by c.place",
        scope.org().as_str(),
        scope.env().as_str(),
        scope.pool().0,
        &ids,
        &texts(|app| app.client_id.as_str()),
        &texts(|app| app.client_app_id.as_str()),
        &scopes,
        &secrets as _,
        &created,
        &added_ids,
    )
    .execute(tx)
    .await?;
    added.iter().map(|row| id("device_app.device_id", &row.device_id)).collect()
}

/// Those of the devices that have this app, with it.
pub async fn find_apps(
    tx: &mut PgConnection,
    scope: &EnvScope,
    app: &ClientAppId,
    devices: &[&DeviceId],
) -> Result<BTreeMap<DeviceId, PresentApp>, StoreError> {
    let rows = sqlx::query!(
        r#"select a.device_id, a.id, c.client_id, c.scopes, c.status = 'enabled' as "enabled!",
                  c.secret_hash is not null as "activated!", o.created_at as "otp_created_at?"
             from device_app a
             join oauth_client c on c.org_id = a.org_id and c.env_id = a.env_id and c.device_app_id = a.id
             left join otp o on o.org_id = a.org_id and o.device_app_id = a.id
            where a.org_id = $1 and a.env_id = $2 and a.client_app_id = $3 and a.device_id = any($4)"#,
        scope.org().as_str(),
        scope.env().as_str(),
        app.as_str(),
        &texts(devices),
    )
    .fetch_all(tx)
    .await?;
    rows.into_iter()
        .map(|row| {
            let present = PresentApp {
                id: row.id,
                client_id: id("oauth_client.client_id", &row.client_id)?,
                scopes: Scopes::new(row.scopes).map_err(|error| corrupt("oauth_client.scopes", error))?,
                enabled: row.enabled,
                activated: row.activated,
                otp_created_at: row.otp_created_at,
            };
            Ok((id("device_app.device_id", &row.device_id)?, present))
        })
        .collect()
}

/// Gives apps one-time passwords; earlier ones of the apps end.
///
/// [`StoreError::is_duplicate`] where a password happens to be in use: the caller draws others.
pub async fn replace_otps(
    tx: &mut PgConnection,
    scope: &EnvScope,
    otps: &[AppOtp],
    created_at: OffsetDateTime,
    expires_at: OffsetDateTime,
) -> Result<(), StoreError> {
    let apps: Vec<Uuid> = otps.iter().map(|otp| otp.app).collect();
    let hmacs: Vec<Vec<u8>> = otps.iter().map(|otp| otp.code_hmac.to_vec()).collect();
    sqlx::query!(
        "insert into otp (device_app_id, org_id, code_hmac, created_at, expires_at, used_at, wrong_tries)
         select o.app, $1, o.code_hmac, $2, $3, null, 0
           from unnest($4::uuid[], $5::bytea[]) with ordinality as o (app, code_hmac, place)
          order by o.place
         on conflict (device_app_id) do update
            set code_hmac = excluded.code_hmac, created_at = excluded.created_at, expires_at = excluded.expires_at,
                used_at = null, wrong_tries = 0
          where otp.org_id = excluded.org_id",
        scope.org().as_str(),
        created_at,
        expires_at,
        &apps,
        &hmacs,
    )
    .execute(tx)
    .await?;
    Ok(())
}

/// Notes that devices have clients now that can get tokens. Those that are disabled stay so, and are not among the answer.
///
/// Like an activation it changes devices first and then clients.
pub async fn activate_devices(
    tx: &mut PgConnection,
    scope: &EnvScope,
    devices: &[&DeviceId],
    now: OffsetDateTime,
) -> Result<BTreeSet<DeviceId>, StoreError> {
    let activated = sqlx::query_scalar!(
        "update device d
            set status = 'active', last_activated_at = $4, updated_at = greatest($4, d.updated_at + interval '1 microsecond')
           from (select org_id, env_id, id
                   from device
                  where org_id = $1 and env_id = $2 and id = any($3) and status <> 'disabled'
                  order by id
                    for no key update) as wanted
          where d.org_id = wanted.org_id and d.env_id = wanted.env_id and d.id = wanted.id
        returning d.id",
        scope.org().as_str(),
        scope.env().as_str(),
        &texts(devices),
        now,
    )
    .fetch_all(tx)
    .await?;
    activated.iter().map(|text| id("device.id", text)).collect()
}

/// Gives those of the clients secrets that have none. Answers which got theirs.
pub async fn set_missing_secrets(
    tx: &mut PgConnection,
    scope: &EnvScope,
    secrets: &[(&ClientId, SecretHash)],
    now: OffsetDateTime,
) -> Result<BTreeSet<ClientId>, StoreError> {
    let clients: Vec<String> = secrets.iter().map(|(client, _)| client.as_str().to_owned()).collect();
    let hashes: Vec<Vec<u8>> = secrets.iter().map(|(_, hash)| hash.as_bytes().to_vec()).collect();
    let changed = sqlx::query_scalar!(
        "update oauth_client c
            set secret_hash = wanted.secret_hash, secret_created_at = $3, updated_at = $3
           from (select client_id, w.secret_hash
                   from oauth_client
                   join unnest($4::text[], $5::bytea[]) as w (id, secret_hash) on w.id = client_id
                  where org_id = $1 and env_id = $2 and oauth_client.secret_hash is null and status = 'enabled'
                  order by client_id
                    for no key update of oauth_client) as wanted
          where c.org_id = $1 and c.env_id = $2 and c.client_id = wanted.client_id
        returning c.client_id",
        scope.org().as_str(),
        scope.env().as_str(),
        now,
        &clients,
        &hashes,
    )
    .fetch_all(tx)
    .await?;
    changed.iter().map(|text| id("oauth_client.client_id", text)).collect()
}

fn texts(devices: &[&DeviceId]) -> Vec<String> {
    devices.iter().map(|device| device.as_str().to_owned()).collect()
}
