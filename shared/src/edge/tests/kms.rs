//! Pools whose keys sign in AWS KMS.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;

use base64ct::{Base64, Encoding};
use p256::ecdsa::signature::hazmat::PrehashSigner;
use p256::ecdsa::{Signature, SigningKey};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::world::*;
use crate::document::*;
use crate::edge::*;
use crate::host;
use crate::id::Kid;
use crate::jws::UnverifiedJws;
use crate::kms::{Credentials, KmsKeyArn};

const ARN: &str = "arn:aws:kms:eu-central-1:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab";

/// KMS with one key, which is [`key`]`(3)` unless said otherwise.
#[derive(Default)]
pub(super) struct FakeKms {
    /// What it answers next instead of signing.
    pub(super) faults: RefCell<VecDeque<Result<Posted, PostError>>>,
    /// The seed of another key.
    pub(super) seed: Cell<Option<u64>>,
    pub(super) asked: RefCell<Vec<Asked>>,
}

/// What it was asked: URL, headers, body.
type Asked = (String, Vec<(&'static str, String)>, Value);

impl FakeKms {
    pub(super) fn post(&self, post: Post<'_>) -> Result<Posted, PostError> {
        let body: Value = serde_json::from_str(post.body).unwrap();
        self.asked.borrow_mut().push((post.url.to_owned(), post.headers.to_vec(), body.clone()));
        if let Some(fault) = self.faults.borrow_mut().pop_front() {
            return fault;
        }
        let message = Base64::decode_vec(body["Message"].as_str().unwrap()).unwrap();
        let digest: [u8; 32] = match body["MessageType"].as_str().unwrap() {
            "RAW" if message.len() <= 4_096 => Sha256::digest(&message).into(),
            "DIGEST" => message.try_into().unwrap(),
            _ => return refusal(400, "ValidationException"),
        };
        let key = SigningKey::from_slice(&*key(self.seed.get().unwrap_or(3)).to_bytes()).unwrap();
        let signature: Signature = key.sign_prehash(&digest).unwrap();
        let signature = Base64::encode_string(signature.to_der().as_bytes());
        let answer =
            json!({"KeyId": body["KeyId"], "Signature": signature, "SigningAlgorithm": "ECDSA_SHA_256"});
        Ok(Posted { status: 200, body: serde_json::to_vec(&answer).unwrap() })
    }

    fn calls(&self) -> usize {
        self.asked.borrow().len()
    }

    fn fail(&self, faults: impl IntoIterator<Item = Result<Posted, PostError>>) {
        self.faults.borrow_mut().extend(faults);
    }
}

fn refusal(status: u16, name: &str) -> Result<Posted, PostError> {
    Ok(Posted { status, body: json!({"__type": name, "message": "no"}).to_string().into_bytes() })
}

fn with_credentials(world: &World) -> EdgeConfig {
    let credentials = Credentials::new("AKIDEXAMPLE", "hunter2", Some("session")).unwrap();
    EdgeConfig { kms: Some(KmsAccess { credentials, endpoint: None }), ..config(&world.root, 0) }
}

fn kms_document(world: &World) -> PoolDocument {
    let mut document = world.pool_document();
    document.signing_key.as_mut().unwrap().private = PrivateHalf::Kms(ARN.parse().unwrap());
    document
}

/// A pool in mode `kms_sign`, and an isolate that may ask KMS.
fn kms_world() -> World {
    let mut world = World::new();
    world.edge = Edge::new(with_credentials(&world));
    world.put_pool(&kms_document(&world), WINDOW);
    world
}

fn assert_issued(world: &World, response: &Response) {
    assert_eq!(outcome(response), "200");
    let body = json(response);
    let jws = UnverifiedJws::<Value>::parse(body["access_token"].as_str().unwrap()).unwrap();
    assert_eq!(jws.header["kid"], world.signing.kid().as_str());
    assert_eq!(host::verify(world.signing.public(), jws.signing_input(), jws.signature()), Ok(true));
}

#[test]
fn a_token_is_signed_by_kms_with_one_call() {
    let world = kms_world();
    assert_issued(&world, &world.token());
    let asked = world.platform.kms.asked.borrow();
    let [(url, headers, body)] = asked.as_slice() else { panic!("{} calls", asked.len()) };
    assert_eq!(url, "https://kms.eu-central-1.amazonaws.com/");
    assert_eq!(body["KeyId"], ARN);
    assert_eq!(body["MessageType"], "RAW");
    let header = |name: &str| &headers.iter().find(|(own, _)| *own == name).unwrap().1;
    assert_eq!(header("x-amz-target"), "TrentService.Sign");
    assert_eq!(header("x-amz-security-token"), "session");
    assert_eq!(header("x-amz-date"), "20231114T221320Z");
    let scope = "AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20231114/eu-central-1/kms/aws4_request, SignedHeaders=\
                 content-type;host;x-amz-date;x-amz-security-token;x-amz-target, Signature=";
    assert!(header("authorization").starts_with(scope), "{}", header("authorization"));
}

#[test]
fn a_token_too_long_for_kms_is_signed_by_its_hash() {
    let world = kms_world();
    let mut client = world.client_document();
    if let ClientSubject::Device(device) = &mut client.subject {
        let text = json!({"note": "n".repeat(5_000)}).to_string();
        device.metadata = serde_json::value::RawValue::from_string(text).unwrap();
    }
    world.put_client(&client);
    assert_issued(&world, &world.token());
    assert_eq!(world.platform.kms.asked.borrow()[0].2["MessageType"], "DIGEST");
}

#[test]
fn who_gets_no_token_costs_no_call() {
    let world = kms_world();
    assert_eq!(outcome(&world.token_with("wrong")), "401 invalid_client");
    assert_eq!(outcome(&world.post("grant_type=client_credentials")), "401 invalid_client");
    let jwks = world.get_path(&format!("/{}/.well-known/jwks.json", world.pool));
    assert_eq!(jwks.status, 200);
    assert_eq!(world.platform.kms.calls(), 0);
}

#[test]
fn kms_is_asked_once_more_where_that_may_help() {
    let broken = [
        refusal(400, "ThrottlingException"),
        refusal(500, "KMSInternalException"),
        Err(PostError::TimedOut),
        Err(PostError::Unreachable("reset".into())),
    ];
    for fault in broken {
        let world = kms_world();
        world.platform.kms.fail([fault.clone()]);
        assert_issued(&world, &world.token());
        assert_eq!(world.platform.kms.calls(), 2, "{fault:?}");

        world.platform.kms.fail([fault.clone(), fault.clone()]);
        let refused = world.token();
        assert_eq!(outcome(&refused), "503 temporarily_unavailable");
        assert!(header(&refused, "retry-after").is_some());
        assert_eq!(world.platform.kms.calls(), 4, "{fault:?}");
        assert!(world.logged("signing_failed"));
        // KMS is back, and so are tokens.
        assert_issued(&world, &world.token());
    }
}

#[test]
fn kms_is_not_asked_again_where_it_has_said_no() {
    for name in
        ["AccessDeniedException", "DisabledException", "KMSInvalidStateException", "NotFoundException"]
    {
        let world = kms_world();
        world.platform.kms.fail([refusal(400, name)]);
        assert_eq!(outcome(&world.token()), "503 temporarily_unavailable");
        assert_eq!(world.platform.kms.calls(), 1, "{name}");
        let log = world.platform.log.borrow().join("\n");
        assert!(log.contains(name), "{log}");
        assert!(!log.contains("hunter2") && !log.contains("session"), "{log}");
    }
}

#[test]
fn a_signature_of_another_key_is_handed_to_nobody() {
    let world = kms_world();
    world.platform.kms.seed.set(Some(4));
    assert_eq!(outcome(&world.token()), "503 temporarily_unavailable");
    assert_eq!(world.platform.kms.calls(), 1);
}

#[test]
fn without_credentials_for_kms_there_are_no_tokens_and_the_key_set_is_served() {
    let mut world = kms_world();
    world.restart();
    assert_eq!(outcome(&world.token()), "503 temporarily_unavailable");
    assert!(world.logged("signing_key_refused"));
    assert_eq!(world.get_path(&format!("/{}/.well-known/jwks.json", world.pool)).status, 200);
    assert_eq!(world.platform.kms.calls(), 0);
}

#[test]
fn a_pool_changes_between_a_sealed_key_and_one_in_kms() {
    let world = kms_world();
    assert_issued(&world, &world.token());
    for (document, calls) in [(world.pool_document(), 1), (kms_document(&world), 2)] {
        world.put_pool(&document, WINDOW);
        world.advance(31);
        assert_issued(&world, &world.token());
        assert_eq!(world.platform.kms.calls(), calls);
    }
}

#[test]
fn pool_documents_name_a_key_in_one_of_two_forms() {
    let sealed: PoolSigningKey =
        serde_json::from_value(json!({"kid": "k", "alg": "ES256", "jwe": "a..b.c.d"})).unwrap();
    assert_eq!(sealed.private, PrivateHalf::Jwe("a..b.c.d".into()));
    let kms: PoolSigningKey =
        serde_json::from_value(json!({"kid": "k", "alg": "ES256", "kms": ARN})).unwrap();
    assert_eq!(kms.private, PrivateHalf::Kms(ARN.parse::<KmsKeyArn>().unwrap()));
    assert_eq!(kms.kid, "k".parse::<Kid>().unwrap());
    assert_eq!(serde_json::to_value(&kms).unwrap(), json!({"kid": "k", "alg": "ES256", "kms": ARN}));
    for bad in [json!({"kid": "k", "alg": "ES256"}), json!({"kid": "k", "alg": "ES256", "kms": "alias/a"})] {
        assert!(serde_json::from_value::<PoolSigningKey>(bad).is_err());
    }
}
