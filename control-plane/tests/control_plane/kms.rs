//! The calls to AWS KMS, over the wire to servers that play it, and what becomes of each way to fail.

use aws_sdk_kms::types::{KeySpec, KeyUsageType};
use keypost::kms::{EncryptionContext, KeyKind, KmsError};
use keypost::metrics::{Metrics, Readings};
use keypost_shared::host;
use keypost_shared::id::PoolId;
use uuid::Uuid;

use crate::support::{
    Emulator, KmsFault, KmsProxy, encrypting_key, key_administrator, kms_at, new_key, no_kms, signing_key,
};

const POOL: PoolId = PoolId(Uuid::from_u128(1));

fn code<T>(outcome: Result<T, KmsError>) -> &'static str {
    outcome.map_or_else(|error| error.problem.code(), |_| "ok")
}

fn kid(letter: &str) -> keypost_shared::id::Kid {
    letter.repeat(43).parse().unwrap()
}

#[tokio::test]
async fn a_key_in_kms_is_described_and_signs() {
    for emulator in [Emulator::Moto, Emulator::Ministack] {
        let url = emulator.url().await;
        let arn = signing_key(&key_administrator(url)).await;
        let kms = kms_at(url, &Metrics::new());
        let id = arn.as_str().rsplit('/').next().unwrap();
        for name in [arn.as_str(), id] {
            let described = kms.describe(name).await.unwrap();
            assert_eq!((described.arn, described.kind), (arn.clone(), KeyKind::Signing), "{emulator:?}");
        }
        let public = kms.public_key(&arn).await.unwrap();
        let signature = kms.sign(&arn, b"message").await.unwrap();
        assert_eq!(host::verify(&public, b"message", &signature), Ok(true), "{emulator:?}");
        assert_eq!(host::verify(&public, b"massage", &signature), Ok(false), "{emulator:?}");
    }
}

#[tokio::test]
async fn a_message_longer_than_kms_takes_is_signed_by_its_hash() {
    // moto hashes a digest again.
    let url = Emulator::Ministack.url().await;
    let arn = signing_key(&key_administrator(url)).await;
    let kms = kms_at(url, &Metrics::new());
    let public = kms.public_key(&arn).await.unwrap();
    for length in [4_096, 4_097, 20_000] {
        let message = vec![b'm'; length];
        let signature = kms.sign(&arn, &message).await.unwrap();
        assert_eq!(host::verify(&public, &message, &signature), Ok(true), "{length}");
    }
}

#[tokio::test]
async fn a_data_key_opens_under_its_key_and_in_its_context_alone() {
    // ministack does not authenticate ciphertexts.
    let url = Emulator::Moto.url().await;
    let client = key_administrator(url);
    let (arn, other) = (encrypting_key(&client).await, encrypting_key(&client).await);
    let kms = kms_at(url, &Metrics::new());
    let context = EncryptionContext::of_signing_key(POOL, &kid("a"));
    let made = kms.generate_data_key(&arn, &context).await.unwrap();
    let opened = kms.decrypt(&arn, &made.encrypted, &context).await.unwrap();
    assert_eq!(*opened, *made.plaintext);
    assert_ne!(*opened, [0; 32]);

    let stranger = EncryptionContext::of_signing_key(POOL, &kid("b"));
    assert_eq!(code(kms.decrypt(&arn, &made.encrypted, &stranger).await), "does_not_open");
    assert_ne!(code(kms.decrypt(&other, &made.encrypted, &context).await), "ok");
    let mut changed = made.encrypted.clone();
    *changed.last_mut().unwrap() ^= 1;
    assert_ne!(code(kms.decrypt(&arn, &changed, &context).await), "ok");
}

#[tokio::test]
async fn a_key_is_made_that_says_what_it_is_for() {
    let url = Emulator::Moto.url().await;
    let client = key_administrator(url);
    let before = signing_key(&client).await;
    let made = kms_at(url, &Metrics::new()).create_signing_key(POOL, &before).await.unwrap();
    let key = client.describe_key().key_id(made.as_str()).send().await.unwrap().key_metadata.unwrap();
    assert_eq!(key.description.unwrap(), format!("Keypost: signs the tokens of client pool {POOL}"));
    let tags = client.list_resource_tags().key_id(made.as_str()).send().await.unwrap();
    let tags: Vec<_> = tags.tags().iter().map(|tag| (tag.tag_key(), tag.tag_value().to_owned())).collect();
    assert!(tags.contains(&("keypost:pool", POOL.to_string())), "{tags:?}");
}

#[tokio::test]
async fn each_failure_has_its_name() {
    let proxy = KmsProxy::before(Emulator::Ministack).await;
    let client = key_administrator(Emulator::Ministack.url().await);
    let metrics = Metrics::new();
    let kms = kms_at(&proxy.url, &metrics);
    let arn = signing_key(&client).await;
    assert_eq!(kms.failing(), 0);
    assert_eq!(code(kms.sign(&arn, b"m").await), "ok");
    assert_eq!(proxy.calls("Sign"), 1);

    for (name, wanted, tries) in [
        ("ThrottlingException", "throttled", 3),
        ("AccessDeniedException", "access_denied", 1),
        ("ExpiredTokenException", "access_denied", 1),
        ("KMSInvalidStateException", "invalid_state", 1),
        ("InvalidKeyUsageException", "wrong_key", 1),
        ("SomethingNewException", "refused", 1),
    ] {
        let before = proxy.calls("Sign");
        proxy.set(Some(KmsFault::Refuse(name, vec![])));
        assert_eq!(code(kms.sign(&arn, b"m").await), wanted, "{name}");
        assert_eq!(proxy.calls("Sign") - before, tries, "{name}");
        assert_eq!(kms.failing(), 1, "{name}");
    }
    proxy.set(Some(KmsFault::Hang));
    assert_eq!(code(kms.sign(&arn, b"m").await), "timeout");
    proxy.set(None);
    assert_eq!(code(kms.sign(&arn, b"m").await), "ok");
    assert_eq!(kms.failing(), 0);

    client.disable_key().key_id(arn.as_str()).send().await.unwrap();
    assert_eq!(code(kms.sign(&arn, b"m").await), "disabled");
    assert_eq!(code(kms.describe(arn.as_str()).await), "disabled");
    assert_eq!(kms.failing(), 1);
    client.schedule_key_deletion().key_id(arn.as_str()).pending_window_in_days(7).send().await.unwrap();
    assert_eq!(code(kms.sign(&arn, b"m").await), "invalid_state");
    assert_eq!(code(kms.describe(arn.as_str()).await), "invalid_state");
    assert_eq!(code(kms.describe("1234abcd-12ab-34cd-56ef-1234567890ab").await), "not_found");

    let rsa = new_key(&client, KeySpec::Rsa2048, KeyUsageType::SignVerify).await;
    let p384 = new_key(&client, KeySpec::EccNistP384, KeyUsageType::SignVerify).await;
    assert_eq!(code(kms.describe(rsa.as_str()).await), "wrong_key");
    assert_eq!(code(kms.describe(p384.as_str()).await), "wrong_key");

    assert_eq!(code(no_kms(&metrics).sign(&arn, b"m").await), "unreachable");
    let text = metrics.render(Readings { kms_failing: kms.failing(), ..Readings::default() }).unwrap();
    for line in [
        "keypost_kms_calls_total{operation=\"Sign\",outcome=\"ok\"} 2",
        "keypost_kms_calls_total{operation=\"Sign\",outcome=\"throttled\"} 1",
        "keypost_kms_calls_total{operation=\"Sign\",outcome=\"timeout\"} 1",
        "keypost_kms_failing 1",
    ] {
        assert!(text.contains(line), "{line}\n{text}");
    }
}

#[tokio::test]
async fn an_error_says_what_happened_with_which_key() {
    let proxy = KmsProxy::before(Emulator::Moto).await;
    let arn = signing_key(&key_administrator(Emulator::Moto.url().await)).await;
    proxy.set(Some(KmsFault::Refuse("AccessDeniedException", vec![])));
    let error = kms_at(&proxy.url, &Metrics::new()).sign(&arn, b"m").await.unwrap_err().to_string();
    let wanted =
        format!("KMS Sign with {arn}: the AWS credentials do not allow it: AccessDeniedException: simulated");
    assert_eq!(error, wanted);
}
