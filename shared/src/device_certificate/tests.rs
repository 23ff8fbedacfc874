//! The whole decision: from a chain to a client.

use pollster::block_on;

use super::*;
use crate::certificate::tests::builder::{self, Draft};
use crate::certificate::{CertificateDer, Fingerprint, oid};
use crate::document::{ClientStatus, ClientSubject, DeviceDocument};
use crate::host::HostCrypto;
use crate::id::{ClientId, DeviceId, PoolId};
use crate::time::UnixTime;

const NOW: UnixTime = UnixTime(1_800_000_000);
const POOL: PoolId = PoolId(uuid::Uuid::from_u128(7));

/// A pool's rules, and the chain of a device.
struct Case {
    roots: Vec<Draft>,
    replaces: Vec<Option<Fingerprint>>,
    intermediate: Draft,
    leaf: Draft,
    policy: ProvisioningPolicy,
    denied: Vec<DeniedCertificate>,
    record: Option<DeviceDocument>,
    named: Named,
}

fn subject(o: &str, cn: &str) -> Vec<u8> {
    builder::name(&[(oid::ORGANIZATION, builder::utf8(o)), (oid::COMMON_NAME, builder::utf8(cn))])
}

fn client(name: &str) -> ClientId {
    name.parse().unwrap()
}

impl Case {
    fn new() -> Self {
        let mut leaf = Draft::device("pos-1", "intermediate");
        leaf.subject = subject("05243", "pos-1");
        Self {
            roots: vec![Draft::ca("root", "root")],
            replaces: vec![None],
            intermediate: Draft::ca("intermediate", "root"),
            leaf,
            policy: ProvisioningPolicy::default(),
            denied: Vec::new(),
            record: Some(DeviceDocument {
                status: ClientStatus::Enabled,
                clients: vec![client("oldest"), client("other")],
                pins: None,
            }),
            named: Named::Device,
        }
    }

    fn auto() -> Self {
        let mut case = Self::new();
        case.policy.mode = ProvisioningMode::Auto;
        case.policy.matching = Some(CertificateMatch::Any);
        case.record = None;
        case
    }

    /// A second root with its own intermediate, for a device that has moved to it.
    fn moved_to_second_root(&mut self) {
        self.roots.push(Draft::ca("second", "second"));
        self.replaces.push(None);
        self.intermediate = Draft::ca("intermediate", "second");
    }

    fn fingerprint_of_root(&self, position: usize) -> Fingerprint {
        self.roots[position].anchor().fingerprint()
    }

    fn anchors(&self) -> PoolAnchors {
        let entries: Vec<PoolTrustAnchor> = (self.roots.iter().zip(&self.replaces))
            .map(|(root, replaces)| PoolTrustAnchor {
                certificate: CertificateDer::new(root.sign()),
                replaces: *replaces,
            })
            .collect();
        let (anchors, problems) = PoolAnchors::read(&entries);
        assert!(problems.is_empty());
        anchors
    }

    fn decide(&self) -> (Result<(DeviceIdentity, Admission), DeviceRefusal>, Vec<TraceStep>) {
        let anchors = self.anchors();
        let rules = CertificateRules { anchors: &anchors, policy: &self.policy, denied: &self.denied };
        let x5c = [self.leaf.sign(), self.intermediate.sign()];
        let mut trace = Trace::kept();
        let outcome = block_on(identify(&HostCrypto, &x5c, rules, NOW, &mut trace)).unwrap();
        let outcome = outcome.and_then(|identity| {
            let admission = admit(POOL, rules, &identity, self.record.as_ref(), &self.named, &mut trace)?;
            Ok((identity, admission))
        });
        (outcome, trace.into_steps())
    }

    /// The code of the refusal, which must be that of the last step and of no other.
    fn code(&self) -> String {
        let (outcome, steps) = self.decide();
        let code = outcome.unwrap_err().code().to_string();
        let (last, before) = steps.split_last().unwrap();
        assert_eq!((last.holds, last.code.as_deref()), (false, Some(code.as_str())), "{steps:?}");
        assert!(before.iter().all(|step| step.holds && step.code.is_none()), "{steps:?}");
        code
    }

    fn admission(&self) -> Admission {
        let (outcome, steps) = self.decide();
        assert!(steps.iter().all(|step| step.holds), "{steps:?}");
        outcome.unwrap().1
    }

    fn identity(&self) -> DeviceIdentity {
        self.decide().0.unwrap().0
    }

    fn pin(&mut self) {
        let pins = Some(CertificatePins::of(&self.identity()));
        if let Some(record) = &mut self.record {
            record.pins = pins;
        }
    }
}

#[test]
fn a_registered_device_is_its_oldest_app_unless_it_names_another() {
    let mut case = Case::new();
    let known = |name: &str, first_seen| Admission::Known { client_id: client(name), first_seen };
    assert_eq!(case.admission(), known("oldest", true));
    case.named = Named::Client(client("other"));
    assert_eq!(case.admission(), known("other", true));
    case.pin();
    assert_eq!(case.admission(), known("other", false));
    case.named = Named::Client(client("stranger"));
    assert_eq!(case.code(), "sub_mismatch");
}

#[test]
fn an_identity_is_what_the_certificate_says() {
    let identity = Case::new().identity();
    assert_eq!(identity.device_id.as_str(), "pos-1");
    assert_eq!(identity.organization.as_deref(), Some("05243"));
    assert_eq!(identity.common_name.as_deref(), Some("pos-1"));
    assert_eq!(identity.root, Case::new().fingerprint_of_root(0));
    assert!(identity.not_before < NOW && NOW < identity.not_after);
}

#[test]
fn mode_off_takes_no_certificate_at_all() {
    let mut case = Case::new();
    case.policy.mode = ProvisioningMode::Off;
    assert_eq!(case.code(), "certificates_off");
}

#[test]
fn a_chain_to_no_root_of_the_pool_gets_nothing() {
    let mut case = Case::auto();
    case.roots = vec![Draft::ca("another pool's", "another pool's")];
    assert_eq!(case.code(), "chain_unknown_issuer");
    case.roots = Vec::new();
    case.replaces = Vec::new();
    assert_eq!(case.code(), "chain_unknown_issuer");
}

#[test]
fn a_chain_that_is_not_valid_has_the_code_of_its_problem() {
    let mut case = Case::new();
    case.leaf.not_after = builder::utc("210101000000Z");
    assert_eq!(case.code(), "chain_expired");
    let mut case = Case::new();
    case.leaf.signer = builder::key("somebody");
    assert_eq!(case.code(), "chain_bad_signature");
}

#[test]
fn each_certificate_of_the_chain_can_be_denied_in_each_way() {
    let case = Case::new();
    let certificates = [case.leaf.sign(), case.intermediate.sign(), case.roots[0].sign()];
    let issuers = ["CN=intermediate", "CN=root", "CN=root"];
    let positions = [case.leaf.tbs(), case.intermediate.tbs(), case.roots[0].tbs()];
    for ((whole, issuer), tbs) in certificates.iter().zip(issuers).zip(positions) {
        for denied in [
            DeniedCertificate::Fingerprint(Fingerprint::of(whole)),
            DeniedCertificate::Fingerprint(Fingerprint::of(&tbs)),
            DeniedCertificate::IssuerAndSerial {
                issuer: issuer.parse().unwrap(),
                serial: "01".parse().unwrap(),
            },
        ] {
            let mut case = Case::new();
            case.denied = vec![DeniedCertificate::Fingerprint(Fingerprint::of(b"x")), denied.clone()];
            assert_eq!(case.code(), "certificate_denied", "{denied:?}");
        }
    }
    let mut case = Case::new();
    for (issuer, serial) in [("CN=intermediate", "02"), ("CN=root,O=x", "01"), ("CN=leaf", "01")] {
        let (issuer, serial) = (issuer.parse().unwrap(), serial.parse().unwrap());
        case.denied.push(DeniedCertificate::IssuerAndSerial { issuer, serial });
    }
    case.admission();
}

#[test]
fn a_denied_certificate_does_not_come_back_with_its_signature_written_anew() {
    let case = Case::new();
    let x5c = [case.leaf.sign(), case.intermediate.sign()];
    let twin = twin_of(&x5c[0]);
    assert_ne!(twin, x5c[0]);
    let anchors = case.anchors();
    for denied in [&x5c[0], &twin] {
        let denied = [DeniedCertificate::Fingerprint(Fingerprint::of(denied))];
        let rules = CertificateRules { anchors: &anchors, policy: &case.policy, denied: &denied };
        for leaf in [&x5c[0], &twin] {
            let chain = [leaf.clone(), x5c[1].clone()];
            let outcome =
                block_on(identify(&HostCrypto, &chain, rules, NOW, &mut Trace::discarded())).unwrap();
            assert_eq!(outcome.unwrap_err(), DeviceRefusal::Denied(0));
        }
    }
    let rules = CertificateRules { anchors: &anchors, policy: &case.policy, denied: &[] };
    let chain = [twin, x5c[1].clone()];
    let outcome = block_on(identify(&HostCrypto, &chain, rules, NOW, &mut Trace::discarded())).unwrap();
    assert!(outcome.is_ok(), "the twin is a valid certificate: that is why it matters");
}

/// The certificate with n - s in the place of s, by another library's arithmetic.
fn twin_of(der: &[u8]) -> Vec<u8> {
    use p256::ecdsa::Signature;
    let start = (0..der.len()).rev().find(|start| Signature::from_der(&der[*start..]).is_ok()).unwrap();
    let (r, s) = Signature::from_der(&der[start..]).unwrap().split_scalars();
    let twin = Signature::from_scalars(r, -s).unwrap().to_der();
    // Everything before the signature is SEQUENCE, TBSCertificate, AlgorithmIdentifier, and the BIT STRING's header.
    let inner = &der[4..start];
    let bits_header = inner.len() - 3;
    let bits = builder::bits(twin.as_bytes());
    builder::tlv(0x30, &[&inner[..bits_header], &bits].concat())
}

#[test]
fn a_key_that_may_not_sign_signs_no_assertion() {
    let mut case = Case::new();
    // keyEncipherment alone.
    case.leaf.set(&oid::KEY_USAGE, true, vec![0x03, 0x02, 0x05, 0x20]);
    assert_eq!(case.code(), "certificate_may_not_sign");
}

#[test]
fn a_subject_that_names_no_device_gets_nothing() {
    let code = |subject: Vec<u8>| {
        let mut case = Case::auto();
        case.leaf.subject = subject;
        case.code()
    };
    let cn = |text: &str| (oid::COMMON_NAME, builder::utf8(text));
    assert_eq!(code(builder::name(&[cn("a"), cn("b")])), "subject_ambiguous");
    assert_eq!(code(builder::name(&[cn("a\u{200b}")])), "subject_not_printable");
    assert_eq!(code(builder::name(&[(oid::ORGANIZATION, builder::utf8("o"))])), "device_id_missing");
    assert_eq!(code(builder::name(&[cn("pos 1")])), "device_id_malformed");
    assert_eq!(code(builder::name(&[cn("pos/1")])), "device_id_malformed");
}

#[test]
fn the_template_says_which_device_it_is() {
    let mut case = Case::auto();
    case.policy.device_id_template = "{o}-{cn}".parse().unwrap();
    assert_eq!(case.identity().device_id.as_str(), "05243-pos-1");
    let names = builder::sequence(&[&builder::tlv(0x82, b"pos-1.stores.example")]);
    case.leaf.set(&oid::SUBJECT_ALT_NAME, false, names);
    case.policy.device_id_template = "{san.dns}".parse().unwrap();
    assert_eq!(case.identity().device_id.as_str(), "pos-1.stores.example");
}

#[test]
fn an_unknown_device_comes_in_by_auto_alone() {
    let mut case = Case::auto();
    let device: DeviceId = "pos-1".parse().unwrap();
    let client_id = ClientId::of_device_app(POOL, &device, &"client".parse().unwrap());
    assert_eq!(case.admission(), Admission::New { client_id: client_id.clone() });
    case.named = Named::Client(client_id.clone());
    assert_eq!(case.admission(), Admission::New { client_id });
    case.named = Named::Client(client("another"));
    assert_eq!(case.code(), "sub_mismatch");
    case.named = Named::Device;
    case.policy.mode = ProvisioningMode::Registered;
    assert_eq!(case.code(), "device_unknown");
}

#[test]
fn an_unknown_device_must_match() {
    let mut case = Case::auto();
    case.policy.matching = Some(serde_json::from_str(r#"{"o": "05244"}"#).unwrap());
    assert_eq!(case.code(), "device_not_matched");
    case.policy.matching = Some(serde_json::from_str(r#"{"o": ["05243", "05244"]}"#).unwrap());
    case.admission();
    case.policy.matching = None;
    assert_eq!(case.code(), "device_not_matched", "nobody has said which may");
    case.record = Case::new().record;
    case.admission();
}

#[test]
fn a_disabled_device_stays_out_and_one_without_the_scope_gets_none() {
    for mut case in [Case::new(), Case { record: Case::new().record, ..Case::auto() }] {
        if let Some(record) = &mut case.record {
            record.clients.clear();
        }
        assert_eq!(case.code(), "no_device_scope");
        if let Some(record) = &mut case.record {
            record.status = ClientStatus::Disabled;
        }
        assert_eq!(case.code(), "device_disabled");
    }
    let mut case = Case::auto();
    case.policy.scopes = "telemetry".parse().unwrap();
    assert_eq!(case.code(), "no_device_scope", "nobody is let in who could not come back");
}

#[test]
fn the_same_name_under_another_organization_or_root_is_another_device() {
    let mut case = Case::new();
    case.pin();
    case.admission();
    case.leaf.subject = subject("05244", "pos-1");
    assert_eq!(case.code(), "subject_mismatch");
    case.leaf.subject = builder::common_name("pos-1");
    assert_eq!(case.code(), "subject_mismatch");

    let mut case = Case::new();
    case.pin();
    case.moved_to_second_root();
    assert_eq!(case.code(), "subject_mismatch");

    let mut case = Case::new();
    case.policy.device_id_template = "{o}".parse().unwrap();
    case.pin();
    case.leaf.subject = subject("05243", "pos-2");
    assert_eq!(case.code(), "subject_mismatch", "another CN, where the id comes from the O");
}

#[test]
fn roots_can_be_rolled_over_without_locking_anybody_out() {
    let mut case = Case::new();
    case.pin();
    case.moved_to_second_root();
    case.replaces[1] = Some(case.fingerprint_of_root(0));
    case.admission();
    // A third one, which replaces the second.
    case.roots.push(Draft::ca("third", "third"));
    case.replaces.push(Some(case.fingerprint_of_root(1)));
    case.intermediate = Draft::ca("intermediate", "third");
    case.admission();
    // In a circle.
    case.replaces[1] = Some(case.fingerprint_of_root(2));
    assert_eq!(case.code(), "subject_mismatch");

    let mut case = Case::new();
    case.pin();
    case.moved_to_second_root();
    case.roots.remove(0);
    case.replaces.remove(0);
    case.admission();

    let mut case = Case::new();
    case.pin();
    let mut renewed = Draft::ca("root", "root");
    renewed.serial = builder::tlv(0x02, &[9]);
    case.roots.insert(0, renewed);
    case.replaces.push(None);
    assert_ne!(case.fingerprint_of_root(0), case.fingerprint_of_root(1));
    case.admission();
}

#[test]
fn a_new_device_is_made_of_its_certificate_and_its_environment() {
    let mut case = Case::auto();
    case.policy.tags.insert("business_unit_id".to_owned(), "{o}".parse().unwrap());
    case.policy.tags.insert("state".to_owned(), "{st}".parse().unwrap());
    let tags =
        [("business_unit_id", "*"), ("state", "*")].map(|(name, value)| (name.to_owned(), value.to_owned()));
    let defaults = DeviceDefaults {
        tags: tags.into(),
        primary_server_url: Some("https://a.example".to_owned()),
        server_urls: vec!["https://a.example".to_owned()],
    };
    let made = new_client(&case.policy, &defaults, &case.identity()).unwrap();
    assert_eq!((made.status, made.scopes.to_string().as_str()), (ClientStatus::Enabled, "device"));
    assert!(made.secrets.is_empty() && made.jwks.is_none());
    let ClientSubject::Device(claims) = made.subject else { panic!("not a device") };
    assert_eq!(claims.device_id.as_str(), "pos-1");
    assert_eq!(claims.client_app_id.as_str(), "client");
    assert_eq!(claims.metadata.get(), "{}");
    assert_eq!(claims.tags.get(), r#"{"business_unit_id":"05243","state":"*"}"#);
    assert_eq!(claims.primary_server_url, defaults.primary_server_url);
    assert_eq!(claims.server_urls, defaults.server_urls);
}

#[test]
fn an_assertion_names_the_device_or_a_client() {
    let device: DeviceId = "pos-1".parse().unwrap();
    assert_eq!(Named::read("pos-1", &device), Some(Named::Device));
    assert_eq!(Named::read("pos-2", &device), Some(Named::Client(client("pos-2"))));
    assert_eq!(Named::read("pos.2", &device), None);
    assert_eq!(Named::read("", &device), None);
}

#[test]
fn an_explanation_is_the_decision_and_its_steps() {
    use base64ct::{Base64, Base64UrlUnpadded, Encoding};
    use p256::ecdsa::signature::Signer;

    let case = Case::new();
    let anchors = case.anchors();
    let rules = CertificateRules { anchors: &anchors, policy: &case.policy, denied: &case.denied };
    let x5c = [case.leaf.sign(), case.intermediate.sign()].map(|der| Base64::encode_string(&der));
    let ask = |question: Question<'_>| {
        let record = async |device: &DeviceId| {
            assert_eq!(device.as_str(), "pos-1");
            Ok::<_, crate::crypto::CryptoError>(case.record.clone())
        };
        block_on(explain(&HostCrypto, POOL, rules, question, NOW, record)).unwrap()
    };
    let rules_of =
        |explanation: &Explanation| explanation.steps.iter().map(|step| step.rule).collect::<Vec<_>>();

    let explained = ask(Question::Chain(&x5c));
    assert_eq!(explained.outcome, Ok(case.admission()));
    assert_eq!(explained.steps, case.decide().1, "the same steps as one by one");
    let explained = ask(Question::Chain(&x5c[..1]));
    assert_eq!(explained.outcome.unwrap_err().code().to_string(), "chain_unknown_issuer");
    assert!(explained.identity.is_none());

    let signed = |iss: &str, sub: &str, key: &str| {
        let header = serde_json::json!({"alg": "ES256", "x5c": x5c}).to_string();
        let claims =
            serde_json::json!({"iss": iss, "sub": sub, "aud": "https://e/p", "exp": NOW.0 + 60, "jti": "1"});
        let part = |text: &str| Base64UrlUnpadded::encode_string(text.as_bytes());
        let input = format!("{}.{}", part(&header), part(&claims.to_string()));
        let signature: p256::ecdsa::Signature = builder::key(key).sign(input.as_bytes());
        format!("{input}.{}", Base64UrlUnpadded::encode_string(&signature.to_bytes()))
    };
    let assertion = |name: &str, key: &str| signed(name, name, key);
    let explained = ask(Question::Assertion { text: &assertion("pos-1", "pos-1"), issuer: "https://e/p" });
    assert_eq!(explained.outcome, Ok(case.admission()));
    assert_eq!(rules_of(&explained).first(), Some(&"claims"));
    for (text, issuer, expected) in [
        (assertion("pos-1", "another"), "https://e/p", "signature_invalid"),
        (assertion("pos 2", "pos-1"), "https://e/p", "iss_mismatch"),
        (assertion("pos-2", "pos-1"), "https://e/p", "sub_mismatch"),
        (signed("pos-2", "pos-1", "pos-1"), "https://e/p", "iss_mismatch"),
        (assertion("pos-1", "pos-1"), "https://e/q", "aud_mismatch"),
        ("rubbish".to_owned(), "https://e/p", "assertion_malformed"),
    ] {
        let explained = ask(Question::Assertion { text: &text, issuer });
        let code = explained.outcome.unwrap_err().code().to_string();
        assert_eq!(code, expected);
        assert_eq!(explained.steps.last().unwrap().code, Some(code), "the refusal is the last step");
    }
}
