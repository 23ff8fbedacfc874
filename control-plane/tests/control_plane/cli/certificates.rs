//! `keypost certificate`: roots, denials and explanations.

use std::path::PathBuf;

use serde_json::{Value, json};

use super::{Done, Server, finish, finish_with};
use crate::support::{Ca, TestApp};

/// A server with a pool, and a folder for files.
struct Setting {
    app: TestApp,
    server: Server,
    pool: String,
    folder: PathBuf,
}

impl Setting {
    async fn new(name: &str) -> Self {
        let app = TestApp::start().await;
        let server = Server::of(&app).await;
        let pool = app.acme().await["clientPoolId"].as_str().unwrap().to_owned();
        let folder = std::env::temp_dir().join(format!("keypost-cli-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        Self { app, server, pool, folder }
    }

    fn file(&self, name: &str, content: &str) -> String {
        let path = self.folder.join(name);
        std::fs::write(&path, content).unwrap();
        path.to_str().unwrap().to_owned()
    }

    async fn run(&self, words: &[&str]) -> Done {
        self.server.run(&[&["certificate"], words, &["--pool", &self.pool]].concat()).await
    }
}

impl Drop for Setting {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn roots_are_uploaded_listed_printed_and_deleted() {
    let setting = Setting::new("roots").await;
    let (old, new) = (Ca::root("Old root"), Ca::root("New root"));
    let file = setting.file("old \"root\".crt", &old.pem());
    let uploaded = setting.run(&["upload", &file, "--json"]).await.json();
    assert_eq!(
        (&uploaded[0]["success"], &uploaded[0]["fingerprint"]),
        (&json!(true), &json!(old.fingerprint()))
    );
    assert_eq!(uploaded[0]["filename"], "old 'root'.crt");
    setting.run(&["upload", &file]).await.failed(5, "already such a certificate");

    // From standard input, for the old one.
    let mut command =
        setting.server.command(&["certificate", "upload", "-", "--replaces", &old.fingerprint()]);
    let uploaded = finish_with(command.env("KEYPOST_CLIENT_POOL_ID", &setting.pool), &new.pem()).await.ok();
    assert!(uploaded.contains("CN=New root"), "{uploaded}");
    let table = setting.run(&["list"]).await.ok();
    let row = table.lines().find(|line| line.starts_with(&new.fingerprint())).unwrap();
    assert!(row.contains("CN=New root") && row.contains("2040-01-01T00:00:00Z"), "{table}");
    assert!(row.contains(&old.fingerprint()[..48]), "which it replaces: {table}");
    assert_eq!(table.lines().count(), 3, "{table}");

    // By the fingerprint as openssl shows it.
    let pairs: Vec<String> = new
        .fingerprint()
        .to_uppercase()
        .as_bytes()
        .chunks(2)
        .map(|two| String::from_utf8_lossy(two).into())
        .collect();
    assert_eq!(setting.run(&["get", &pairs.join(":")]).await.ok(), new.pem());
    let deleted = setting.run(&["delete", &old.fingerprint()]).await.ok();
    assert_eq!(deleted, format!("Deleted the root {}.\n", old.fingerprint()));
    setting.run(&["get", &old.fingerprint()]).await.failed(4, "no such certificate");
    setting.run(&["delete", &old.fingerprint()]).await.failed(4, "no such certificate");
    assert_eq!(setting.run(&["list", "--json"]).await.json().len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_wrong_with_a_root_is_told() {
    let setting = Setting::new("wrong-roots").await;
    let root = Ca::root("A root");
    for (content, because) in [
        (root.device("05243", "pos-1").pem(), "not a CA"),
        (Ca::root_until("Old", "210101000000Z").pem(), "it expired at 2021-01-01T00:00:00Z"),
        ("hello".to_owned(), "PEM"),
        (format!("{}{}", root.pem(), root.pem()), "one"),
    ] {
        let file = setting.file("wrong.crt", &content);
        setting.run(&["upload", &file]).await.failed(1, because);
    }
    let nowhere = setting.folder.join("nowhere.crt");
    setting.run(&["upload", nowhere.to_str().unwrap()]).await.failed(1, "nowhere.crt");
    setting.run(&["get", "abc"]).await.failed(2, "64 digits");
    finish(&mut setting.server.command(&["certificate", "list"])).await.failed(2, "--pool");
    let elsewhere = ["certificate", "list", "--pool", "00000000-0000-4000-8000-000000000000"];
    setting.server.run(&elsewhere).await.failed(4, "no such client pool");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn certificates_are_denied_listed_and_allowed_again() {
    let setting = Setting::new("denied").await;
    let fingerprint = "ab".repeat(32);
    let denied =
        setting.run(&["deny", "--fingerprint", &fingerprint, "--reason", "stolen", "--json"]).await.json();
    assert_eq!((&denied[0]["fingerprint"], &denied[0]["reason"]), (&json!(fingerprint), &json!("stolen")));
    let by_serial =
        ["deny", "--serial", "0A:3F", "--issuer", "issuer=C = US, O = \"Retail, Corp\", CN = Issuing"];
    let denied = setting.run(&[&by_serial[..], &["--reason", "lost"]].concat()).await.ok();
    assert!(denied.lines().any(|line| line == "serialNumber  a3f"), "{denied}");
    let list = setting.run(&["denied", "--json"]).await.json();
    assert_eq!(list.len(), 2);
    let id = list.iter().find(|denied| denied["serialNumber"] == "a3f").unwrap()["id"].as_str().unwrap();
    let allowed = setting.run(&["allow", id]).await.ok();
    assert_eq!(allowed, format!("Deleted the denial {id}.\n"));
    setting.run(&["allow", id]).await.failed(4, "no such denied certificate");
    let table = setting.run(&["denied"]).await.ok();
    assert!(table.lines().count() == 2 && table.contains(&fingerprint[..48]), "{table}");

    for (words, code, because) in [
        (&["deny", "--reason", "x"][..], 2, "--fingerprint"),
        (&["deny", "--serial", "1", "--reason", "x"], 2, "--issuer"),
        (&["deny", "--fingerprint", &fingerprint], 2, "--reason"),
        (&["deny", "--fingerprint", &fingerprint, "--reason", "again"], 5, "already such a denial"),
        (&["deny", "--serial", "xyz", "--issuer", "CN=x", "--reason", "x"], 1, "serialNumber: "),
        (&["deny", "--serial", "1", "--issuer", "colour=red", "--reason", "x"], 1, "issuer: "),
        (&["allow", "abc"], 2, "<ID>"),
    ] {
        setting.run(words).await.failed(code, because);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_decision_is_explained_line_by_line() {
    let setting = Setting::new("explain").await;
    let root = Ca::root("Retail root");
    setting.run(&["upload", &setting.file("root.crt", &root.pem())]).await.ok();
    let device = root.device("05243", "pos-1");
    // What stands around the certificates does not matter.
    let chain = setting.file("chain.pem", &format!("subject=CN = pos-1\n{}\n{}", device.pem(), root.pem()));
    let refused = setting.run(&["explain", "--chain", &chain]).await.ok();
    assert!(refused.lines().any(|line| line == "code                    device_unknown"), "{refused}");
    let last = refused.lines().last().unwrap();
    assert!(last.starts_with("  NO   device") && last.ends_with("there is no such device"), "{refused}");
    assert!(refused.contains(&format!("  yes  root              root {}", root.fingerprint())), "{refused}");

    setting.app.device("pos-1").await;
    let admitted = setting.run(&["explain", "--chain", &chain, "--json"]).await.json();
    assert_eq!((&admitted[0]["decision"], &admitted[0]["deviceId"]), (&json!("admitted"), &json!("pos-1")));
    assert!(admitted[0]["steps"].as_array().unwrap().iter().all(|step| step["holds"] == true));
    let late = setting.run(&["explain", "--chain", &chain, "--at", "2041-01-01T00:00:00Z"]).await.ok();
    assert!(late.contains("chain_expired") && late.contains("expired at 2040-01-01T00:00:00Z"), "{late}");

    let now = keypost::clock::unix(keypost::clock::Clock::now(&*setting.app.clock)).0;
    let claims = json!({
        "iss": "pos-1", "sub": "pos-1", "aud": format!("https://edge.test/{}", setting.pool), "exp": now + 60, "jti": "1",
    });
    let assertion = setting.file("assertion.jwt", &format!("{}\n", device.assertion(&claims)));
    let admitted = setting.run(&["explain", "--assertion", &assertion, "--json"]).await.json();
    assert_eq!(admitted[0]["decision"], "admitted", "{admitted:?}");
    let mut command = setting.server.command(&["certificate", "explain", "--assertion", "-", "--json"]);
    let nonsense =
        finish_with(command.env("KEYPOST_CLIENT_POOL_ID", &setting.pool), "\u{7f}nonsense").await.json();
    assert_eq!(nonsense[0]["code"], "assertion_malformed");
    assert_eq!(nonsense[0]["root"], Value::Null);

    let file = setting.file("hello.txt", "hello");
    setting.run(&["explain", "--chain", &file]).await.failed(2, "no certificate in PEM");
    setting.run(&["explain"]).await.failed(2, "--chain");
    setting
        .run(&["explain", "--chain", &chain, "--assertion", &assertion])
        .await
        .failed(2, "cannot be used with");
    setting.run(&["explain", "--chain", &chain, "--at", "tomorrow"]).await.failed(1, "at: ");
}
