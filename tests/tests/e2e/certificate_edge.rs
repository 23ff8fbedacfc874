//! Certificates in real workerd, by WebCrypto: chains and assertions that this machine's openssl makes.

use keypost_shared::certificate::CertificateDer;
use keypost_shared::device_certificate::{CertificateMatch, PoolTrustAnchor, ProvisioningMode};
use keypost_shared::edge_report::SignedReport;
use keypost_shared::host;
use keypost_shared::kv_key::EdgeKey;
use keypost_tests::edge::{self, Reply};
use keypost_tests::lone_edge::{LoneEdge, LonePool};
use keypost_tests::openssl::{Authority, Device, Kind};
use keypost_tests::stack;
use serde_json::{Value, json};

const GRANT: &str = "urn:ietf:params:oauth:grant-type:jwt-bearer";

/// Publishes a pool that takes in unknown devices of these roots.
async fn auto_pool(edge: &LoneEdge, number: u128, roots: &[&Authority]) -> LonePool {
    let mut pool = edge.pool(number);
    let anchor = |root: &&Authority| PoolTrustAnchor {
        certificate: CertificateDer::new(root.root_der()),
        replaces: None,
    };
    pool.document.trust_anchors = roots.iter().map(anchor).collect();
    pool.document.provisioning.mode = ProvisioningMode::Auto;
    pool.document.provisioning.matching = Some(CertificateMatch::Any);
    pool.document.bind_to_certificate = true;
    edge.publish_pool(&pool).await;
    pool
}

async fn grant(pool: &LonePool, assertion: &str) -> Reply {
    let url = format!("{}/oauth2/token", pool.document.issuer);
    edge::send(edge::http().post(url).form(&[("grant_type", GRANT), ("assertion", assertion)])).await
}

fn good(pool: &LonePool, device: &Device, alg: &str) -> String {
    device.assertion(alg, &pool.document.issuer, stack::unix_now())
}

fn code(reply: &Reply) -> &str {
    reply.body["error_description"].as_str().unwrap_or_else(|| panic!("{reply:?}"))
}

/// The claims of a token, once its signature has been checked.
fn claims(pool: &LonePool, reply: &Reply) -> Value {
    let token = reply.access_token();
    let (input, signature) = token.rsplit_once('.').unwrap();
    let decode = |text: &str| edge::decode(text);
    assert_eq!(host::verify(pool.signing.public(), input.as_bytes(), &decode(signature)), Ok(true));
    serde_json::from_slice(&decode(input.split_once('.').unwrap().1)).unwrap()
}

#[tokio::test]
async fn what_openssl_makes_gets_its_token_from_workerd() {
    let mut edge = LoneEdge::start("certificates").await;
    let authorities = [Kind::Rsa, Kind::P256, Kind::P384].map(Authority::new);
    let [rsa, p256, p384] = &authorities;
    let pool = auto_pool(&edge, 1, &[rsa, p256, p384]).await;
    for (authority, alg) in
        [(rsa, "RS256"), (rsa, "RS384"), (rsa, "RS512"), (rsa, "PS256"), (p256, "ES256"), (p384, "ES384")]
    {
        let device = authority.device("05243", &format!("pos-{alg}"));
        let assertion = good(&pool, &device, alg);
        let reply = grant(&pool, &assertion).await;
        assert_eq!(reply.outcome(), "200", "{alg}: {reply:?}");
        let claims = claims(&pool, &reply);
        assert_eq!(claims["sub"], device.name);
        assert!(claims["cnf"]["x5t#S256"].is_string(), "{claims}");
        let report = edge.device_report(&device.name).await;
        assert_eq!(report.x5c.into_iter().map(String::from).collect::<Vec<_>>(), device.x5c);

        assert_eq!(code(&grant(&pool, &assertion).await), "assertion_replayed", "{alg}");
        let (input, signature) = assertion.rsplit_once('.').unwrap();
        let mut wrong = edge::decode(signature);
        wrong[10] ^= 1;
        let forged = grant(&pool, &format!("{input}.{}", edge::encode(&wrong))).await;
        assert_eq!(code(&forged), "signature_invalid", "{alg}");
    }

    // What waits in KV is signed, and belongs to its key.
    let key = EdgeKey::Report(pool.id, "pos-RS256".parse().unwrap());
    let waiting = edge.kv.must_get(&key.to_string()).await;
    assert!(SignedReport::verify_kv(&waiting, &key, &edge.shared_secrets()).is_ok());

    // Another pool's root.
    let other = auto_pool(&edge, 2, &[p384]).await;
    let device = p256.device("05243", "stranger");
    assert_eq!(code(&grant(&other, &good(&other, &device, "ES256")).await), "chain_unknown_issuer");
    // A key that is not the certificate's, of a device of the same root.
    let [mut one, two] = ["one", "two"].map(|name| p256.device("05243", name));
    one.x5c.clone_from(&two.x5c);
    one.name.clone_from(&two.name);
    assert_eq!(code(&grant(&pool, &good(&pool, &one, "ES256")).await), "signature_invalid");
    // An algorithm of another kind of key, and none at all.
    let header = |alg: &str| json!({"alg": alg, "x5c": two.x5c});
    let now = stack::unix_now();
    let body = json!({"iss": "two", "sub": "two", "aud": pool.document.issuer, "exp": now + 60, "jti": "x"});
    let signed = two.sign(&header("ES256"), &body);
    let (_, rest) = signed.split_once('.').unwrap();
    for (alg, expected) in
        [("RS256", "alg_key_mismatch"), ("none", "alg_not_allowed"), ("HS256", "alg_not_allowed")]
    {
        let forged = format!("{}.{rest}", edge::encode(header(alg).to_string().as_bytes()));
        assert_eq!(code(&grant(&pool, &forged).await), expected);
    }
    // Long chains, loops, and megabytes.
    let long: Vec<&String> = two.x5c.iter().cycle().take(20).collect();
    let twice = vec![&two.x5c[0], &two.x5c[1], &two.x5c[1]];
    for (x5c, expected) in [(long, "chain_too_many_certificates"), (twice, "chain_certificate_repeated")] {
        let hostile = two.sign(&json!({"alg": "ES256", "x5c": x5c}), &body);
        assert_eq!(code(&grant(&pool, &hostile).await), expected);
    }
    assert_eq!(grant(&pool, &"A".repeat(1 << 20)).await.status, 413);

    // Another isolate of the same location.
    let used = good(&pool, &two, "ES256");
    assert_eq!(grant(&pool, &used).await.outcome(), "200");
    // The location's cache is written after the answer. Once the report of a later request is here, that is done.
    let later = p256.device("05243", "later");
    assert_eq!(grant(&pool, &good(&pool, &later, "ES256")).await.outcome(), "200");
    edge.device_report("later").await;
    edge.restart().await;
    assert_eq!(code(&grant(&pool, &used).await), "assertion_replayed");
    assert_eq!(grant(&pool, &good(&pool, &two, "ES256")).await.outcome(), "200");
}
