//! Secrets that Keypost makes: random, shown once, stored as hashes (design §2, promise 7).
//!
//! None of these types can be printed, and what they are compared by is compared in constant time.

use std::fmt;

use base64ct::{Base64UrlUnpadded, Encoding};
use rand_core::CryptoRngCore;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

/// The SHA-256 of a secret of at least 256 random bits: enough, because there is nothing to guess (design §6).
/// As text it is base64url.
#[derive(Clone, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct SecretHash([u8; 32]);

impl SecretHash {
    /// The hash of a secret's bytes.
    pub fn of(secret: &[u8]) -> Self {
        Self(Sha256::digest(secret).into())
    }

    /// A hash that was stored.
    pub fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The hash to store.
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// Whether both are the same, in constant time.
    pub fn matches(&self, other: &SecretHash) -> bool {
        self.0.ct_eq(&other.0).into()
    }
}

impl fmt::Debug for SecretHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SecretHash(..)")
    }
}

impl TryFrom<String> for SecretHash {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        let mut bytes = [0; 32];
        match Base64UrlUnpadded::decode(&text, &mut bytes) {
            Ok(decoded) if decoded.len() == 32 => Ok(Self(bytes)),
            _ => Err("a secret hash is the base64url of 32 bytes"),
        }
    }
}

impl From<SecretHash> for String {
    fn from(hash: SecretHash) -> String {
        Base64UrlUnpadded::encode_string(&hash.0)
    }
}

/// A secret text to hand out once. It has no `Display`, its `Debug` shows nothing, and only [`expose`](Self::expose)
/// gives it away.
#[derive(Clone)]
pub struct SecretText(String);

impl SecretText {
    /// Takes a text that must not be printed.
    pub fn new(text: String) -> Self {
        Self(text)
    }

    /// The text itself: for the one answer that shows it, and for hashing.
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// The hash to store and to compare by.
    pub fn hash(&self) -> SecretHash {
        SecretHash::of(self.0.as_bytes())
    }
}

impl fmt::Debug for SecretText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SecretText(..)")
    }
}

/// Makes a secret without a form of its own, such as an OAuth client secret or a refresh token: 256 random bits in
/// base64url, so `[A-Za-z0-9_-]{43}`.
pub fn generate_secret(rng: &mut impl CryptoRngCore) -> SecretText {
    SecretText(random_base64url(rng))
}

/// The kinds of key that carry a prefix and a checksum, so that a leaked one can be recognised and a mistyped one is
/// refused without a look at the database.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyKind {
    /// `kp_admin_…`: management, every organization.
    Admin,
    /// `kp_org_…`: management, one organization.
    Organization,
    /// `org_…`: single sign-on, the rights of an organization's owner.
    SsoOrganization,
    /// `app_…`: single sign-on, the users of one client app.
    SsoApp,
}

impl KeyKind {
    const ALL: [KeyKind; 4] =
        [KeyKind::Admin, KeyKind::Organization, KeyKind::SsoOrganization, KeyKind::SsoApp];

    /// What every key of the kind begins with.
    pub fn prefix(self) -> &'static str {
        match self {
            KeyKind::Admin => "kp_admin_",
            KeyKind::Organization => "kp_org_",
            KeyKind::SsoOrganization => "org_",
            KeyKind::SsoApp => "app_",
        }
    }
}

const RANDOM_LENGTH: usize = 43;
const CHECKSUM_LENGTH: usize = 6;

/// An API key in clear: its kind's prefix, 256 random bits in base64url (43 characters), and a checksum over both (6).
#[derive(Clone)]
pub struct ApiKey {
    kind: KeyKind,
    text: String,
}

impl ApiKey {
    /// Makes a new key.
    pub fn generate(kind: KeyKind, rng: &mut impl CryptoRngCore) -> Self {
        let mut text = format!("{}{}", kind.prefix(), random_base64url(rng));
        let checksum = checksum(&text);
        text.push_str(&checksum);
        Self { kind, text }
    }

    /// Reads a key. `None` where the prefix, the length, the alphabet or the checksum is wrong.
    pub fn parse(text: &str) -> Option<Self> {
        let kind = KeyKind::ALL.into_iter().find(|kind| text.starts_with(kind.prefix()))?;
        let body_length = kind.prefix().len() + RANDOM_LENGTH;
        let well_formed = text.len() == body_length + CHECKSUM_LENGTH
            && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-'));
        let (body, sum) = text.split_at_checked(body_length)?;
        (well_formed && checksum(body) == sum).then(|| Self { kind, text: text.to_owned() })
    }

    /// Which kind of key it is.
    pub fn kind(&self) -> KeyKind {
        self.kind
    }

    /// The key itself, for the one answer that shows it.
    pub fn expose(&self) -> &str {
        &self.text
    }

    /// The hash to store and to look it up by.
    pub fn hash(&self) -> SecretHash {
        SecretHash::of(self.text.as_bytes())
    }

    /// Its beginning, for people to tell keys apart: the prefix and four characters.
    pub fn display_prefix(&self) -> &str {
        self.text.get(..self.kind.prefix().len() + 4).unwrap_or_default()
    }
}

impl fmt::Debug for ApiKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ApiKey({}..)", self.kind.prefix())
    }
}

/// A one-time password for device activation: 10 characters of Crockford base32, 50 random bits.
#[derive(Clone)]
pub struct Otp(String);

const CROCKFORD: &[u8; 32] = b"0123456789ABCDEFGHJKMNPQRSTVWXYZ";
const OTP_LENGTH: usize = 10;

impl Otp {
    /// Makes a new one.
    pub fn generate(rng: &mut impl CryptoRngCore) -> Self {
        let mut bytes = [0; OTP_LENGTH];
        rng.fill_bytes(&mut bytes);
        // 256 is a multiple of 32, so five bits of each byte are uniform.
        let symbol = |byte: &u8| CROCKFORD.get(usize::from(byte % 32)).copied().map_or('0', char::from);
        Self(bytes.iter().map(symbol).collect())
    }

    /// Reads what a person typed: any case, spaces and hyphens ignored, O for 0, I and L for 1 (Crockford's rules).
    pub fn parse(text: &str) -> Option<Self> {
        let mut symbols = String::with_capacity(OTP_LENGTH);
        for c in text.chars().filter(|c| !matches!(c, ' ' | '-')) {
            let symbol = match c.to_ascii_uppercase() {
                'O' => '0',
                'I' | 'L' => '1',
                other => other,
            };
            let known = u8::try_from(symbol).is_ok_and(|byte| CROCKFORD.contains(&byte));
            if !known || symbols.len() == OTP_LENGTH {
                return None;
            }
            symbols.push(symbol);
        }
        (symbols.len() == OTP_LENGTH).then_some(Self(symbols))
    }

    /// The password in its canonical form, for the one answer that shows it and for its keyed hash.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Otp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Otp(..)")
    }
}

/// 256 random bits as 43 characters of base64url.
fn random_base64url(rng: &mut impl CryptoRngCore) -> String {
    let mut bytes = [0; 32];
    rng.fill_bytes(&mut bytes);
    Base64UrlUnpadded::encode_string(&bytes)
}

/// Six characters that a mistyped key has one chance in 2^36 to get right. No secret: it is there to find typos.
fn checksum(body: &str) -> String {
    let digest = Sha256::digest(body.as_bytes());
    let mut text = Base64UrlUnpadded::encode_string(&digest);
    text.truncate(CHECKSUM_LENGTH);
    text
}

#[cfg(test)]
mod tests {
    use rand_chacha::ChaCha20Rng;
    use rand_core::SeedableRng;

    use super::*;

    fn rng() -> ChaCha20Rng {
        ChaCha20Rng::seed_from_u64(7)
    }

    #[test]
    fn an_api_key_is_refused_when_one_character_changes() {
        for kind in KeyKind::ALL {
            let key = ApiKey::generate(kind, &mut rng());
            assert_eq!(ApiKey::parse(key.expose()).map(|key| key.kind()), Some(kind));
            for position in 0..key.expose().len() {
                let mut bytes = key.expose().as_bytes().to_vec();
                bytes[position] = if bytes[position] == b'A' { b'B' } else { b'A' };
                assert!(ApiKey::parse(std::str::from_utf8(&bytes).unwrap()).is_none(), "position {position}");
            }
        }
        let spaced = format!("kp_org_{}", " ".repeat(RANDOM_LENGTH));
        assert!(ApiKey::parse(&format!("{spaced}{}", checksum(&spaced))).is_none());
        for junk in ["", "kp_admin_", "kp_org_é", &format!("kp_admin_{}", "é".repeat(25))] {
            assert!(ApiKey::parse(junk).is_none());
        }
    }

    #[test]
    fn secrets_do_not_print() {
        let key = ApiKey::generate(KeyKind::Admin, &mut rng());
        let otp = Otp::generate(&mut rng());
        let secret = generate_secret(&mut rng());
        let printed = format!("{key:?} {otp:?} {secret:?} {:?}", secret.hash());
        assert_eq!(printed, "ApiKey(kp_admin_..) Otp(..) SecretText(..) SecretHash(..)");
    }

    #[test]
    fn an_otp_is_read_as_people_type_it() {
        let otp = Otp("01ABCDEFGH".into());
        for typed in ["01abcdefgh", "O1ABC-DEFGH", " 0IABC defgh ", "0l-ab-cd-ef-gh"] {
            assert_eq!(Otp::parse(typed).map(|otp| otp.0), Some(otp.0.clone()), "{typed}");
        }
        for bad in ["", "01ABCDEFG", "01ABCDEFGHJ", "01ABCDEFGU", "０1ABCDEFGH"] {
            assert!(Otp::parse(bad).is_none(), "{bad}");
        }
    }

    #[test]
    fn a_hash_survives_its_text_form() {
        let hash = SecretHash::of(b"secret");
        let text = serde_json::to_string(&hash).unwrap();
        assert!(serde_json::from_str::<SecretHash>(&text).unwrap().matches(&hash));
        assert!(!hash.matches(&SecretHash::of(b"other")));
        assert!(serde_json::from_str::<SecretHash>("\"short\"").is_err());
    }
}
