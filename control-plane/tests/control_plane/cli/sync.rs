use crate::support::TestApp;

use super::Server;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn everything_is_compared_and_written_anew_and_waited_for() {
    let app = TestApp::start().await;
    let server = Server::of(&app).await;
    app.acme().await;
    app.device("pos-1").await;
    let verified = &server.run(&["sync", "verify", "--wait", "--json"]).await.json()[0];
    assert_eq!(
        (&verified["kind"], &verified["state"], &verified["marked"]),
        (&"verify".into(), &"done".into(), &0.into())
    );
    let rebuilt = server.run(&["sync", "rebuild", "--wait"]).await.ok();
    assert!(rebuilt.lines().any(|line| line.starts_with("published ") && line.ends_with("yes")), "{rebuilt}");
    let begun = &server.run(&["sync", "rebuild", "--json"]).await.json()[0];
    assert!(begun["jobId"].is_string(), "{begun}");
    let status = server.run(&["sync", "status"]).await.ok();
    assert!(status.contains("verify") && status.contains("rebuild"), "{status}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_publisher_key_is_listed_and_removed() {
    let app = TestApp::start().await;
    let server = Server::of(&app).await;
    app.acme().await;
    let table = server.run(&["sync", "publisher-keys"]).await.ok();
    let signing = table.lines().find(|line| line.contains(" signing ")).unwrap();
    let kid = signing.split_whitespace().next().unwrap();
    let removed = &server.run(&["sync", "remove-publisher-key", kid, "--yes", "--json"]).await.json()[0];
    assert_eq!((&removed["kid"], &removed["published"]), (&kid.into(), &true.into()));
    assert!(removed["minTrustVersion"].as_u64().unwrap() > 0);
    server.run(&["sync", "remove-publisher-key", kid, "--yes"]).await.failed(4, "publisher key");
}
