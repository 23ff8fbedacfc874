//! What must hold of every document: one byte, another key name, another signer, another family, and it does not count.

use pollster::block_on;
use rand_chacha::ChaCha20Rng;
use rand_core::SeedableRng;

use super::*;
use crate::host::{HostCrypto, PrivateKey};
use crate::id::PoolId;
use crate::jwe::{SealingKey, SplitJwe};

const NOW: UnixTime = UnixTime(1_700_000_000);

fn key(seed: u64) -> PrivateKey {
    PrivateKey::generate(&mut ChaCha20Rng::seed_from_u64(seed))
}

fn trust() -> TrustDocument {
    TrustDocument { publisher_keys: vec![key(1).public().clone()] }
}

fn stamp() -> Stamp {
    Stamp { version: 7, iat: NOW, next_update: Some(NOW + 60) }
}

fn verify<T: Document>(text: &str, signer: &PrivateKey, at: &KvKey) -> Result<Verified<T>, DocumentError> {
    block_on(async {
        let document = UnverifiedDocument::parse(text)?;
        let verifying_key = HostCrypto.import_public(signer.public()).await?;
        document.verify(&HostCrypto, &verifying_key).await?.read(at)
    })
}

#[test]
fn a_signed_document_is_read_back_with_its_stamp() {
    let text = key(9).sign_document(&KvKey::Trust, stamp(), &trust()).unwrap();
    let verified: Verified<TrustDocument> = verify(&text, &key(9), &KvKey::Trust).unwrap();
    assert_eq!(verified.stamp, stamp());
    assert_eq!(&verified.signed_by, key(9).kid());
    assert_eq!(verified.document, trust());
}

#[test]
fn a_document_changed_in_any_byte_does_not_verify() {
    let text = key(9).sign_document(&KvKey::Trust, stamp(), &trust()).unwrap();
    for position in 0..text.len() {
        let mut bytes = text.clone().into_bytes();
        bytes[position] = if bytes[position] == b'A' { b'B' } else { b'A' };
        let changed = String::from_utf8(bytes).unwrap();
        assert!(verify::<TrustDocument>(&changed, &key(9), &KvKey::Trust).is_err(), "position {position}");
    }
}

#[test]
fn a_document_counts_only_under_its_own_key() {
    let pool = KvKey::Pool(PoolId(uuid::Uuid::from_u128(1)));
    let text = key(9).sign_document(&KvKey::Trust, stamp(), &trust()).unwrap();
    let moved = verify::<TrustDocument>(&text, &key(9), &pool);
    assert!(matches!(moved, Err(DocumentError::WrongKey { found }) if found == "v1/trust"));
}

#[test]
fn a_document_counts_only_under_its_signer() {
    let text = key(9).sign_document(&KvKey::Trust, stamp(), &trust()).unwrap();
    let other = verify::<TrustDocument>(&text, &key(8), &KvKey::Trust);
    assert!(matches!(other, Err(DocumentError::BadSignature(_))));
}

#[test]
fn a_document_of_one_family_is_not_read_as_another() {
    let text = key(9).sign_document(&KvKey::Trust, stamp(), &trust()).unwrap();
    let other = verify::<ClientDocument>(&text, &key(9), &KvKey::Trust);
    assert!(matches!(other, Err(DocumentError::WrongType { .. })));
}

#[test]
fn a_family_that_expires_must_say_when() {
    let endless = Stamp { next_update: None, ..stamp() };
    let text = key(9).sign_document(&KvKey::Trust, endless, &trust()).unwrap();
    assert!(matches!(verify::<TrustDocument>(&text, &key(9), &KvKey::Trust), Err(DocumentError::Expiry)));
}

#[test]
fn a_family_that_does_not_expire_must_not_say_when() {
    let json = r#"{"status":"enabled","secrets":[],"scopes":[],"subject":"service"}"#;
    let client: ClientDocument = serde_json::from_str(json).unwrap();
    let at = KvKey::Client(PoolId(uuid::Uuid::from_u128(1)), "c".parse().unwrap());
    let ending = key(9).sign_document(&at, stamp(), &client).unwrap();
    assert!(matches!(verify::<ClientDocument>(&ending, &key(9), &at), Err(DocumentError::Expiry)));
    let endless = Stamp { next_update: None, ..stamp() };
    let endless = key(9).sign_document(&at, endless, &client).unwrap();
    assert!(verify::<ClientDocument>(&endless, &key(9), &at).is_ok());
}

#[test]
fn device_claims_keep_their_json_text() {
    let json = r#"{"status":"enabled","secrets":[],"scopes":["device"],"subject":{"device":{"device_id":"pos-1",
        "client_app_id":"client","metadata":{"n":1.50,"z":"\u0041"},"tags":{"country":"US"},"server_urls":[]}}}"#;
    let client: ClientDocument = serde_json::from_str(json).unwrap();
    let ClientSubject::Device(claims) = client.subject else { panic!("not a device") };
    assert!(client.jwks.is_none() && client.audience.is_empty(), "a document from before they were there");
    assert_eq!(claims.metadata.get(), r#"{"n":1.50,"z":"\u0041"}"#);
}

#[test]
fn a_sealed_key_opens_as_itself_and_only_with_its_sealing_key_and_header() {
    let [right, wrong] = ["A", "B"]
        .map(|letter| SealingKey::parse_list(&format!("{}A", letter.repeat(42))).unwrap().remove(0));
    let pool = PoolId(uuid::Uuid::from_u128(1));
    let sealed = key(3).seal(&right, pool).unwrap();
    assert_eq!(sealed, key(3).seal(&right, pool).unwrap(), "the same content, the same text");
    assert_ne!(sealed, key(3).seal(&right, PoolId(uuid::Uuid::from_u128(2))).unwrap());

    let jwe = SplitJwe::parse(&sealed).unwrap();
    assert_eq!((jwe.header.pool, &jwe.header.signing_kid), (pool, key(3).kid()));
    let opened = block_on(HostCrypto.open_signing_key(&right, &jwe)).unwrap();
    assert_eq!(opened.public(), key(3).public());
    assert_eq!(block_on(HostCrypto.open_signing_key(&wrong, &jwe)).err(), Some(CryptoError::DoesNotOpen));

    assert!(SplitJwe::parse(&sealed.replace("..", ".AA.")).is_err(), "dir has no encrypted key");

    let other_header = key(3).seal(&right, PoolId(uuid::Uuid::from_u128(2))).unwrap();
    let iv = |text: &str| SplitJwe::parse(text).unwrap().iv;
    assert_ne!(
        iv(&sealed),
        iv(&other_header),
        "GCM must never use a vector twice, not even for the same key"
    );
    assert_ne!(iv(&sealed), iv(&key(4).seal(&right, pool).unwrap()));
    let (header, _) = other_header.split_once('.').unwrap();
    let (_, rest) = sealed.split_once('.').unwrap();
    let swapped = format!("{header}.{rest}");
    let jwe = SplitJwe::parse(&swapped).unwrap();
    assert_eq!(block_on(HostCrypto.open_signing_key(&right, &jwe)).err(), Some(CryptoError::DoesNotOpen));
}

#[test]
fn a_pool_document_from_before_certificates_takes_those_of_registered_devices_and_has_no_root() {
    let json = r#"{"kind":"device","issuer":"https://edge.example/x","token_ttl":60,"longest_token_ttl":60,
        "claims_profile":"device","jwks":{"keys":[]}}"#;
    let pool: PoolDocument = serde_json::from_str(json).unwrap();
    assert_eq!(pool.provisioning.mode, crate::device_certificate::ProvisioningMode::Registered);
    assert!(
        pool.trust_anchors.is_empty() && pool.denied_certificates.is_empty() && !pool.bind_to_certificate
    );
}

#[test]
fn a_signing_key_has_one_private_half() {
    let kid = key(9).kid().as_str().to_owned();
    let read = |halves: &str| {
        serde_json::from_str::<PoolSigningKey>(&format!(r#"{{"kid":"{kid}","alg":"ES256"{halves}}}"#))
    };
    let sealed = read(r#","jwe":"a.b""#).unwrap();
    assert_eq!(sealed.private, PrivateHalf::Jwe("a.b".to_owned()));
    assert_eq!(
        serde_json::from_str::<PoolSigningKey>(&serde_json::to_string(&sealed).unwrap()).unwrap(),
        sealed
    );
    let arn = r#","kms":"arn:aws:kms:eu-central-1:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab""#;
    assert!(matches!(read(arn).unwrap().private, PrivateHalf::Kms(_)));
    assert!(read("").is_err());
    assert!(read(&format!(r#","jwe":"a.b"{arn}"#)).is_err());
}

#[test]
fn a_device_document_is_read_back() {
    let root = crate::certificate::Fingerprint::of(b"root");
    let json = format!(
        r#"{{"status":"enabled","clients":["a","b"],"pins":{{"organization":"05243","common_name":"pos-1","roots":["{root}"]}}}}"#
    );
    let device: DeviceDocument = serde_json::from_str(&json).unwrap();
    assert_eq!(serde_json::to_string(&device).unwrap(), json);
    let at = KvKey::Device(PoolId(uuid::Uuid::from_u128(1)), "pos-1".parse().unwrap());
    let text = key(9).sign_document(&at, Stamp { next_update: None, ..stamp() }, &device).unwrap();
    assert_eq!(verify::<DeviceDocument>(&text, &key(9), &at).unwrap().document, device);
}
