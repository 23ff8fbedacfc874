//! Keys in AWS KMS, from the administrator who names them to the token that `jose` verifies. moto checks every signature and
//! policy here: what the control plane and the Worker may do is what docs/kms.md lets them.

use std::time::Duration;

use base64ct::{Base64UrlUnpadded, Encoding};
use keypost_shared::document::{
    ClientDocument, ClientStatus, ClientSubject, PoolSigningKey, PrivateHalf, StoredSecret,
};
use keypost_shared::host;
use keypost_shared::id::ClientId;
use keypost_shared::jwk::{Jwk, SigningAlg};
use keypost_shared::kv_key::KvKey;
use keypost_shared::secret::SecretHash;
use keypost_tests::admin::{Credentials, Fleet};
use keypost_tests::kms::{FakeKms, Player, Way};
use keypost_tests::lone_edge::LoneEdge;
use keypost_tests::{clients, edge, stack, wait};
use serde_json::{Value, json};

/// What docs/kms.md lets the control plane do.
const CONTROL_PLANE: [&str; 7] = [
    "kms:DescribeKey",
    "kms:GetPublicKey",
    "kms:Sign",
    "kms:GenerateDataKey",
    "kms:Decrypt",
    "kms:CreateKey",
    "kms:TagResource",
];
/// And the Worker.
const EDGE: [&str; 1] = ["kms:Sign"];

fn header(token: &str) -> Value {
    let text = token.split('.').next().unwrap();
    serde_json::from_slice(&Base64UrlUnpadded::decode_vec(text).unwrap()).unwrap()
}

async fn verify(credentials: &Credentials, token: &str) -> Value {
    let input = json!({"token": token, "jwksUri": credentials.jwks_uri, "issuer": credentials.issuer});
    clients::run("jose.mjs", input).await["claims"].clone()
}

/// A fleet whose documents are made often, so that a rotation takes seconds.
async fn fleet(stack: &stack::TestStack, organization: &str) -> (Fleet, Credentials) {
    let fleet = stack.admin().fleet(organization).await;
    fleet.admin.patch(&format!("{}/pool", fleet.path), json!({"maxStalenessSeconds": 10})).await;
    let credentials = fleet.activated("till-1").await;
    (fleet, credentials)
}

/// Names a KMS key for the fleet's pool, and waits until another key than before signs its tokens.
async fn move_to_kms(fleet: &Fleet, credentials: &Credentials, mode: &str, key: &str) {
    let before = header(edge::token(credentials).await.access_token())["kid"].clone();
    let body = json!({"keyBackend": "aws_kms", "keyMode": mode, "kmsKeyId": key});
    let pool = fleet.admin.patch(&format!("{}/pool", fleet.path), body).await;
    assert_eq!(pool["kmsKeyId"], key);
    wait::until("another key signs", Duration::from_secs(120), || async {
        let reply = edge::token(credentials).await;
        match reply.body["access_token"].as_str() {
            Some(token) if header(token)["kid"] != before => Ok(()),
            _ => Err(reply.outcome()),
        }
    })
    .await;
}

#[tokio::test]
async fn tokens_of_keys_in_kms_verify_and_outages_of_kms_end_by_themselves() {
    let kms = FakeKms::start("kms", Player::Moto).await;
    let root = kms.key("ECC_NIST_P256", "SIGN_VERIFY").await;
    let encrypts = kms.key("SYMMETRIC_DEFAULT", "ENCRYPT_DECRYPT").await;
    let signs = kms.key("ECC_NIST_P256", "SIGN_VERIFY").await;
    let control_plane = kms.user("control-plane", &CONTROL_PLANE).await;
    let worker = kms.user("edge", &EDGE).await;
    kms.enforce().await;

    let mut environment = control_plane.variables(&kms);
    environment.push(("KEYPOST_ROOT_SIGNER".to_owned(), root));
    environment.push(("KEYPOST_SIGNING_KEY_SECONDS".to_owned(), "1".to_owned()));
    let stack = stack::own_with("kms", environment, worker.variables(&kms)).await;
    // The Worker pins the root in KMS: without its signatures there would be no tokens at all.
    let (enveloped, till) = fleet(&stack, "enveloped").await;
    move_to_kms(&enveloped, &till, "envelope", &encrypts).await;
    let (signed, kiosk) = fleet(&stack, "signed").await;
    move_to_kms(&signed, &kiosk, "kms_sign", &signs).await;

    for credentials in [&till, &kiosk] {
        let reply = edge::token(credentials).await;
        assert_eq!(verify(credentials, reply.access_token()).await["sub"], "till-1");
    }
    // v1/trust is signed by KMS now and then as well, but not within these seconds more than once.
    let before = kms.calls("Sign");
    for _ in 0..5 {
        assert_eq!(edge::token(&till).await.outcome(), "200");
    }
    assert!(kms.calls("Sign") <= before + 1, "tokens of an opened key cost no call");
    let before = kms.calls("Sign");
    for _ in 0..5 {
        assert_eq!(edge::token(&kiosk).await.outcome(), "200");
    }
    let asked = kms.calls("Sign") - before;
    assert!((5..=6).contains(&asked), "one call for each token, not {asked}");

    for way in [Way::Closed, Way::Silent] {
        kms.set(way);
        let refused = edge::token(&kiosk).await;
        assert_eq!(refused.outcome(), "503 temporarily_unavailable", "{way:?}");
        assert!(refused.header("retry-after").is_some());
        let jwks = edge::get(&kiosk.jwks_uri).await;
        assert_eq!(jwks.status, 200);
        let reply = edge::token(&till).await;
        assert_eq!(reply.outcome(), "200", "an opened key needs no KMS");
        verify(&till, reply.access_token()).await;
        kms.set(Way::Open);
        wait::until("KMS is back, and so are tokens", Duration::from_secs(90), || async {
            let reply = edge::token(&kiosk).await;
            if reply.status == 200 { Ok(()) } else { Err(reply.outcome()) }
        })
        .await;
        verify(&kiosk, edge::token(&kiosk).await.access_token()).await;
    }
}

#[tokio::test]
async fn a_token_longer_than_kms_takes_is_signed_by_its_hash() {
    let kms = FakeKms::start("kms-digest", Player::Ministack).await;
    let arn = kms.key("ECC_NIST_P256", "SIGN_VERIFY").await;
    let spki = kms.ask("GetPublicKey", json!({"KeyId": arn})).await["PublicKey"].as_str().unwrap().to_owned();
    let public = host::public_from_spki(&base64ct::Base64::decode_vec(&spki).unwrap()).unwrap();
    let variables = [("AWS_ACCESS_KEY_ID", "test"), ("AWS_SECRET_ACCESS_KEY", "test")]
        .into_iter()
        .chain([("AWS_ENDPOINT_URL_KMS", kms.url.as_str())])
        .map(|(name, value)| (name.to_owned(), value.to_owned()));
    let edge = LoneEdge::start_with("kms-digest", variables.collect()).await;

    let mut pool = edge.pool(1);
    pool.document.jwks.keys = vec![Jwk::es256(public.clone())];
    pool.document.signing_key = Some(PoolSigningKey {
        kid: public.thumbprint(),
        alg: SigningAlg::ES256,
        private: PrivateHalf::Kms(arn.parse().unwrap()),
    });
    // Nothing is revoked here, so there are no lists to publish.
    pool.document.revocation_shards = 0;
    edge.publish(&KvKey::Pool(pool.id), &pool.document).await;
    for (name, length) in [("short", 10), ("long", 9_000)] {
        let client: ClientId = format!("client-{name}").parse().unwrap();
        let record = ClientDocument {
            status: ClientStatus::Enabled,
            secrets: vec![StoredSecret { sha256: SecretHash::of(b"secret"), expires_at: None }],
            scopes: "device".parse().unwrap(),
            subject: ClientSubject::Service,
            jwks: None,
            audience: vec!["a".repeat(length)],
            status_block: None,
        };
        edge.publish(&KvKey::Client(pool.id, client.clone()), &record).await;
        let url = format!("{}/oauth2/token", pool.document.issuer);
        let form = [
            ("grant_type", "client_credentials"),
            ("client_id", client.as_str()),
            ("client_secret", "secret"),
        ];
        let reply = edge::send(edge::http().post(url).form(&form)).await;
        let (input, signature) = reply.access_token().rsplit_once('.').unwrap();
        assert_eq!(input.len() > 4_096, name == "long");
        assert_eq!(host::verify(&public, input.as_bytes(), &edge::decode(signature)), Ok(true), "{name}");
    }
}
