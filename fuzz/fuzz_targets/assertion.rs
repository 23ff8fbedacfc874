//! An assertion: raw, or as header, claims and signature parted by NUL, which are encoded here so that the fuzzer need not
//! learn base64. Whatever is accepted must be the one that was signed.

#![no_main]

use std::sync::LazyLock;

use base64ct::{Base64UrlUnpadded, Encoding};
use keypost_fuzz::{NOW, policy, pool_anchors};
use keypost_shared::assertion::UnverifiedAssertion;
use keypost_shared::certificate::{Rules, VerifySignature, decode_x5c};
use keypost_shared::device_certificate::{
    CertificateRules, Named, PoolAnchors, ProvisioningPolicy, Trace, admit, identify,
};
use keypost_shared::host::HostCrypto;
use keypost_shared::id::PoolId;
use libfuzzer_sys::fuzz_target;

static ANCHORS: LazyLock<PoolAnchors> = LazyLock::new(|| PoolAnchors::read(&pool_anchors()).0);
static POLICY: LazyLock<ProvisioningPolicy> = LazyLock::new(policy);

fuzz_target!(|data: &[u8]| {
    let parts: Vec<&[u8]> = data.splitn(3, |byte| *byte == 0).collect();
    let text = match parts[..] {
        [header, claims, signature] => {
            let encode = Base64UrlUnpadded::encode_string;
            format!("{}.{}.{}", encode(header), encode(claims), encode(signature))
        }
        _ => String::from_utf8_lossy(data).into_owned(),
    };
    pollster::block_on(check(&text));
});

async fn check(text: &str) {
    let assertion = match UnverifiedAssertion::parse(text) {
        Ok(assertion) => assertion,
        Err(problem) => return assert!(!problem.code().to_string().is_empty()),
    };
    let _ = assertion.claims.check(&["https://edge.example/pool"], NOW);
    let Some(x5c) = &assertion.header.x5c else { return };
    let Ok(ders) = decode_x5c(x5c, &Rules::for_device(NOW)) else { return };
    let rules = CertificateRules { anchors: &ANCHORS, policy: &POLICY, denied: &[] };
    let mut trace = Trace::kept();
    let outcome = identify(&HostCrypto, &ders, rules, NOW, &mut trace).await.expect("no platform to fail");
    let Ok(identity) = outcome else {
        return assert!(trace.into_steps().iter().any(|step| !step.holds), "every refusal is in the trace");
    };
    if let Some(named) = Named::read(&assertion.claims.sub, &identity.device_id) {
        let pool: PoolId = "00000000-0000-4000-8000-000000000000".parse().expect("a pool id");
        let _ = admit(pool, rules, &identity, None, &named, &mut trace);
    }
    let Ok(check) = assertion.signature_check(identity.key_kind, &identity.public_key) else { return };
    // The keys of the vectors were thrown away, so that nobody can have signed.
    assert!(!HostCrypto.verify_signature(&check).await.unwrap_or(false), "a signature that nobody made");
}
