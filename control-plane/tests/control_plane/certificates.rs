//! Roots, denied certificates and the policy for devices that come with a certificate.

use keypost::service::access::Permission;
use keypost_shared::device_certificate::{DeniedCertificate, ProvisioningMode};
use keypost_shared::document::PoolDocument;
use keypost_shared::kv_key::KvKey;
use serde_json::{Value, json};

use crate::support::{Answer, Ca, TestApp, eventually};

/// The pool of `acme`'s environment.
async fn acme_pool(app: &TestApp) -> String {
    app.acme().await["clientPoolId"].as_str().unwrap().to_owned()
}

/// Waits until the pool's document in KV is as it must be.
async fn published(app: &TestApp, pool: &str, what: &str, good: impl Fn(&PoolDocument) -> bool) {
    let key = KvKey::Pool(pool.parse().unwrap());
    eventually(what, async || {
        let found = app.kv.verified::<PoolDocument>(&app.publisher.root, &key).await;
        found.is_ok_and(|verified| good(&verified.document))
    })
    .await;
}

fn part(name: &str, value: &str) -> String {
    format!("--b\r\nContent-Disposition: form-data; name=\"{name}\"\r\n\r\n{value}\r\n")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_root_is_uploaded_listed_downloaded_and_deleted() {
    let app = TestApp::start().await;
    let pool = acme_pool(&app).await;
    let root = Ca::root("Retail root");
    let answer = app.upload(&pool, &root.pem()).await;
    assert_eq!(answer.status, 200, "{}", answer.text);
    let expected = json!({
        "success": true,
        "message": "Certificate uploaded successfully",
        "clientPoolId": pool,
        "filename": "root-ca.crt",
        "fingerprint": root.fingerprint(),
        "subject": "CN=Retail root",
        "notAfter": "2040-01-01T00:00:00Z",
    });
    assert_eq!(answer.json(), expected);
    published(&app, &pool, "the root in KV", |document| {
        document.trust_anchors.len() == 1 && document.trust_anchors[0].certificate.as_bytes() == root.der
    })
    .await;

    let path = format!("/api/internal/{pool}/certificates");
    app.upload(&pool, &root.pem()).await.assert_problem(409, "already_exists");
    let list = app.call("GET", &path, None).await.json();
    assert_eq!(list["items"][0]["fingerprint"], root.fingerprint());
    assert_eq!(
        (&list["items"][0]["subject"], list["items"].as_array().unwrap().len()),
        (&json!("CN=Retail root"), 1)
    );

    let one = format!("{path}/{}", root.fingerprint());
    let pem = app.call("GET", &one, None).await;
    assert_eq!(
        (pem.text.as_str(), pem.header("content-type")),
        (root.pem().as_str(), Some("application/x-pem-file"))
    );
    // As openssl shows it.
    let pairs: Vec<String> = root
        .fingerprint()
        .to_uppercase()
        .as_bytes()
        .chunks(2)
        .map(|two| String::from_utf8_lossy(two).into())
        .collect();
    assert_eq!(app.call("GET", &format!("{path}/{}", pairs.join(":")), None).await.text, root.pem());
    app.call("GET", &format!("{path}/abc"), None).await.assert_problem(400, "invalid_request");

    assert_eq!(app.call("DELETE", &one, None).await.status, 204);
    app.call("DELETE", &one, None).await.assert_problem(404, "not_found");
    published(&app, &pool, "no root in KV", |document| document.trust_anchors.is_empty()).await;
    let told =
        "select count(*) from audit_event where action in ('certificate.create', 'certificate.delete')";
    assert_eq!(app.database.number(told).await, 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_thing_that_is_wrong_with_a_root_is_told() {
    let app = TestApp::start().await;
    let pool = acme_pool(&app).await;
    let root = Ca::root("Retail root");
    for (file, code) in [
        ("hello".to_owned(), "not_pem"),
        (format!("{}{}", root.pem(), Ca::root("Other").pem()), "several_certificates"),
        (root.device("05243", "pos-1").pem(), "not_a_ca"),
        (Ca::root_until("Old", "210101000000Z").pem(), "expired"),
        ("-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n".to_owned(), "private_key"),
        ("x".repeat(140 * 1024), "too_large"),
    ] {
        let answer = app.upload(&pool, &file).await;
        answer.assert_problem(400, code);
        assert_eq!(answer.wrong_fields(), ["certificate"], "{code}");
    }
    let expired = app.upload(&pool, &Ca::root_until("Old", "210101000000Z").pem()).await;
    assert!(expired.text.contains("2021-01-01T00:00:00Z"), "{}", expired.text);
    app.upload(&pool, &"x".repeat(200 * 1024)).await.assert_problem(413, "body_too_large");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_form_that_is_wrong_is_refused_by_field() {
    let app = TestApp::start().await;
    let pool = acme_pool(&app).await;
    let path = format!("/api/internal/{pool}/certificates");
    let root = Ca::root("Retail root");
    let good = part("certificate", &root.pem());
    let other = Ca::root("Other").fingerprint();
    for (form, fields) in [
        (part("file", &root.pem()), &["file", "certificate"][..]),
        (format!("{good}{good}"), &["certificate"]),
        (format!("{good}{}", part("replaces", "abc")), &["replaces"]),
        (format!("{good}{}", part("replaces", &other)), &["replaces"]),
        (format!("{good}{}", part("replaces", &root.fingerprint())), &["replaces"]),
        (format!("{good}{}", part("colour", "red")), &["colour"]),
    ] {
        let answer = app.post_form(&path, format!("{form}--b--\r\n")).await;
        answer.assert_problem(400, "invalid_request");
        assert_eq!(answer.wrong_fields(), fields, "{}", answer.text);
    }
    for broken in ["", "--b", "--b\r\n\r\n", "--c--\r\n", "hello", &good] {
        let answer = app.post_form(&path, broken.to_owned()).await;
        assert_eq!(answer.status, 400, "{broken:?}: {}", answer.text);
    }
    app.call("POST", &path, Some(json!({"certificate": root.pem()})))
        .await
        .assert_problem(415, "unsupported_media_type");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_root_can_take_the_place_of_another() {
    let app = TestApp::start().await;
    let pool = acme_pool(&app).await;
    let (old, new) = (Ca::root("Old"), Ca::root("New"));
    assert_eq!(app.upload(&pool, &old.pem()).await.status, 200);
    let form =
        format!("{}{}--b--\r\n", part("certificate", &new.pem()), part("replaces", &old.fingerprint()));
    let answer = app.post_form(&format!("/api/internal/{pool}/certificates"), form).await;
    assert_eq!((answer.status.as_u16(), &answer.json()["filename"]), (200, &Value::Null), "{}", answer.text);
    published(&app, &pool, "both roots in KV", |document| {
        let replaced: Vec<String> =
            document.trust_anchors.iter().filter_map(|anchor| Some(anchor.replaces?.to_string())).collect();
        document.trust_anchors.len() == 2 && replaced == [old.fingerprint()]
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn certificates_are_denied_by_fingerprint_and_by_serial_number() {
    let app = TestApp::start().await;
    let pool = acme_pool(&app).await;
    let path = format!("/api/internal/{pool}/denied-certificates");
    let device = Ca::root("Retail root").device("05243", "pos-1");
    let by_fingerprint = json!({"fingerprint": device.fingerprint().to_uppercase(), "reason": "stolen"});
    let first = app.create(&path, by_fingerprint.clone()).await;
    assert_eq!((&first["fingerprint"], &first["issuer"]), (&json!(device.fingerprint()), &Value::Null));
    let by_serial = json!({"serialNumber": "0x0A:3F", "issuer": "CN=Issuing CA, O=Retail", "reason": "lost"});
    let second = app.create(&path, by_serial.clone()).await;
    assert_eq!(second["serialNumber"], "a3f");
    for again in [by_fingerprint, by_serial] {
        app.call("POST", &path, Some(again)).await.assert_problem(409, "already_exists");
    }
    published(&app, &pool, "both denials in KV", |document| {
        let by = |serial: bool| {
            document
                .denied_certificates
                .iter()
                .filter(|denied| matches!(denied, DeniedCertificate::IssuerAndSerial { .. }) == serial)
                .count()
        };
        (by(true), by(false)) == (1, 1)
    })
    .await;
    let list = app.call("GET", &path, None).await.json();
    assert_eq!(list["items"].as_array().unwrap().len(), 2);
    let one = format!("{path}/{}", first["id"].as_str().unwrap());
    assert_eq!(app.call("GET", &one, None).await.json(), first);
    assert_eq!(app.call("DELETE", &one, None).await.status, 204);
    app.call("GET", &one, None).await.assert_problem(404, "not_found");
    published(&app, &pool, "one denial in KV", |document| document.denied_certificates.len() == 1).await;
    let told = "select count(*) from audit_event where target_kind = 'denied_certificate'";
    assert_eq!(app.database.number(told).await, 3);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_denial_that_is_wrong_is_refused_by_field() {
    let app = TestApp::start().await;
    let pool = acme_pool(&app).await;
    let fingerprint = "0".repeat(64);
    for (body, field) in [
        (json!({"reason": "x"}), "fingerprint"),
        (json!({"fingerprint": fingerprint}), "reason"),
        (json!({"fingerprint": fingerprint, "reason": " "}), "reason"),
        (json!({"fingerprint": "zz", "reason": "x"}), "fingerprint"),
        (
            json!({"fingerprint": fingerprint, "issuer": "CN=x", "serialNumber": "1", "reason": "x"}),
            "fingerprint",
        ),
        (json!({"serialNumber": "1", "reason": "x"}), "issuer"),
        (json!({"issuer": "CN=x", "reason": "x"}), "serialNumber"),
        (json!({"issuer": "x", "serialNumber": "1", "reason": "x"}), "issuer"),
        (json!({"issuer": "CN=x", "serialNumber": "xyz", "reason": "x"}), "serialNumber"),
    ] {
        let answer = app.call("POST", &format!("/api/internal/{pool}/denied-certificates"), Some(body)).await;
        answer.assert_problem(400, "invalid_request");
        assert_eq!(answer.wrong_fields(), [field], "{}", answer.text);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reading_needs_device_read_and_changing_certificate_write() {
    let app = TestApp::start().await;
    let pool = acme_pool(&app).await;
    let reader = app.key(Some("acme"), Some(&[Permission::DeviceRead])).await;
    let writer = app.key(Some("acme"), Some(&[Permission::CertificateWrite])).await;
    let path = format!("/api/internal/{pool}/denied-certificates");
    let deny = || Some(json!({"fingerprint": "0".repeat(64), "reason": "stolen"}));
    let status = |answer: Answer| answer.status.as_u16();
    assert_eq!(status(app.call_with(&reader, "GET", &path, None).await), 200);
    assert_eq!(status(app.call_with(&reader, "POST", &path, deny()).await), 403);
    assert_eq!(status(app.call_with(&writer, "POST", &path, deny()).await), 201);
    assert_eq!(status(app.call_with(&writer, "GET", &path, None).await), 403);
    for missing in ["00000000-0000-4000-8000-000000000000", &pool.to_uppercase()] {
        let answer = app.call("GET", &format!("/api/internal/{missing}/certificates"), None).await;
        assert!([400, 404].contains(&answer.status.as_u16()), "{}", answer.text);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_policy_is_changed_by_merge_patch_and_published() {
    let app = TestApp::start().await;
    let pool = acme_pool(&app).await;
    let path = "/api/internal/org/acme/env/prod/pool";
    let before = app.call("GET", path, None).await.json();
    assert_eq!(before["provisioning"]["mode"], "registered");
    let patch = json!({
        "bindToCertificate": true,
        "provisioning": {
            "mode": "auto", "match": {"o": "05243"}, "clientAppId": "pos", "scopes": ["device", "till"],
            "deviceIdTemplate": "{o}-{cn}", "tags": {"business_unit_id": "{o}"}, "maxPerHour": 7,
        },
    });
    let answer = app.call("PATCH", path, Some(patch.clone())).await;
    assert_eq!(answer.status, 200, "{}", answer.text);
    assert_eq!(answer.json()["provisioning"], patch["provisioning"]);
    assert_eq!(app.call("GET", path, None).await.json(), answer.json());
    published(&app, &pool, "the policy in KV", |document| {
        let policy = &document.provisioning;
        document.bind_to_certificate
            && policy.mode == ProvisioningMode::Auto
            && policy.device_id_template.to_string() == "{o}-{cn}"
            && policy.max_per_hour == 7
            && document.device_defaults.tags.contains_key("country")
    })
    .await;
    for (patch, field) in [
        (json!({"provisioning": {"mode": "auto", "match": null}}), "provisioning.match"),
        (json!({"provisioning": {"deviceIdTemplate": "{what}"}}), "provisioning.deviceIdTemplate"),
        (json!({"provisioning": []}), "provisioning"),
        (json!({"provisioning": {"colour": "red"}}), "provisioning.colour"),
        (json!({"bindToCertificate": "yes"}), "bindToCertificate"),
    ] {
        let refused = app.call("PATCH", path, Some(patch)).await;
        refused.assert_problem(400, "invalid_request");
        assert_eq!(refused.wrong_fields(), [field], "{}", refused.text);
    }
    let reset = app.call("PATCH", path, Some(json!({"provisioning": null}))).await.json();
    assert_eq!(reset["provisioning"], before["provisioning"]);
    let told = "select count(*) from audit_event where action = 'pool.update' and changes::text like '%deviceIdTemplate%'";
    assert_eq!(app.database.number(told).await, 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_decision_is_explained_step_by_step_and_issues_nothing() {
    let app = TestApp::start().await;
    let pool = acme_pool(&app).await;
    let root = Ca::root("Retail root");
    assert_eq!(app.upload(&pool, &root.pem()).await.status, 200);
    let path = format!("/api/internal/{pool}/certificates/explain");
    let device = root.device("05243", "pos-1");
    let ask = async |body: Value| {
        let answer = app.call("POST", &path, Some(body)).await;
        assert_eq!(answer.status, 200, "{}", answer.text);
        answer.json()
    };
    let unknown = ask(json!({"x5c": [device.x5c()]})).await;
    assert_eq!((&unknown["decision"], &unknown["code"]), (&json!("refused"), &json!("device_unknown")));
    assert_eq!(unknown["root"], root.fingerprint());
    let steps = unknown["steps"].as_array().unwrap();
    assert!(steps.len() > 4 && steps.iter().rev().skip(1).all(|step| step["holds"] == true), "{unknown}");
    assert_eq!(steps.last().unwrap()["code"], "device_unknown");

    app.device("pos-1").await;
    let known = ask(json!({"x5c": [device.x5c()]})).await;
    assert_eq!((&known["decision"], &known["deviceId"]), (&json!("admitted"), &json!("pos-1")));
    let client =
        app.call("GET", "/api/internal/org/acme/env/prod/device/pos-1/app/client", None).await.json();
    assert_eq!(known["clientId"], client["clientId"]);
    let later = ask(json!({"x5c": [device.x5c()], "at": "2041-01-01T00:00:00Z"})).await;
    assert_eq!(later["code"], "chain_expired");
    let stranger = ask(json!({"x5c": [Ca::root("Other").device("05243", "pos-1").x5c()]})).await;
    assert_eq!(stranger["decision"], "refused");

    let policy = json!({"provisioning": {"mode": "auto", "match": "any"}});
    app.call("PATCH", "/api/internal/org/acme/env/prod/pool", Some(policy)).await;
    let new = ask(json!({"x5c": [root.device("05243", "pos-2").x5c()]})).await;
    assert_eq!((&new["decision"], &new["newDevice"]), (&json!("admitted"), &json!(true)));
    assert_eq!(app.database.number("select count(*) from device").await, 1);

    let now = keypost::clock::unix(keypost::clock::Clock::now(&*app.clock)).0;
    let issuer = format!("https://edge.test/{pool}");
    let claims = json!({"iss": "pos-1", "sub": "pos-1", "aud": issuer, "exp": now + 60, "jti": "1"});
    let good = ask(json!({"assertion": device.assertion(&claims)})).await;
    assert_eq!(good["decision"], "admitted", "{good}");
    let mut other = claims.clone();
    other["aud"] = json!("https://elsewhere");
    assert_eq!(ask(json!({"assertion": device.assertion(&other)})).await["code"], "aud_mismatch");
    for (body, field) in [
        (json!({}), "x5c"),
        (json!({"x5c": []}), "x5c"),
        (json!({"x5c": "abc"}), "x5c"),
        (json!({"x5c": ["a"], "assertion": "b"}), "assertion"),
        (json!({"x5c": ["a"], "at": "yesterday"}), "at"),
    ] {
        let answer = app.call("POST", &path, Some(body)).await;
        answer.assert_problem(400, "invalid_request");
        assert_eq!(answer.wrong_fields(), [field], "{}", answer.text);
    }
    assert_eq!(ask(json!({"x5c": ["%"]})).await["decision"], "refused");
}
