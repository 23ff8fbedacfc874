//! Devices by the thousand: a batch of rows in one transaction, with one audit event.
//!
//! What is there is never changed. A device that is there with the same content still gets what it lacks of the app that
//! was asked for. So an import that broke off is finished by repeating it, and repeating one that did not does nothing.

use std::collections::{BTreeMap, BTreeSet};

use keypost_shared::id::{ClientAppId, ClientId, DeviceId};
use keypost_shared::kv_key::KvKey;
use keypost_shared::scope::Scopes;
use keypost_shared::secret::{Otp, SecretHash, SecretText, generate_secret};
use serde_json::value::RawValue;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use time::OffsetDateTime;

use super::audit::Event;
use super::change::Change;
use super::device::NewDevice;
use super::{Context, CreateError};
use crate::clock::seconds;
use crate::entropy::random_uuid;
use crate::store::device::{Device, DeviceCertificate, DeviceStatus};
use crate::store::device_app::DeviceApp;
use crate::store::device_import::{AppOtp, PresentApp};
use crate::store::environment::EnvScope;
use crate::store::publication::Priority;
use crate::store::{self, StoreError};

/// How often a batch is tried that PostgreSQL gave up because of others, or that drew a password that is in use.
const TRIES: u32 = 5;

/// An app that each device is to have.
#[derive(Clone, Debug)]
pub struct AppOrder {
    /// Which application it is.
    pub client_app_id: ClientAppId,
    /// What its tokens may be for.
    pub scopes: Scopes,
    /// What its device is to get.
    pub issue: Issue,
}

/// What is made for a device so that it can get tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Issue {
    /// A one-time password that is good for so long.
    Otp {
        /// In seconds.
        ttl_seconds: u32,
    },
    /// A client secret.
    Secret,
}

/// A row of an import.
#[derive(Clone, Debug)]
pub struct ImportRow {
    /// Where it stands.
    pub line: u64,
    /// What it says.
    pub device: NewDevice,
}

/// What became of a row.
#[derive(Debug)]
pub enum Outcome {
    /// The device is new.
    Created(Option<Issued>),
    /// The device was there, as the row says it; its app was not, or had nothing to get tokens with.
    Issued(Issued),
    /// All was there.
    Unchanged,
    /// What is there is something else: these fields differ, or stand in the way.
    Conflict(Vec<(&'static str, &'static str)>),
}

/// What a device gets, shown this once.
#[derive(Debug)]
pub struct Issued {
    /// The app's client.
    pub client_id: ClientId,
    /// What makes it good for something.
    pub credential: Credential,
}

/// What a device can get.
#[derive(Debug)]
pub enum Credential {
    /// A one-time password.
    Otp {
        /// The password.
        otp: Otp,
        /// When it ends.
        expires_at: OffsetDateTime,
    },
    /// The secret of its client.
    Secret(SecretText),
}

/// Imports a batch of rows of an import that began at `started_at`, all or none of them. Answers with what became of each.
pub async fn import(
    context: &Context,
    scope: &EnvScope,
    order: Option<&AppOrder>,
    started_at: OffsetDateTime,
    rows: &[ImportRow],
) -> Result<Vec<Outcome>, CreateError> {
    let mut tries = 1;
    loop {
        let mut change = Change::begin(context, scope.actor()).await?;
        let done = Batch { change: &mut change, scope, order, started_at }.run(rows).await;
        let error = match done {
            // Where nothing was made there is nothing to keep.
            Ok((outcomes, false)) => return Ok(outcomes),
            Ok((outcomes, true)) => match change.commit().await {
                Ok(_) => return Ok(outcomes),
                Err(error) => error,
            },
            Err(error) => error,
        };
        // Both are known to have left nothing behind.
        if tries == TRIES || !(error.was_rolled_back() || error.is_duplicate()) {
            return Err(error.into());
        }
        tries += 1;
    }
}

/// A batch under way.
struct Batch<'a> {
    change: &'a mut Change,
    scope: &'a EnvScope,
    order: Option<&'a AppOrder>,
    started_at: OffsetDateTime,
}

impl Batch<'_> {
    /// Answers with the outcomes, and whether anything was made.
    async fn run(mut self, rows: &[ImportRow]) -> Result<(Vec<Outcome>, bool), StoreError> {
        let now = self.change.now();
        let activated = self.order.is_some_and(|order| order.issue == Issue::Secret);
        // Of several rows with one id the first counts; the others are compared with it.
        let mut wanted: BTreeMap<&DeviceId, Device> = BTreeMap::new();
        for row in rows {
            wanted.entry(&row.device.id).or_insert_with(|| new_device(&row.device, activated, now));
        }
        let devices: Vec<&Device> = wanted.values().collect();
        let created = store::device_import::insert_missing(self.change.tx(), self.scope, &devices).await?;
        for device in &created {
            self.change.mark(KvKey::Device(self.scope.pool(), device.clone()), Priority::Change);
        }
        let there: Vec<&DeviceId> = wanted.keys().copied().filter(|id| !created.contains(id)).collect();
        let present = match there.as_slice() {
            [] => BTreeMap::new(),
            ids => store::device_import::find(self.change.tx(), self.scope, ids).await?,
        };

        let mut outcomes: BTreeMap<&DeviceId, Outcome> = BTreeMap::new();
        for id in wanted.keys().copied() {
            let outcome = match (created.contains(id), present.get(id), wanted.get(id)) {
                (true, ..) => Outcome::Created(None),
                (false, Some(there), Some(wanted)) => compare(there, wanted),
                // Deleted between the two statements.
                _ => Outcome::Conflict(vec![("id", "was there and is gone now: import it again")]),
            };
            outcomes.insert(id, outcome);
        }
        let issued = match self.order {
            Some(order) => self.issue(order, &present, &mut outcomes).await?,
            None => Vec::new(),
        };
        let made = !created.is_empty() || !issued.is_empty();
        if made {
            let created: Vec<&Device> =
                devices.into_iter().filter(|device| created.contains(&device.id)).collect();
            self.record(rows, &created, &issued);
        }
        let outcomes = rows.iter().map(|row| {
            outcomes.remove(&row.device.id).unwrap_or_else(|| {
                let first = present.get(&row.device.id).or_else(|| wanted.get(&row.device.id));
                let again = new_device(&row.device, activated, now);
                first.map_or(Outcome::Unchanged, |first| compare(first, &again))
            })
        });
        Ok((outcomes.collect(), made))
    }

    /// Sees to it that the devices that are as they should be have the app, and something to get tokens with. Answers with
    /// the apps that got it.
    async fn issue(
        &mut self,
        order: &AppOrder,
        present: &BTreeMap<DeviceId, Device>,
        outcomes: &mut BTreeMap<&DeviceId, Outcome>,
    ) -> Result<Vec<DeviceApp>, StoreError> {
        let is_disabled = |device: &DeviceId| {
            present.get(device).is_some_and(|device| device.status == DeviceStatus::Disabled)
        };
        let apps: Vec<DeviceApp> = outcomes
            .iter()
            .filter(|(_, outcome)| !matches!(outcome, Outcome::Conflict(_)))
            .map(|(device, _)| *device)
            .filter(|device| !is_disabled(device))
            .map(|device| self.new_app(order, device))
            .collect();
        let secrets: Vec<Option<SecretText>> = apps
            .iter()
            .map(|_| (order.issue == Issue::Secret).then(|| generate_secret(&mut self.change.rng())))
            .collect();
        let hashes: Vec<Option<SecretHash>> =
            secrets.iter().map(|secret| secret.as_ref().map(SecretText::hash)).collect();
        let new =
            store::device_import::insert_missing_apps(self.change.tx(), self.scope, &apps, &hashes).await?;
        let others: Vec<&DeviceId> =
            apps.iter().map(|app| &app.device_id).filter(|device| !new.contains(device)).collect();
        let there = match others.as_slice() {
            [] => BTreeMap::new(),
            devices => {
                let app = &order.client_app_id;
                store::device_import::find_apps(self.change.tx(), self.scope, app, devices).await?
            }
        };

        let mut due: Vec<(DeviceApp, Option<SecretText>)> = Vec::new();
        for (app, secret) in apps.into_iter().zip(secrets) {
            if new.contains(&app.device_id) {
                self.change.mark(KvKey::Client(self.scope.pool(), app.client_id.clone()), Priority::Change);
                self.change.mark(KvKey::Device(self.scope.pool(), app.device_id.clone()), Priority::Change);
                due.push((app, secret));
                continue;
            }
            match there.get(&app.device_id).map(|there| judge(there, order, self.started_at)) {
                Some(Ok(true)) => {
                    let id = there.get(&app.device_id).map_or(app.id, |there| there.id);
                    due.push((DeviceApp { id, ..app }, secret));
                }
                Some(Ok(false)) => {}
                Some(Err(conflict)) => set(outcomes, &app.device_id, Outcome::Conflict(vec![conflict])),
                None => {
                    let conflict = ("id", "had the app and has it no more: import it again");
                    set(outcomes, &app.device_id, Outcome::Conflict(vec![conflict]));
                }
            }
        }
        let issued = match order.issue {
            Issue::Otp { ttl_seconds } => self.issue_otps(due, ttl_seconds).await?,
            Issue::Secret => self.issue_secrets(due, present, &new).await?,
        };
        let mut apps = Vec::new();
        for (app, credential) in issued {
            let issued = Issued { client_id: app.client_id.clone(), credential };
            let outcome = match outcomes.get(&app.device_id) {
                Some(Outcome::Created(_)) => Outcome::Created(Some(issued)),
                _ => Outcome::Issued(issued),
            };
            set(outcomes, &app.device_id, outcome);
            apps.push(app);
        }
        Ok(apps)
    }

    fn new_app(&self, order: &AppOrder, device: &DeviceId) -> DeviceApp {
        DeviceApp {
            id: random_uuid(&mut self.change.rng()),
            device_id: device.clone(),
            client_id: ClientId::of_device_app(self.scope.pool(), device, &order.client_app_id),
            client_app_id: order.client_app_id.clone(),
            name: None,
            description: None,
            scopes: order.scopes.clone(),
            jwks: None,
            activated: order.issue == Issue::Secret,
            created_at: self.change.now(),
            updated_at: self.change.now(),
        }
    }

    async fn issue_otps(
        &mut self,
        due: Vec<(DeviceApp, Option<SecretText>)>,
        ttl_seconds: u32,
    ) -> Result<Vec<(DeviceApp, Credential)>, StoreError> {
        if due.is_empty() {
            return Ok(Vec::new());
        }
        let now = self.change.now();
        let expires_at = now + seconds(ttl_seconds);
        let mut rng = self.change.rng();
        let drawn: Vec<(DeviceApp, Otp)> =
            due.into_iter().map(|(app, _)| (app, Otp::generate(&mut rng))).collect();
        let master_key = &self.change.context().master_key;
        let hmacs: Vec<AppOtp> = drawn
            .iter()
            .map(|(app, otp)| AppOtp { app: app.id, code_hmac: master_key.otp_hmac(otp) })
            .collect();
        store::device_import::replace_otps(self.change.tx(), self.scope, &hmacs, now, expires_at).await?;
        let credential = |otp| Credential::Otp { otp, expires_at };
        Ok(drawn.into_iter().map(|(app, otp)| (app, credential(otp))).collect())
    }

    /// The secrets of the `new` apps are in their rows already.
    async fn issue_secrets(
        &mut self,
        due: Vec<(DeviceApp, Option<SecretText>)>,
        present: &BTreeMap<DeviceId, Device>,
        new: &BTreeSet<DeviceId>,
    ) -> Result<Vec<(DeviceApp, Credential)>, StoreError> {
        let now = self.change.now();
        let devices: Vec<&DeviceId> =
            due.iter().map(|(app, _)| &app.device_id).filter(|device| present.contains_key(device)).collect();
        if !devices.is_empty() {
            store::device_import::activate_devices(self.change.tx(), self.scope, &devices, now).await?;
        }
        let missing: Vec<(&ClientId, SecretHash)> = due
            .iter()
            .filter(|(app, _)| !new.contains(&app.device_id))
            .filter_map(|(app, secret)| Some((&app.client_id, secret.as_ref()?.hash())))
            .collect();
        let set = match missing.as_slice() {
            [] => BTreeSet::new(),
            missing => {
                store::device_import::set_missing_secrets(self.change.tx(), self.scope, missing, now).await?
            }
        };
        let mut issued = Vec::new();
        for (app, secret) in due {
            let is_set = set.contains(&app.client_id);
            if is_set {
                self.change.mark(KvKey::Client(self.scope.pool(), app.client_id.clone()), Priority::Change);
            }
            // Where it is neither, its device has been activated in this very moment.
            if let Some(secret) = secret.filter(|_| is_set || new.contains(&app.device_id)) {
                issued.push((app, Credential::Secret(secret)));
            }
        }
        Ok(issued)
    }

    /// One event for the batch. Its digest tells whether rows are those that were imported.
    fn record(&mut self, rows: &[ImportRow], created: &[&Device], issued: &[DeviceApp]) {
        let lines = || rows.iter().map(|row| row.line);
        let mut after = json!({
            "devices": created.len(),
            "firstLine": lines().min(),
            "lastLine": lines().max(),
            "digest": digest(created, issued),
        });
        if let (Some(order), Value::Object(after)) = (self.order, &mut after) {
            let what = match order.issue {
                Issue::Otp { .. } => "otps",
                Issue::Secret => "clients",
            };
            after.insert("clientAppId".to_owned(), json!(order.client_app_id));
            after.insert("scopes".to_owned(), json!(order.scopes));
            after.insert(what.to_owned(), json!(issued.len()));
        }
        self.change.record(Event {
            target: self.scope.target("environment", self.scope.env()),
            action: "device.import".to_owned(),
            changes: json!({"after": after}),
        });
    }
}

fn set(outcomes: &mut BTreeMap<&DeviceId, Outcome>, device: &DeviceId, outcome: Outcome) {
    if let Some(place) = outcomes.get_mut(device) {
        *place = outcome;
    }
}

/// A device is `activated` by an import that gives its client a secret.
fn new_device(new: &NewDevice, activated: bool, now: OffsetDateTime) -> Device {
    Device {
        id: new.id.clone(),
        name: new.name.clone(),
        description: new.description.clone(),
        metadata: new.metadata.clone(),
        tags: new.tags.clone(),
        primary_server_url: new.primary_server_url.clone(),
        server_urls: new.server_urls.clone(),
        status: if activated { DeviceStatus::Active } else { DeviceStatus::Registered },
        last_activated_at: activated.then_some(now),
        certificate: DeviceCertificate::default(),
        created_at: now,
        updated_at: now,
    }
}

/// Whether an app that is there gets something to get tokens with, which what it has already must not suffer from. The
/// error is what is wrong with it.
fn judge(
    there: &PresentApp,
    order: &AppOrder,
    started_at: OffsetDateTime,
) -> Result<bool, (&'static str, &'static str)> {
    if !(there.scopes.contains_all(&order.scopes) && order.scopes.contains_all(&there.scopes)) {
        return Err(("scopes", "of the app are others"));
    }
    if !there.enabled {
        return Err(("status", "of the app's client is disabled"));
    }
    // A password of this import, or of one at the same time, has been answered: it is of a row with the same id.
    let has_otp = there.otp_created_at.is_some_and(|created_at| created_at >= started_at);
    Ok(match order.issue {
        Issue::Otp { .. } => !there.activated && !has_otp,
        Issue::Secret => !there.activated,
    })
}

fn compare(there: &Device, wanted: &Device) -> Outcome {
    let same = [
        ("name", there.name == wanted.name),
        ("description", there.description == wanted.description),
        ("metadata", same_json(&there.metadata, &wanted.metadata)),
        ("tags", there.tags == wanted.tags),
        ("primaryServerUrl", there.primary_server_url == wanted.primary_server_url),
        ("serverUrls", there.server_urls == wanted.server_urls),
    ];
    let differ: Vec<_> =
        same.into_iter().filter(|(_, same)| !same).map(|(field, _)| (field, "is not the same")).collect();
    if differ.is_empty() { Outcome::Unchanged } else { Outcome::Conflict(differ) }
}

/// Whether two texts are the same JSON: the order of names does not count, but every digit does. They are known to be JSON,
/// and not to be deep.
fn same_json(one: &RawValue, other: &RawValue) -> bool {
    type Object<'a> = BTreeMap<String, &'a RawValue>;
    fn read<'a, T: serde::Deserialize<'a>>(one: &'a RawValue, other: &'a RawValue) -> Option<(T, T)> {
        Some((serde_json::from_str(one.get()).ok()?, serde_json::from_str(other.get()).ok()?))
    }
    if one.get() == other.get() {
        return true;
    }
    if let Some((one, other)) = read::<Object<'_>>(one, other) {
        return one.len() == other.len()
            && one
                .iter()
                .zip(&other)
                .all(|((name, value), (name2, value2))| name == name2 && same_json(value, value2));
    }
    if let Some((one, other)) = read::<Vec<&RawValue>>(one, other) {
        return one.len() == other.len() && one.iter().zip(&other).all(|(one, other)| same_json(one, other));
    }
    read::<String>(one, other).is_some_and(|(one, other)| one == other)
}

/// SHA-256, in hexadecimal, over a JSON array a line: of each device `[id, name, description, metadata, tags,
/// primaryServerUrl, serverUrls]` with the metadata as the text that is stored, by id; then of each app that something was
/// issued for `[deviceId, clientAppId, clientId, scopes]`, by device.
fn digest(devices: &[&Device], apps: &[DeviceApp]) -> String {
    let mut hash = Sha256::new();
    for device in devices {
        let line = json!([
            device.id,
            device.name,
            device.description,
            device.metadata.get(),
            device.tags,
            device.primary_server_url,
            device.server_urls
        ]);
        hash.update(format!("{line}\n"));
    }
    for app in apps {
        hash.update(format!("{}\n", json!([app.device_id, app.client_app_id, app.client_id, app.scopes])));
    }
    format!("{:x}", hash.finalize())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_is_the_same_whatever_the_order_and_the_spelling_but_for_numbers() {
        let raw = |text: &str| RawValue::from_string(text.to_owned()).unwrap();
        for (one, other, same) in [
            (r#"{"a":1,"b":[{"c":"d"}]}"#, r#"{"b":[{"c":"\u0064"}],"a":1}"#, true),
            (r#"{"\u0061":null}"#, r#"{"a":null}"#, true),
            ("{}", "{}", true),
            ("{}", "[]", false),
            (r#"{"a":[1,2]}"#, r#"{"a":[2,1]}"#, false),
            (r#"{"a":12345678901234567890123}"#, r#"{"a":12345678901234567890124}"#, false),
            (r#"{"a":1}"#, r#"{"a":1.0}"#, false),
            (r#"{"a":"1"}"#, r#"{"a":1}"#, false),
            (r#"{"a":1}"#, r#"{"a":1,"b":1}"#, false),
        ] {
            assert_eq!(same_json(&raw(one), &raw(other)), same, "{one} {other}");
        }
    }
}
