//! One-time passwords: once, for the right device, and not by guessing.

use keypost_tests::admin::{Answer, Credentials};
use keypost_tests::{edge, stack};
use reqwest::StatusCode;
use serde_json::json;

fn is_invalid_otp(answer: &Answer) -> bool {
    answer.status == StatusCode::BAD_REQUEST && answer.body["code"] == "invalid_otp"
}

#[tokio::test]
async fn an_otp_works_once() {
    let fleet = stack::shared().await.admin().fleet("otp-once").await;
    fleet.device("pos-1").await;
    let otp = fleet.otp("pos-1").await;
    assert_eq!(otp.len(), 10);
    let typed = format!(" {}-{} ", &otp[..5].to_lowercase(), &otp[5..]);
    let first = fleet.admin.activate(json!({"otp": typed})).await;
    assert_eq!(first.status, StatusCode::OK, "{}", first.body);
    let again = fleet.admin.activate(json!({"otp": otp})).await;
    assert!(is_invalid_otp(&again), "{}", again.body);
}

#[tokio::test]
async fn of_two_activations_at_once_exactly_one_wins() {
    let fleet = stack::shared().await.admin().fleet("otp-race").await;
    fleet.device("pos-1").await;
    for round in 0..5 {
        let otp = fleet.otp("pos-1").await;
        let activate = || fleet.admin.activate(json!({"otp": otp}));
        let (a, b, c, d) = tokio::join!(activate(), activate(), activate(), activate());
        let won: Vec<&Answer> = [&a, &b, &c, &d].into_iter().filter(|x| x.status == StatusCode::OK).collect();
        assert_eq!(won.len(), 1, "round {round}");
        assert_eq!([&a, &b, &c, &d].into_iter().filter(|x| is_invalid_otp(x)).count(), 3, "round {round}");
        assert_eq!(edge::token(&Credentials::of(&won[0].body)).await.outcome(), "200", "round {round}");
    }
}

#[tokio::test]
async fn a_new_otp_ends_the_old_one() {
    let fleet = stack::shared().await.admin().fleet("otp-new").await;
    fleet.device("pos-1").await;
    let (old, new) = (fleet.otp("pos-1").await, fleet.otp("pos-1").await);
    assert!(is_invalid_otp(&fleet.admin.activate(json!({"otp": old})).await));
    assert_eq!(fleet.admin.activate(json!({"otp": new})).await.status, StatusCode::OK);
}

#[tokio::test]
async fn the_fifth_wrong_device_id_ends_an_otp() {
    let fleet = stack::shared().await.admin().fleet("otp-tries").await;
    fleet.device("pos-1").await;
    let otp = fleet.otp("pos-1").await;
    for _ in 0..4 {
        assert!(is_invalid_otp(&fleet.admin.activate(json!({"otp": otp, "deviceId": "pos-2"})).await));
    }
    let right = fleet.admin.activate(json!({"otp": otp, "deviceId": "pos-1"})).await;
    assert_eq!(right.status, StatusCode::OK, "four tries are not five: {}", right.body);

    let otp = fleet.otp("pos-1").await;
    for _ in 0..5 {
        assert!(is_invalid_otp(&fleet.admin.activate(json!({"otp": otp, "deviceId": "pos-2"})).await));
    }
    assert!(is_invalid_otp(&fleet.admin.activate(json!({"otp": otp, "deviceId": "pos-1"})).await));
}

#[tokio::test]
async fn a_new_activation_replaces_the_secret_and_leaves_the_old_one_a_while() {
    let fleet = stack::shared().await.admin().fleet("otp-again").await;
    let first = fleet.activated("pos-1").await;
    assert_eq!(edge::token(&first).await.outcome(), "200");
    let second = fleet.activate("pos-1").await;
    assert_eq!(first.client_id, second.client_id);
    assert_ne!(first.client_secret, second.client_secret);
    assert_eq!(edge::token(&second).await.outcome(), "200", "although the isolate held the earlier record");
    assert_eq!(edge::token(&first).await.outcome(), "200", "valid for another 10 minutes");
    let third = fleet.activate("pos-1").await;
    assert_eq!(edge::token(&third).await.outcome(), "200");
    assert_eq!(edge::token(&first).await.outcome(), "401 invalid_client", "only the last but one is kept");
}

#[tokio::test]
async fn bad_activations_are_told_which_field_is_wrong() {
    let admin = stack::shared().await.admin();
    for (body, field) in [
        (json!({}), "otp"),
        (json!({"otp": 7}), "otp"),
        (json!({"otp": "0123456789", "deviceId": "../x"}), "deviceId"),
        (json!({"otp": "0123456789", "surprise": 1}), "surprise"),
    ] {
        let answer = admin.activate(body.clone()).await;
        assert_eq!(answer.status, StatusCode::BAD_REQUEST, "{body}: {}", answer.body);
        assert!(answer.body.to_string().contains(field), "{body}: {}", answer.body);
        assert_eq!(answer.headers["content-type"], "application/problem+json");
        assert!(answer.headers.contains_key("x-request-id"));
    }
    assert!(is_invalid_otp(&admin.activate(json!({"otp": "not-an-otp-at-all"})).await));
}

#[tokio::test]
async fn guessing_otps_is_slowed_down_by_address() {
    // A stack of its own, because it spends the failed attempts of the address that all tests come from.
    let stack = stack::own("otp-guessing").await;
    let fleet = stack.admin().fleet("otp-guessing").await;
    fleet.device("pos-1").await;
    let otp = fleet.otp("pos-1").await;
    let mut invalid = 0;
    let limited = loop {
        let answer = fleet.admin.activate(json!({"otp": "0000000000"})).await;
        if !is_invalid_otp(&answer) {
            break answer;
        }
        invalid += 1;
        assert!(invalid <= 31, "no limit");
    };
    assert_eq!(limited.status, StatusCode::TOO_MANY_REQUESTS, "{}", limited.body);
    assert!(limited.headers.contains_key("retry-after"));
    assert_eq!(invalid, 30);
    let honest = fleet.admin.activate(json!({"otp": otp})).await;
    assert_eq!(honest.status, StatusCode::TOO_MANY_REQUESTS, "the address is slowed, whatever it sends");
}
