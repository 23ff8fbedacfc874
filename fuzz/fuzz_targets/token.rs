//! A token to be revoked or looked into, and a status list: raw, or as header, claims and signature parted by NUL, which are
//! encoded here so that the fuzzer need not learn base64. Nobody has the key, so nothing may be accepted.

#![no_main]

use base64ct::{Base64UrlUnpadded, Encoding};
use keypost_shared::host::HostCrypto;
use keypost_shared::issued_token::UnverifiedToken;
use keypost_shared::jwk::{EcPublicJwk, Jwk, JwkSet};
use keypost_shared::status_list::{CompressedStatusList, StatusBits};
use libfuzzer_sys::fuzz_target;

/// The key of RFC 7517 appendix A.1: `kid` cn-I_WNMClehiVp51i_0VpOENW1upEerA8sEam5hn-s.
const KEY: &str = r#"{"kty":"EC","crv":"P-256","x":"MKBCTNIcKUSDii11ySs3526iDZ8AiTo7Tu6KPAqv7D4",
    "y":"4Etl6SRW2YiLUrN5vfvVHuhp7x8PxltmWWlbbM4IFyM"}"#;

fuzz_target!(|data: &[u8]| {
    let parts: Vec<&[u8]> = data.splitn(3, |byte| *byte == 0).collect();
    let text = match parts[..] {
        [header, claims, signature] => {
            let encode = Base64UrlUnpadded::encode_string;
            format!("{}.{}.{}", encode(header), encode(claims), encode(signature))
        }
        _ => String::from_utf8_lossy(data).into_owned(),
    };
    let key: EcPublicJwk = serde_json::from_str(KEY).expect("a key");
    let keys = JwkSet { keys: vec![Jwk::es256(key)] };
    if let Ok(token) = UnverifiedToken::parse(&text) {
        assert!(pollster::block_on(token.verify(&HostCrypto, &keys)).is_err(), "a signature that nobody made");
    }
    let list = CompressedStatusList { bits: 1, lst: Base64UrlUnpadded::encode_string(data) };
    if let Ok(bits) = StatusBits::decompress(&list) {
        assert_eq!(StatusBits::decompress(&bits.compress()), Ok(bits));
    }
});
