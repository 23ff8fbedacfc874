//! Certificates one after the other, as `x5c` has them, with the roots of the vectors. Whatever is accepted must be a
//! certificate of the vectors, to the byte of what is signed.

#![no_main]

use std::sync::LazyLock;

use keypost_fuzz::{NOW, anchors, devices, elements};
use keypost_shared::certificate::{Rules, TrustAnchor, validate};
use keypost_shared::host::HostCrypto;
use libfuzzer_sys::fuzz_target;

static ANCHORS: LazyLock<Vec<TrustAnchor>> = LazyLock::new(anchors);
static DEVICES: LazyLock<Vec<Vec<u8>>> = LazyLock::new(devices);

fuzz_target!(|data: &[u8]| {
    let chain = elements(data);
    let rules = Rules::for_device(NOW);
    let decision =
        pollster::block_on(validate(&HostCrypto, &chain, &ANCHORS, &rules)).expect("no platform to fail");
    match decision.verdict {
        Ok(valid) => {
            let tbs = valid.leaf().tbs();
            let genuine = DEVICES.iter().any(|device| device.windows(tbs.len()).any(|window| window == tbs));
            assert!(genuine, "a certificate that nobody signed");
        }
        Err(refusal) => assert!(!refusal.code().is_empty() && !refusal.to_string().is_empty()),
    }
    // A stranger's certificate as a root must not break anything either.
    for der in chain {
        if let Ok(anchor) = TrustAnchor::from_der(der) {
            let _ = anchor.certificate().map(|certificate| certificate.subject().to_string());
        }
    }
});
