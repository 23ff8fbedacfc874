//! What the edge reports of devices that came with a certificate, and what devices' documents say.

use std::time::Duration;

use keypost::clock::{Clock, unix};
use keypost_shared::certificate::CertificateDer;
use keypost_shared::document::{ClientDocument, ClientStatus, ClientSubject, DeviceDocument};
use keypost_shared::edge_report::{DeviceReport, EdgeReport, SharedSecret, SignedReport};
use keypost_shared::id::{ClientId, PoolId};
use keypost_shared::kv_key::KvKey;
use keypost_shared::time::UnixTime;
use serde_json::{Value, json};

use crate::housekeeping;
use crate::support::{Answer, Ca, DeviceCertificate, Fault, TestApp, eventually, secret};

const DEVICES: &str = "/api/internal/org/acme/env/prod/device";
const POOL: &str = "/api/internal/org/acme/env/prod/pool";

/// `acme`'s pool with a root.
struct Fleet {
    app: TestApp,
    pool: PoolId,
    root: Ca,
}

impl Fleet {
    async fn new(policy: Value) -> Self {
        let app = TestApp::start().await;
        let pool = app.acme().await["clientPoolId"].as_str().unwrap().to_owned();
        let root = Ca::root("Retail root");
        assert_eq!(app.upload(&pool, &root.pem()).await.status, 200);
        let answer = app.call("PATCH", POOL, Some(json!({"provisioning": policy}))).await;
        assert_eq!(answer.status, 200, "{}", answer.text);
        Self { app, pool: pool.parse().unwrap(), root }
    }

    /// A pool that takes in everybody under its root.
    async fn auto() -> Self {
        let tags = json!({"business_unit_id": "{o}"});
        Self::new(json!({"mode": "auto", "match": {"o": "05243"}, "tags": tags})).await
    }

    fn now(&self) -> UnixTime {
        unix(self.app.clock.now())
    }

    fn report(&self, device: &str, certificate: &DeviceCertificate) -> EdgeReport {
        EdgeReport::Device(DeviceReport {
            pool: self.pool,
            device_id: device.parse().unwrap(),
            x5c: vec![CertificateDer::new(certificate.der.clone())],
            seen_at: self.now(),
        })
    }

    /// Reports a device, and says what came of it.
    async fn seen(&self, device: &str, certificate: &DeviceCertificate) -> Value {
        let answer = self.app.post_report(&self.app.sign_report(&self.report(device, certificate))).await;
        assert_eq!(answer.status, 200, "{}", answer.text);
        answer.json()
    }

    fn key(&self, device: &str) -> KvKey {
        KvKey::Device(self.pool, device.parse().unwrap())
    }

    /// Waits until the device's document in KV is as it must be; none where there must be none.
    async fn published(&self, device: &str, what: &str, good: impl Fn(Option<DeviceDocument>) -> bool) {
        let key = self.key(device);
        eventually(what, async || {
            let found = self.app.kv.verified::<DeviceDocument>(&self.app.publisher.root, &key).await;
            good(found.ok().map(|verified| verified.document))
        })
        .await;
    }

    /// Leaves a report in KV, as the edge does.
    fn leave(&self, report: &EdgeReport) {
        self.app.kv.write(&report.kv_key().to_string(), &self.app.sign_report(report).to_kv());
    }

    /// The lines of `/metrics` on reports that are not 0, without their common beginning.
    async fn metrics(&self) -> Vec<String> {
        let text = self.app.call("GET", "/metrics", None).await.text;
        let lines = text.lines().filter_map(|line| line.strip_prefix("keypost_edge_reports"));
        let mut lines: Vec<_> = lines.filter(|line| !line.ends_with("} 0")).map(str::to_owned).collect();
        lines.sort();
        lines
    }

    async fn kept_out(&self, device: &str) {
        self.published(device, "a document that keeps the device out", |document| {
            document.is_some_and(|document| document.status == ClientStatus::Disabled)
        })
        .await;
    }

    async fn device(&self, device: &str) -> Answer {
        self.app.call("GET", &format!("{DEVICES}/{device}"), None).await
    }

    async fn count(&self) -> i64 {
        self.app.database.number("select count(*) from device").await
    }

    /// How many reports have been taken up from KV, and how much junk was there.
    async fn search(&self) -> (usize, usize) {
        let found = self.app.edge_reports().search().await.unwrap();
        (found.taken_up, found.junk)
    }
}

fn device_of(report: &EdgeReport) -> DeviceReport {
    match report {
        EdgeReport::Device(report) => report.clone(),
        other => panic!("{other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_device_that_came_by_certificate_is_made_as_the_edge_made_it() {
    let fleet = Fleet::auto().await;
    let certificate = fleet.root.device("05243", "pos-1");
    assert_eq!(fleet.seen("pos-1", &certificate).await, json!({"outcome": "created"}));
    let device = fleet.device("pos-1").await.json();
    assert_eq!(device["provisionedBy"], "certificate");
    assert_eq!(device["certificateFingerprint"], certificate.fingerprint());
    assert_eq!(device["status"], "active");
    assert_eq!(device["tags"], json!({"business_unit_id": "05243"}));
    let client = ClientId::of_device_app(fleet.pool, &"pos-1".parse().unwrap(), &"client".parse().unwrap());
    let app = fleet.app.call("GET", &format!("{DEVICES}/pos-1/app/client"), None).await.json();
    assert_eq!((&app["clientId"], &app["scopes"]), (&json!(client), &json!(["device"])));

    fleet
        .published("pos-1", "the device's document", |document| {
            document.is_some_and(|document| {
                let pins = document.pins.as_ref();
                document.clients == [client.clone()]
                    && pins.is_some_and(|pins| {
                        pins.common_name.as_deref() == Some("pos-1")
                            && pins.organization.as_deref() == Some("05243")
                            && pins.roots.iter().map(ToString::to_string).eq([fleet.root.fingerprint()])
                    })
            })
        })
        .await;
    let key = KvKey::Client(fleet.pool, client.clone());
    let document =
        fleet.app.kv.verified::<ClientDocument>(&fleet.app.publisher.root, &key).await.unwrap().document;
    let ClientSubject::Device(claims) = document.subject else { panic!("no device's client") };
    let tags: Value = serde_json::from_str(claims.tags.get()).unwrap();
    assert_eq!((&tags["business_unit_id"], &tags["country"]), (&json!("05243"), &json!("*")));
    assert!(document.secrets.is_empty());

    // However often it comes: nothing more.
    assert_eq!(fleet.seen("pos-1", &certificate).await, json!({"outcome": "known"}));
    let told = "select count(*) from audit_event where action = 'device.provision' and actor_kind = 'system'";
    assert_eq!((fleet.count().await, fleet.app.database.number(told).await), (1, 1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_the_edge_can_report() {
    let fleet = Fleet::auto().await;
    let good = fleet.app.sign_report(&fleet.report("pos-1", &fleet.root.device("05243", "pos-1")));
    let old = SignedReport { timestamp: UnixTime(good.timestamp.0 - 1), ..good.clone() };
    let other = SharedSecret::parse_list(&secret(9)).unwrap().remove(0);
    let report = fleet.report("pos-1", &fleet.root.device("05243", "pos-1"));
    let by_other = SignedReport::sign(&other, &report, fleet.now()).unwrap();
    let changed = SignedReport { body: good.body.replace("pos-1", "pos-2"), ..good.clone() };
    let unsigned = SignedReport { signature: String::new(), ..good.clone() };
    for wrong in [&old, &by_other, &changed, &unsigned] {
        fleet.app.post_report(wrong).await.assert_problem(401, "report_not_authentic");
    }
    let large = SignedReport { body: "x".repeat(129 * 1024), ..good.clone() };
    fleet.app.post_report(&large).await.assert_problem(413, "body_too_large");
    fleet.app.clock.advance(Duration::from_secs(301));
    fleet.app.post_report(&good).await.assert_problem(401, "report_not_authentic");
    assert_eq!(fleet.count().await, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_registered_device_is_pinned_to_what_its_first_certificate_has() {
    let fleet = Fleet::new(json!({})).await;
    fleet.app.device("pos-1").await;
    fleet
        .published("pos-1", "a document without pins", |document| {
            document.is_some_and(|document| document.pins.is_none() && document.clients.len() == 1)
        })
        .await;
    let certificate = fleet.root.device("05243", "pos-1");
    assert_eq!(fleet.seen("pos-1", &certificate).await, json!({"outcome": "pinned"}));
    fleet
        .published("pos-1", "a document with pins", |document| {
            document.is_some_and(|document| document.pins.is_some())
        })
        .await;
    let other = fleet.root.device("99999", "pos-1");
    let refused = json!({"outcome": "refused", "code": "subject_mismatch"});
    assert_eq!(fleet.seen("pos-1", &other).await, refused);
    let device = fleet.device("pos-1").await.json();
    assert_eq!(device["certificateFingerprint"], certificate.fingerprint());
    assert_eq!((&device["provisionedBy"], &device["status"]), (&Value::Null, &json!("registered")));
    // Nobody comes in whom nobody has registered.
    let unknown = fleet.root.device("05243", "pos-2");
    assert_eq!(fleet.seen("pos-2", &unknown).await, json!({"outcome": "refused", "code": "device_unknown"}));
    fleet.kept_out("pos-2").await;
    assert_eq!(fleet.device("pos-2").await.status, 404);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_more_devices_come_in_an_hour_than_may() {
    let fleet = Fleet::auto().await;
    fleet.app.call("PATCH", POOL, Some(json!({"provisioning": {"maxPerHour": 3}}))).await;
    // From the first minute of an hour, so that it does not end within the test.
    let to_the_hour = 3600 - fleet.now().0.rem_euclid(3600);
    fleet.app.clock.advance(Duration::from_secs(to_the_hour as u64 + 60));
    let names: Vec<String> = (0..6).map(|number| format!("pos-{number}")).collect();
    let certificates: Vec<_> = names.iter().map(|name| fleet.root.device("05243", name)).collect();
    let reports = names.iter().zip(&certificates).map(|(name, certificate)| fleet.seen(name, certificate));
    let outcomes = futures_util::future::join_all(reports).await;
    let of = |outcome: Value| outcomes.iter().filter(|own| **own == outcome).count();
    assert_eq!(of(json!({"outcome": "created"})), 3, "{outcomes:?}");
    assert_eq!(of(json!({"outcome": "refused", "code": "too_many_new_devices"})), 3, "{outcomes:?}");
    assert_eq!(fleet.count().await, 3);
    let refused = outcomes.iter().position(|outcome| outcome["outcome"] == "refused").unwrap();
    fleet.kept_out(&names[refused]).await;

    // In the next hour nothing keeps it out any more.
    fleet.app.clock.advance(Duration::from_secs(3600));
    fleet.published(&names[refused], "no document", |document| document.is_none()).await;
    let seen = fleet.seen(&names[refused], &certificates[refused]).await;
    assert_eq!(seen, json!({"outcome": "created"}));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_denied_by_now_is_kept_out_although_the_edge_let_it_in() {
    let fleet = Fleet::auto().await;
    let certificate = fleet.root.device("05243", "pos-1");
    let denials = format!("/api/internal/{}/denied-certificates", fleet.pool);
    let denial = json!({"fingerprint": certificate.fingerprint(), "reason": "stolen"});
    let denied = fleet.app.create(&denials, denial).await;
    let refused = json!({"outcome": "refused", "code": "certificate_denied"});
    assert_eq!(fleet.seen("pos-1", &certificate).await, refused);
    fleet.kept_out("pos-1").await;
    assert_eq!(fleet.count().await, 0);
    let one = format!("{denials}/{}", denied["id"].as_str().unwrap());
    assert_eq!(fleet.app.call("DELETE", &one, None).await.status, 204);
    assert_eq!(fleet.seen("pos-1", &certificate).await, json!({"outcome": "created"}));
    fleet
        .published("pos-1", "a document that lets it in", |document| {
            document.is_some_and(|document| document.status == ClientStatus::Enabled)
        })
        .await;
    // Another tenant's root, or another unit's certificate.
    let stranger = Ca::root("Retail root").device("05243", "pos-2");
    assert_eq!(fleet.seen("pos-2", &stranger).await["outcome"], "refused");
    let unit = fleet.root.device("99999", "pos-3");
    let unmatched = json!({"outcome": "refused", "code": "device_not_matched"});
    assert_eq!(fleet.seen("pos-3", &unit).await, unmatched);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_report_from_before_the_devices_deletion_is_void() {
    let fleet = Fleet::auto().await;
    let certificate = fleet.root.device("05243", "pos-1");
    fleet.seen("pos-1", &certificate).await;
    let late = fleet.app.sign_report(&fleet.report("pos-1", &certificate));
    let deleted = fleet.app.call("DELETE", &format!("{DEVICES}/pos-1?cascade=true"), None).await;
    assert_eq!(deleted.status, 204, "{}", deleted.text);
    fleet.published("pos-1", "no document", |document| document.is_none()).await;
    assert_eq!(fleet.app.post_report(&late).await.json(), json!({"outcome": "void"}));
    assert_eq!(fleet.count().await, 0);
    // Deleting forgets a device: it may come back.
    fleet.app.clock.advance(Duration::from_secs(2));
    assert_eq!(fleet.seen("pos-1", &certificate).await, json!({"outcome": "created"}));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_disabled_device_stays_out() {
    let fleet = Fleet::auto().await;
    let certificate = fleet.root.device("05243", "pos-1");
    fleet.seen("pos-1", &certificate).await;
    assert_eq!(fleet.app.call("POST", &format!("{DEVICES}/pos-1/disable"), None).await.status, 200);
    fleet.kept_out("pos-1").await;
    let refused = json!({"outcome": "refused", "code": "device_disabled"});
    assert_eq!(fleet.seen("pos-1", &certificate).await, refused);
    fleet.kept_out("pos-1").await;
    assert_eq!(fleet.app.call("POST", &format!("{DEVICES}/pos-1/enable"), None).await.status, 200);
    fleet
        .published("pos-1", "an enabled document", |document| {
            document.is_some_and(|document| document.status == ClientStatus::Enabled)
        })
        .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_devices_document_follows_its_apps() {
    let fleet = Fleet::new(json!({})).await;
    fleet.app.create(DEVICES, json!({"id": "pos-1", "name": "Till"})).await;
    let clients = async |count: usize| {
        fleet
            .published("pos-1", &format!("{count} clients"), |document| {
                document.is_some_and(|document| document.clients.len() == count)
            })
            .await;
    };
    clients(0).await;
    let apps = format!("{DEVICES}/pos-1/app");
    for (name, scopes) in
        [("pos", json!(["device"])), ("sync", json!(["device", "sync"])), ("other", json!(["x"]))]
    {
        fleet.app.create(&apps, json!({"clientAppId": name, "scopes": scopes})).await;
        fleet.app.clock.advance(Duration::from_millis(5));
    }
    clients(2).await;
    let oldest = ClientId::of_device_app(fleet.pool, &"pos-1".parse().unwrap(), &"pos".parse().unwrap());
    fleet
        .published("pos-1", "the oldest first", |document| {
            document.is_some_and(|document| document.clients.first() == Some(&oldest))
        })
        .await;
    let replaced = fleet.app.call("PUT", &format!("{apps}/pos"), Some(json!({"scopes": ["x"]}))).await;
    assert_eq!(replaced.status, 200, "{}", replaced.text);
    clients(1).await;
    assert_eq!(fleet.app.call("DELETE", &format!("{apps}/sync"), None).await.status, 204);
    clients(0).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reports_whose_post_was_lost_are_taken_up_from_kv() {
    let fleet = Fleet::auto().await;
    for number in 0..7 {
        let name = format!("pos-{number}");
        let report = fleet.report(&name, &fleet.root.device("05243", &name));
        fleet.leave(&report);
    }
    // What somebody else wrote there, and a report under another's name.
    let report = fleet.report("pos-8", &fleet.root.device("05243", "pos-8"));
    fleet
        .app
        .kv
        .write(&format!("v1/edge/{}/report/pos-9", fleet.pool), &fleet.app.sign_report(&report).to_kv());
    fleet.app.kv.write("v1/edge/junk", "junk");
    let before = fleet.app.kv.keys().into_iter().filter(|key| !key.starts_with("v1/edge/")).count();
    let found = fleet.app.edge_reports().search().await.unwrap();
    assert_eq!((found.taken_up, found.junk), (7, 2));
    assert_eq!(fleet.count().await, 7);
    assert!(!fleet.app.kv.keys().iter().any(|key| key.starts_with("v1/edge/")), "{:?}", fleet.app.kv.keys());
    assert!(fleet.app.kv.keys().len() >= before, "documents are left alone");
    assert_eq!(fleet.search().await, (0, 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_reports_at_once_make_exactly_a_thousand_devices() {
    let fleet = Fleet::auto().await;
    let names: Vec<String> = (0..1000).map(|number| format!("pos-{number}")).collect();
    let reports: Vec<SignedReport> = names
        .iter()
        .map(|name| fleet.app.sign_report(&fleet.report(name, &fleet.root.device("05243", name))))
        .collect();
    // Each comes twice, and whoever is told to come later does.
    let deliver = async |signed: &SignedReport| {
        loop {
            let answer = fleet.app.post_report(signed).await;
            match answer.status.as_u16() {
                200 => break answer.json()["outcome"].as_str().unwrap().to_owned(),
                503 => tokio::time::sleep(Duration::from_millis(50)).await,
                other => panic!("{other}: {}", answer.text),
            }
        }
    };
    let outcomes = futures_util::future::join_all(reports.iter().chain(&reports).map(deliver)).await;
    let of = |name: &str| outcomes.iter().filter(|outcome| *outcome == name).count();
    assert_eq!((of("created"), of("known")), (1000, 1000));
    assert_eq!(fleet.count().await, 1000);
    assert_eq!(fleet.app.database.number("select count(*) from oauth_client").await, 1000);
    let told = "select count(*) from audit_event where action = 'device.provision'";
    assert_eq!(fleet.app.database.number(told).await, 1000);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_remembered_for_reports_goes_once_none_can_ask_for_it() {
    let fleet = Fleet::auto().await;
    fleet.app.call("PATCH", POOL, Some(json!({"provisioning": {"maxPerHour": 1}}))).await;
    let to_the_hour = 3600 - fleet.now().0.rem_euclid(3600);
    fleet.app.clock.advance(Duration::from_secs(to_the_hour as u64 + 60));
    let certificate = fleet.root.device("05243", "pos-1");
    assert_eq!(fleet.seen("pos-1", &certificate).await, json!({"outcome": "created"}));
    let before = fleet.report("pos-1", &certificate);
    let second = fleet.root.device("05243", "pos-2");
    assert_eq!(fleet.seen("pos-2", &second).await["code"], "too_many_new_devices");
    fleet.kept_out("pos-2").await;
    let deleted = fleet.app.call("DELETE", &format!("{DEVICES}/pos-1?cascade=true"), None).await;
    assert_eq!(deleted.status, 204, "{}", deleted.text);

    // It is kept out until the hour ends, and an hour longer the row is there.
    fleet.app.clock.advance(Duration::from_secs(3600 + 3500));
    assert_eq!(housekeeping::run(&fleet.app, None).await, []);
    fleet.app.clock.advance(Duration::from_secs(200));
    assert_eq!(housekeeping::run(&fleet.app, None).await, [("refused_devices", 1)]);
    fleet.published("pos-2", "no document", |document| document.is_none()).await;

    // As long as a report can wait in KV it counts in its hour, and the deletion is remembered.
    fleet.app.clock.advance(Duration::from_secs(30 * 86_400));
    // The place of the deleted device's tokens in the status list, which means nothing by now.
    assert_eq!(housekeeping::run(&fleet.app, None).await, [("status_blocks", 1)]);
    let third = DeviceReport {
        device_id: "pos-3".parse().unwrap(),
        x5c: vec![CertificateDer::new(fleet.root.device("05243", "pos-3").der)],
        ..device_of(&before)
    };
    for report in [&before, &EdgeReport::Device(third)] {
        fleet.leave(report);
        assert_eq!(fleet.search().await, (1, 0));
    }
    assert_eq!(
        fleet.count().await,
        0,
        "one is from before the deletion, one more than may come in that hour"
    );

    // After that it is forgotten, and whoever has kept a report cannot bring the device back with it.
    fleet.app.clock.advance(Duration::from_secs(2 * 86_400));
    let forgotten = [("provisioning_hours", 1), ("refused_devices", 1), ("deleted_devices", 1)];
    assert_eq!(housekeeping::run(&fleet.app, None).await, forgotten);
    fleet.leave(&before);
    assert_eq!(fleet.search().await, (1, 0));
    assert_eq!(fleet.count().await, 0);
    assert_eq!(fleet.seen("pos-1", &certificate).await, json!({"outcome": "created"}));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_comes_of_reports_is_counted_and_what_waits_in_kv_is_told() {
    let fleet = Fleet::auto().await;
    assert_eq!(fleet.metrics().await, [""; 0]);
    let certificate = fleet.root.device("05243", "pos-1");
    let early = fleet.app.sign_report(&EdgeReport::Device(DeviceReport {
        seen_at: UnixTime(fleet.now().0 + 3600),
        ..device_of(&fleet.report("pos-1", &certificate))
    }));
    assert_eq!(fleet.app.post_report(&early).await.json(), json!({"outcome": "void"}));
    fleet.seen("pos-1", &certificate).await;
    fleet.seen("pos-1", &certificate).await;
    fleet.seen("pos-2", &fleet.root.device("99999", "pos-2")).await;
    fleet.seen("pos-3", &Ca::root("Retail root").device("05243", "pos-3")).await;
    fleet.app.device("pos-4").await;
    fleet.seen("pos-4", &fleet.root.device("05243", "pos-4")).await;
    fleet.app.kv.write("v1/edge/junk", "junk");
    fleet.app.edge_reports().search().await.unwrap();
    let counted = [
        "_refused_total{code=\"chain_bad_signature\"} 1",
        "_refused_total{code=\"device_not_matched\"} 1",
        "_total{outcome=\"created\"} 1",
        "_total{outcome=\"junk\"} 1",
        "_total{outcome=\"known\"} 1",
        "_total{outcome=\"pinned\"} 1",
        "_total{outcome=\"refused\"} 2",
        "_total{outcome=\"void\"} 1",
    ];
    assert_eq!(fleet.metrics().await, [&counted[..], &["_waiting 0"]].concat());

    // They can be listed, and not read or removed.
    for name in ["pos-1", "pos-5", "pos-6"] {
        fleet.leave(&fleet.report(name, &fleet.root.device("05243", name)));
    }
    fleet.app.kv.fail_next([Fault::RefuseEach("v1/edge/".to_owned())]);
    // Whether it breaks off or not.
    let _ = fleet.app.edge_reports().search().await;
    assert_eq!(fleet.metrics().await.last().unwrap(), "_waiting 3");
    fleet.app.kv.recover();
    fleet.app.edge_reports().search().await.unwrap();
    assert_eq!(fleet.metrics().await.last().unwrap(), "_waiting 0");
    // Who does not search does not know.
    fleet.app.context.metrics.edge_reports_waiting(None);
    assert!(!fleet.metrics().await.iter().any(|line| line.starts_with("_waiting")));
}
