//! What the edge reports of devices that came with a certificate (design §8).
//!
//! A report may come twice, late, or after the rules have changed. The chain is validated again, as of the report's time
//! and by the roots, the policy and the denials of now. What comes of it is the same however often the report comes.

use keypost_shared::device_certificate::{
    Admission, CertificateRules, DeviceIdentity, DeviceRefusal, Named, PoolAnchors, RefusalCode, Trace,
    admit, identify, new_client,
};
use keypost_shared::document::{ClientSubject, DeviceDocument};
use keypost_shared::edge_report::{DeviceReport, REPORT_TTL};
use keypost_shared::host::HostCrypto;
use keypost_shared::id::ClientId;
use keypost_shared::kv_key::KvKey;
use keypost_shared::time::UnixTime;
use serde_json::{json, value::RawValue};
use time::{Duration, OffsetDateTime};

use super::audit::Event;
use super::change::{Change, PROPAGATION};
use super::{Context, environment};
use crate::clock::from_unix;
use crate::entropy::random_uuid;
use crate::store::device::{Device, DeviceCertificate, DeviceStatus};
use crate::store::device_app::DeviceApp;
use crate::store::environment::EnvScope;
use crate::store::publication::Priority;
use crate::store::snapshot::{DeviceState, PoolRows};
use crate::store::{self, StoreError, snapshot};

const HOUR_SECONDS: i64 = 3600;
/// So much may the edge's clock be ahead.
const SKEW: Duration = Duration::minutes(5);
/// A report is no older than it can wait in KV, and a day for clocks. Whoever can write to KV may have kept one, and put it
/// back when nothing is remembered any more of what has happened since: so it is void.
pub const MAX_AGE: Duration = Duration::seconds(REPORT_TTL as i64).saturating_add(Duration::days(1));
/// A refused device is kept out for a while longer than the edge believes the rules by which it let it in: as long as the
/// token lives that it got.
const TOKEN_LIFE: Duration = Duration::minutes(5);

/// What has come of a report.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The device has come to exist.
    Created,
    /// The device was known, and has been seen with a certificate for the first time.
    Pinned,
    /// Nothing was new.
    Known,
    /// It is from before the device was deleted, of a pool that is gone, or of no time that a report can be of.
    Void,
    /// The edge should not have let the device in, by what holds now.
    Refused(RefusalCode),
}

impl Outcome {
    /// Its name in answers and logs.
    pub fn name(self) -> &'static str {
        match self {
            Outcome::Created => "created",
            Outcome::Pinned => "pinned",
            Outcome::Known => "known",
            Outcome::Void => "void",
            Outcome::Refused(_) => "refused",
        }
    }
}

/// Why a report was not taken up. It should come again.
#[derive(Debug, thiserror::Error)]
pub enum ReportFailure {
    /// The database.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A signature could not be checked, or a record not be made: never for what the report says.
    #[error("{0}")]
    Internal(String),
}

/// Takes a report up.
pub async fn take_up(context: &Context, report: &DeviceReport) -> Result<Outcome, ReportFailure> {
    let outcome = match take_up_once(context, report).await {
        // Somebody has registered the device at this very moment: now it is known.
        Err(ReportFailure::Store(error)) if error.is_duplicate() => take_up_once(context, report).await,
        // Or deleted the environment.
        Err(ReportFailure::Store(error)) if error.is_dangling() => Ok(Outcome::Void),
        outcome => outcome,
    }
    .inspect_err(|_| context.metrics.edge_report("failed"))?;
    let DeviceReport { pool, device_id, .. } = report;
    context.metrics.edge_report(outcome.name());
    match outcome {
        Outcome::Refused(code) => {
            context.metrics.edge_report_refused(code);
            tracing::warn!(%pool, device = %device_id, %code, "the edge let a device in that is refused");
        }
        outcome => tracing::info!(%pool, device = %device_id, outcome = outcome.name(), "the edge reported"),
    }
    Ok(outcome)
}

async fn take_up_once(context: &Context, report: &DeviceReport) -> Result<Outcome, ReportFailure> {
    let Some(scope) = environment::of_a_report(context, report.pool).await? else { return Ok(Outcome::Void) };
    let seen_at = from_unix(report.seen_at);
    let mut change = Change::begin(context, scope.actor()).await?;
    if seen_at > change.now() + SKEW || seen_at < change.now() - MAX_AGE {
        return Ok(Outcome::Void);
    }
    store::device_certificate::lock(change.tx(), &scope, &report.device_id).await?;
    let deleted_at = store::device_certificate::deleted_at(change.tx(), &scope, &report.device_id).await?;
    if deleted_at.is_some_and(|deleted_at| seen_at <= deleted_at) {
        return Ok(Outcome::Void);
    }
    let Some(pool) = snapshot::pools(change.tx(), &[report.pool]).await?.pop() else {
        return Ok(Outcome::Void);
    };
    let now = change.now();
    let key = (report.pool, report.device_id.clone(), now);
    let record = snapshot::devices(change.tx(), &[key]).await?.pop().map(|device| device.state);
    let known = match &record {
        Some(DeviceState::Known(document)) => Some(document),
        Some(DeviceState::Refused { .. }) | None => None,
    };

    let (anchors, _) = PoolAnchors::read(&pool.trust_anchors);
    let rules =
        CertificateRules { anchors: &anchors, policy: &pool.provisioning, denied: &pool.denied_certificates };
    let decided = decide(report, &pool, rules, known).await?;
    let outcome = match decided {
        Ok((_, Admission::Known { first_seen: false, .. })) => return Ok(Outcome::Known),
        Ok((identity, Admission::Known { first_seen: true, .. })) => {
            pin(&mut change, &scope, &identity).await?;
            Outcome::Pinned
        }
        Ok((identity, Admission::New { client_id })) => {
            let hour = from_unix(UnixTime(report.seen_at.0.div_euclid(HOUR_SECONDS) * HOUR_SECONDS));
            let most = pool.provisioning.max_per_hour;
            if store::device_certificate::count(change.tx(), &scope, hour, most).await? {
                create(&mut change, &scope, &pool, &identity, client_id, seen_at).await?;
                Outcome::Created
            } else {
                let until = (hour + Duration::hours(1)).max(change.now() + TOKEN_LIFE);
                refuse(&mut change, &scope, report, DeviceRefusal::TooMany.code(), until).await?
            }
        }
        // It exists, and its document in KV keeps it out as it should.
        Err(code) if known.is_some() => return Ok(Outcome::Refused(code)),
        Err(code) => {
            let until = change.now() + Duration::seconds(pool.max_staleness_seconds.into()) + TOKEN_LIFE;
            refuse(&mut change, &scope, report, code, until).await?
        }
    };
    change.commit().await?;
    Ok(outcome)
}

/// The edge's own decision, by the rules of now and as of the report's time.
async fn decide(
    report: &DeviceReport,
    pool: &PoolRows,
    rules: CertificateRules<'_>,
    known: Option<&DeviceDocument>,
) -> Result<Result<(DeviceIdentity, Admission), RefusalCode>, ReportFailure> {
    let chain: Vec<Vec<u8>> = report.x5c.iter().map(|der| der.as_bytes().to_vec()).collect();
    let mut trace = Trace::discarded();
    let identified = identify(&HostCrypto, &chain, rules, report.seen_at, &mut trace)
        .await
        .map_err(|error| ReportFailure::Internal(error.to_string()))?;
    let identity = match identified {
        Ok(identity) => identity,
        Err(refusal) => return Ok(Err(refusal.code())),
    };
    // The template is another one now.
    if identity.device_id != report.device_id {
        return Ok(Err(RefusalCode::plain("device_id_changed")));
    }
    let admitted = admit(pool.id, rules, &identity, known, &Named::Device, &mut trace);
    Ok(admitted.map(|admission| (identity, admission)).map_err(|refusal| refusal.code()))
}

async fn pin(change: &mut Change, scope: &EnvScope, identity: &DeviceIdentity) -> Result<(), StoreError> {
    let now = change.now();
    store::device_certificate::pin(change.tx(), scope, identity, now).await?;
    // Without pins it would let another certificate in. There is time: what is in KV by then has them.
    change.lose_later(KvKey::Device(scope.pool(), identity.device_id.clone()), now + PROPAGATION);
    let target = scope.target("device", &identity.device_id);
    change.record(Event::new(target, "pin_certificate", json!({"after": told(identity)})));
    Ok(())
}

/// Makes the device, its app and its client as the edge made them for the first token.
async fn create(
    change: &mut Change,
    scope: &EnvScope,
    pool: &PoolRows,
    identity: &DeviceIdentity,
    client_id: ClientId,
    seen_at: OffsetDateTime,
) -> Result<(), ReportFailure> {
    let internal = |error: serde_json::Error| ReportFailure::Internal(error.to_string());
    let document = new_client(&pool.provisioning, &pool.device_defaults, identity).map_err(internal)?;
    let ClientSubject::Device(claims) = document.subject else {
        return Err(ReportFailure::Internal("a new client is no device's".to_owned()));
    };
    let now = change.now();
    let device = Device {
        id: identity.device_id.clone(),
        name: identity.device_id.to_string(),
        description: None,
        metadata: RawValue::from_string(claims.metadata.get().to_owned()).map_err(internal)?,
        // The environment's tags and servers stay the environment's: so they go on changing with it.
        tags: identity.tags.clone(),
        primary_server_url: None,
        server_urls: Vec::new(),
        status: DeviceStatus::Active,
        last_activated_at: Some(seen_at),
        certificate: DeviceCertificate::default(),
        created_at: now,
        updated_at: now,
    };
    store::device::insert(change.tx(), scope, &device).await?;
    store::device_certificate::provisioned(change.tx(), scope, &device.id, seen_at).await?;
    store::device_certificate::pin(change.tx(), scope, identity, now).await?;
    store::device_certificate::forgive(change.tx(), scope, &device.id).await?;
    let app = DeviceApp {
        id: random_uuid(&mut change.rng()),
        device_id: device.id.clone(),
        client_app_id: claims.client_app_id,
        client_id: client_id.clone(),
        name: None,
        description: None,
        scopes: document.scopes,
        jwks: None,
        activated: false,
        created_at: now,
        updated_at: now,
    };
    store::device_app::insert(change.tx(), scope, &app).await?;
    change.mark(KvKey::Client(scope.pool(), client_id.clone()), Priority::Change);
    change.mark(KvKey::Device(scope.pool(), device.id.clone()), Priority::Change);
    let mut after = told(identity);
    if let Some(after) = after.as_object_mut() {
        after.insert("clientId".to_owned(), json!(client_id));
        after.insert("clientAppId".to_owned(), json!(app.client_app_id));
        after.insert("scopes".to_owned(), json!(app.scopes.iter().collect::<Vec<_>>()));
        after.insert("tags".to_owned(), json!(device.tags));
    }
    change.record(Event::new(scope.target("device", &device.id), "provision", json!({"after": after})));
    Ok(())
}

/// Keeps a device out that the edge has let in and that does not exist.
async fn refuse(
    change: &mut Change,
    scope: &EnvScope,
    report: &DeviceReport,
    code: RefusalCode,
    until: OffsetDateTime,
) -> Result<Outcome, StoreError> {
    let (device, text, now) = (&report.device_id, code.to_string(), change.now());
    let is_new = store::device_certificate::refuse(change.tx(), scope, device, &text, now, until).await?;
    change.lose(KvKey::Device(scope.pool(), device.clone()));
    if is_new {
        change.record(Event::new(scope.target("device", device), "refuse", json!({"after": {"code": text}})));
    }
    Ok(Outcome::Refused(code))
}

/// What audit events tell of a certificate.
fn told(identity: &DeviceIdentity) -> serde_json::Value {
    json!({
        "certificateFingerprint": identity.thumbprint,
        "serialNumber": identity.serial,
        "organization": identity.organization,
        "commonName": identity.common_name,
        "root": identity.root,
    })
}
