//! Devices that come out of a factory with a certificate, through the whole of it: roots are uploaded, chains are made by
//! this machine's openssl, tokens come from the edge, and devices appear in the control plane.

use std::time::Duration;

use keypost_tests::admin::Fleet;
use keypost_tests::edge::{self, Reply};
use keypost_tests::openssl::{Authority, Device, Kind};
use keypost_tests::stack::{self, TestStack};
use keypost_tests::wait;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

const GRANT: &str = "urn:ietf:params:oauth:grant-type:jwt-bearer";
/// Within this time a change is at the edge: 30 seconds of an isolate's memory, and what a busy machine needs.
const PROPAGATION: Duration = Duration::from_secs(75);

/// Uploads a root, for another one if that is given.
pub(crate) async fn upload(fleet: &Fleet, root: &Authority, replaces: Option<&str>) -> Value {
    let replaces = replaces.map_or_else(String::new, |fingerprint| {
        format!("--b\r\nContent-Disposition: form-data; name=\"replaces\"\r\n\r\n{fingerprint}\r\n")
    });
    let form = format!(
        "{replaces}--b\r\nContent-Disposition: form-data; name=\"certificate\"; filename=\"root-ca.crt\"\r\n\r\n{}\r\n--b--\r\n",
        root.root_pem()
    );
    let url = format!("{}/api/internal/{}/certificates", fleet.admin.url, fleet.pool());
    let request = edge::http().post(url).header("x-api-key", &fleet.admin.key);
    let request = request.header("content-type", "multipart/form-data; boundary=b").body(form);
    let reply = edge::send(request).await;
    assert_eq!(reply.status, 200, "{reply:?}");
    reply.body
}

async fn patch_policy(fleet: &Fleet, policy: Value) {
    let path = format!("{}/pool", fleet.path);
    let answer = fleet.admin.send(Method::PATCH, &path, json!({"provisioning": policy})).await;
    assert_eq!(answer.status, StatusCode::OK, "{}", answer.body);
}

async fn grant(fleet: &Fleet, assertion: &str) -> Reply {
    let url = format!("{}/oauth2/token", fleet.issuer());
    edge::send(edge::http().post(url).form(&[("grant_type", GRANT), ("assertion", assertion)])).await
}

pub(super) async fn ask(fleet: &Fleet, device: &Device, alg: &str) -> Reply {
    grant(fleet, &device.assertion(alg, fleet.issuer(), stack::unix_now())).await
}

/// The code of a refusal, or 200.
pub(super) fn outcome(reply: &Reply) -> String {
    reply.body["error_description"].as_str().map_or_else(|| reply.status.to_string(), str::to_owned)
}

/// Asks until the answer is as it must be: changes take a while to get to the edge.
pub(super) async fn until_outcome(fleet: &Fleet, device: &Device, alg: &str, expected: &str) {
    wait::until(&format!("{}: {expected}", device.name), PROPAGATION, || async {
        let found = outcome(&ask(fleet, device, alg).await);
        if found == expected { Ok(()) } else { Err(found) }
    })
    .await;
}

/// Waits until the control plane has the device.
pub(super) async fn until_known(fleet: &Fleet, device: &str) -> Value {
    let path = format!("{}/device/{device}", fleet.path);
    wait::until(&format!("{device} in the control plane"), PROPAGATION, || async {
        let answer = fleet.admin.send(Method::GET, &path, Value::Null).await;
        if answer.status == StatusCode::OK { Ok(answer.body) } else { Err(answer.status.to_string()) }
    })
    .await
}

/// Makes files with openssl, each by arguments that are parted by white space, and uploads the last one as a root.
async fn refused_root(fleet: &Fleet, commands: &[&str]) -> Value {
    let folder = tempfile::TempDir::new().unwrap();
    for command in commands {
        let arguments = command.split_whitespace();
        let made =
            std::process::Command::new("openssl").args(arguments).current_dir(&folder).output().unwrap();
        assert!(made.status.success(), "{command}: {}", String::from_utf8_lossy(&made.stderr));
    }
    let pem = std::fs::read_to_string(folder.path().join("root.pem")).unwrap();
    let form = format!(
        "--b\r\nContent-Disposition: form-data; name=\"certificate\"; filename=\"root.pem\"\r\n\r\n{pem}\r\n--b--\r\n"
    );
    let url = format!("{}/api/internal/{}/certificates", fleet.admin.url, fleet.pool());
    let request = edge::http().post(url).header("x-api-key", &fleet.admin.key);
    let reply =
        edge::send(request.header("content-type", "multipart/form-data; boundary=b").body(form)).await;
    assert_eq!(reply.status, 400, "{reply:?}");
    reply.body["code"].clone()
}

pub(super) async fn auto_fleet(stack: &TestStack, organization: &str, root: &Authority) -> Fleet {
    let fleet = stack.admin().fleet(organization).await;
    upload(&fleet, root, None).await;
    let tags = json!({"business_unit_id": "{o}"});
    patch_policy(&fleet, json!({"mode": "auto", "match": {"o": "05243"}, "tags": tags})).await;
    fleet
}

#[tokio::test]
async fn the_openssl_way_works_for_registered_devices_with_every_kind_of_key() {
    let stack = stack::shared().await;
    let fleet = stack.admin().fleet("cert-registered").await;
    for (kind, algs) in
        [(Kind::Rsa, &["RS256", "PS256"][..]), (Kind::P256, &["ES256"]), (Kind::P384, &["ES384"])]
    {
        let authority = Authority::new(kind);
        let uploaded = upload(&fleet, &authority, None).await;
        assert_eq!((&uploaded["success"], &uploaded["filename"]), (&json!(true), &json!("root-ca.crt")));
        for alg in algs {
            let name = format!("pos-terminal-{alg}");
            let device = authority.device("05243", &name);
            fleet.device(&name).await;
            until_outcome(&fleet, &device, alg, "200").await;
            let token = ask(&fleet, &device, alg).await;
            let claims = edge::claims(token.access_token());
            assert_eq!((&claims["sub"], &claims["scope"]), (&json!(name), &json!(["device"])));
            // The first certificate is pinned.
            let path = format!("{}/device/{name}", fleet.path);
            wait::until("the fingerprint", PROPAGATION, || async {
                let device = fleet.admin.get(&path).await;
                if device["certificateFingerprint"].is_string() { Ok(()) } else { Err(device.to_string()) }
            })
            .await;
        }
        // Nobody has registered this one.
        let unknown = authority.device("05243", "nobody");
        assert_eq!(outcome(&ask(&fleet, &unknown, algs[0]).await), "device_unknown");
    }
}

#[tokio::test]
async fn roots_that_openssl_makes_and_that_will_not_do_are_refused_each_with_its_code() {
    let fleet = stack::shared().await.admin().fleet("cert-refused-roots").await;
    const KEY: &str = "ecparam -genkey -noout -name prime256v1 -out root.key";
    const ROOT: &str = "req -x509 -new -key root.key -subj /CN=Root -out root.pem";
    for (commands, code) in [
        (&["genrsa -out root.key 1024", ROOT][..], "weak_key"),
        (&["ecparam -genkey -noout -name secp256k1 -out root.key", ROOT], "weak_key"),
        (&["genpkey -algorithm ed25519 -out root.key", ROOT], "weak_key"),
        (&["genrsa -out root.key 2048", &format!("{ROOT} -sha1")], "weak_hash"),
        (&[KEY, &format!("{ROOT} -addext basicConstraints=critical,CA:false")], "not_a_ca"),
        (&[KEY, &format!("{ROOT} -addext keyUsage=digitalSignature")], "not_a_ca"),
        (&[KEY, &format!("{ROOT} -addext 1.2.3.4=critical,ASN1:NULL")], "unusable_root"),
        (
            &[
                "ecparam -genkey -noout -name prime256v1 -out above.key",
                "req -x509 -new -key above.key -subj /CN=Above -out above.pem",
                KEY,
                "req -new -key root.key -subj /CN=Root -addext basicConstraints=critical,CA:true -out root.csr",
                "x509 -req -in root.csr -copy_extensions copy -CA above.pem -CAkey above.key -CAcreateserial -out root.pem",
            ],
            "not_self_signed",
        ),
        (
            &[
                KEY,
                "req -new -key root.key -subj /CN=Root -addext basicConstraints=critical,CA:true -out root.csr",
                "x509 -req -in root.csr -copy_extensions copy -signkey root.key -days -1 -out root.pem",
            ],
            "expired",
        ),
    ] {
        assert_eq!(refused_root(&fleet, commands).await, code, "{commands:?}");
    }
    let list = fleet.admin.get(&format!("/internal/{}/certificates", fleet.pool())).await;
    assert_eq!(list["items"], json!([]));
}

#[tokio::test]
async fn an_unknown_device_gets_its_token_at_once_and_appears_within_seconds() {
    let stack = stack::shared().await;
    let root = Authority::new(Kind::P256);
    let fleet = auto_fleet(stack, "cert-auto", &root).await;
    let device = root.device("05243", "pos-1");
    until_outcome(&fleet, &device, "ES256", "200").await;
    let known = until_known(&fleet, "pos-1").await;
    assert_eq!((&known["provisionedBy"], &known["status"]), (&json!("certificate"), &json!("active")));
    assert_eq!(known["tags"], json!({"business_unit_id": "05243"}));
    let events = fleet.admin.get("/internal/audit?action=device.provision").await;
    let event = events["items"].as_array().unwrap().iter().find(|event| event["targetId"] == "pos-1");
    assert!(event.is_some(), "{events}");

    // The same CN under another unit is another device, and none that may come in.
    let other = root.device("99999", "pos-1");
    until_outcome(&fleet, &other, "ES256", "subject_mismatch").await;
    // Explained by the same code.
    let path = format!("/internal/{}/certificates/explain", fleet.pool());
    let answer = fleet.admin.send(Method::POST, &path, json!({"x5c": other.x5c})).await;
    assert_eq!(answer.body["code"], "subject_mismatch", "{}", answer.body);

    // Another tenant's root gets nothing here.
    let foreign = Authority::new(Kind::P256);
    let other_fleet = auto_fleet(stack, "cert-other", &foreign).await;
    let stranger = foreign.device("05243", "pos-2");
    until_outcome(&other_fleet, &stranger, "ES256", "200").await;
    // The roots are of one name, so it is the signature that tells them apart.
    assert_eq!(outcome(&ask(&fleet, &stranger, "ES256").await), "chain_bad_signature");

    // Denied, a device stays out; disabled, too.
    let denials = format!("/internal/{}/denied-certificates", fleet.pool());
    let fingerprint = known["certificateFingerprint"].clone();
    fleet.admin.create(&denials, json!({"fingerprint": fingerprint, "reason": "stolen"})).await;
    until_outcome(&fleet, &device, "ES256", "certificate_denied").await;
    let lost = root.device("05243", "pos-4");
    until_outcome(&fleet, &lost, "ES256", "200").await;
    let serial = lost.printed("-serial").replace("serial=", "");
    let denial = json!({"serialNumber": serial, "issuer": lost.printed("-issuer"), "reason": "lost"});
    fleet.admin.create(&denials, denial).await;
    until_outcome(&fleet, &lost, "ES256", "certificate_denied").await;
    let second = root.device("05243", "pos-3");
    until_outcome(&fleet, &second, "ES256", "200").await;
    until_known(&fleet, "pos-3").await;
    let disable = format!("{}/device/pos-3/disable", fleet.path);
    assert_eq!(fleet.admin.send(Method::POST, &disable, Value::Null).await.status, StatusCode::OK);
    until_outcome(&fleet, &second, "ES256", "device_disabled").await;
}

#[tokio::test]
async fn roots_are_rolled_over_and_no_device_is_locked_out() {
    let stack = stack::shared().await;
    let (old, new) = (Authority::new(Kind::P256), Authority::new(Kind::P384));
    let fleet = auto_fleet(stack, "cert-rollover", &old).await;
    let before = old.device("05243", "pos-1");
    until_outcome(&fleet, &before, "ES256", "200").await;
    until_known(&fleet, "pos-1").await;
    let roots = fleet.admin.get(&format!("/internal/{}/certificates", fleet.pool())).await;
    let fingerprint = roots["items"][0]["fingerprint"].as_str().unwrap().to_owned();
    upload(&fleet, &new, Some(&fingerprint)).await;
    let after = new.device("05243", "pos-1");
    until_outcome(&fleet, &after, "ES384", "200").await;
    assert_eq!(outcome(&ask(&fleet, &before, "ES256").await), "200");
    let path = format!("/internal/{}/certificates/{fingerprint}", fleet.pool());
    let deleted = fleet.admin.send(Method::DELETE, &path, Value::Null).await;
    assert_eq!(deleted.status, StatusCode::NO_CONTENT, "{}", deleted.body);
    until_outcome(&fleet, &before, "ES256", "chain_unknown_issuer").await;
    assert_eq!(outcome(&ask(&fleet, &after, "ES384").await), "200");
}

#[tokio::test]
async fn while_the_control_plane_is_down_devices_get_tokens_and_appear_later() {
    let mut stack = stack::own("cert-outage").await;
    let root = Authority::new(Kind::P256);
    let fleet = auto_fleet(&stack, "cert-outage", &root).await;
    until_outcome(&fleet, &root.device("05243", "pos-0"), "ES256", "200").await;
    stack.stop_control_plane();
    for number in 1..4 {
        let device = root.device("05243", &format!("pos-{number}"));
        assert_eq!(outcome(&ask(&fleet, &device, "ES256").await), "200");
    }
    stack.start_control_plane().await;
    for number in 0..4 {
        let device = until_known(&fleet, &format!("pos-{number}")).await;
        assert_eq!(device["provisionedBy"], "certificate");
    }
}
