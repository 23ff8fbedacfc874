//! What is encrypted in the database, and under what: the master key.
//!
//! A sealed blob is `version (1) | master key id (8) | nonce (12) | ciphertext and tag`, AES-256-GCM. Its associated data
//! says what it is for and whose it is, so that a blob copied into another row does not open there.

use std::fmt;

use aes_gcm::aead::{Aead, Payload};
use aes_gcm::{Aes256Gcm, KeyInit, Nonce};
use base64ct::{Base64UrlUnpadded, Encoding};
use hmac::{Hmac, Mac};
use keypost_shared::crypto::CryptoError;
use keypost_shared::host::PrivateKey;
use keypost_shared::id::{Kid, PoolId};
use keypost_shared::secret::Otp;
use rand_core::CryptoRngCore;
use sha2::{Digest, Sha256};
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

const VERSION: u8 = 1;
/// How long the name of a master key is, in bytes.
pub const KEY_ID_LENGTH: usize = 8;
const NONCE_LENGTH: usize = 12;

/// The key under which private keys rest in the database, and from which the key for one-time passwords is derived.
///
/// While it is being replaced there are two: what is encrypted is encrypted under the first, and what rests under either
/// opens.
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub struct MasterKey {
    current: [u8; 32],
    other: Option<[u8; 32]>,
}

/// A text that is no master key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("must be 32 bytes in base64url without padding")]
pub struct MasterKeyError;

/// What a private key is for; part of what its encryption authenticates.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyPurpose {
    /// The root, which signs `v1/trust`.
    Root,
    /// A publisher key, which signs all other documents.
    Publisher,
    /// A pool's signing key.
    Pool(PoolId),
}

/// Why a sealed key does not open.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Sealed under another master key.
    #[error("it was sealed under another master key than the KEYPOST_MASTER_KEY given now")]
    OtherMasterKey,
    /// Not a blob that this version wrote, or one that was changed or moved.
    #[error("the sealed key is damaged, or belongs to another row")]
    Damaged,
    /// What was inside is no key.
    #[error(transparent)]
    Key(#[from] CryptoError),
}

/// The cipher refused to encrypt, which it does for texts of gigabytes alone.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("a private key could not be encrypted")]
pub struct SealError;

/// Why a sealed key was not encrypted anew.
#[derive(Debug, thiserror::Error)]
pub enum ResealError {
    /// It does not open.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// It could not be encrypted.
    #[error(transparent)]
    Seal(#[from] SealError),
}

impl MasterKey {
    /// Reads a master key.
    pub fn parse(text: &str) -> Result<Self, MasterKeyError> {
        let mut bytes = [0; 32];
        match Base64UrlUnpadded::decode(text, &mut bytes) {
            Ok(decoded) if decoded.len() == 32 => Ok(Self { current: bytes, other: None }),
            _ => Err(MasterKeyError),
        }
    }

    /// This key, and what rests under `other` opens too.
    pub fn accepting(mut self, other: &MasterKey) -> Self {
        self.other = Some(other.current);
        self
    }

    /// The key's bytes, for the check that it is none that anybody would guess.
    pub(crate) fn as_bytes(&self) -> &[u8; 32] {
        &self.current
    }

    /// The keys that count, the one to encrypt under first.
    fn keys(&self) -> impl Iterator<Item = &[u8; 32]> {
        std::iter::once(&self.current).chain(&self.other)
    }

    /// Encrypts a sealed private key anew, under the key to encrypt under now. None where it rests under that already.
    pub fn reseal(
        &self,
        purpose: KeyPurpose,
        kid: &Kid,
        blob: &[u8],
        rng: &mut impl CryptoRngCore,
    ) -> Result<Option<Vec<u8>>, ResealError> {
        let key = self.open(purpose, kid, blob)?;
        let rests_under = blob.get(1..=KEY_ID_LENGTH);
        if rests_under == Some(self.id().as_slice()) {
            return Ok(None);
        }
        Ok(Some(self.seal(purpose, &key, rng)?))
    }

    /// Encrypts a private key for the database.
    pub fn seal(
        &self,
        purpose: KeyPurpose,
        key: &PrivateKey,
        rng: &mut impl CryptoRngCore,
    ) -> Result<Vec<u8>, SealError> {
        let mut nonce = [0; NONCE_LENGTH];
        rng.fill_bytes(&mut nonce);
        let aad = associated_data(purpose, key.kid());
        let plaintext = key.to_bytes();
        let payload = Payload { msg: plaintext.as_slice(), aad: &aad };
        let ciphertext =
            cipher(&self.current).encrypt(&Nonce::from(nonce), payload).map_err(|_| SealError)?;
        let mut blob = Vec::with_capacity(1 + KEY_ID_LENGTH + NONCE_LENGTH + ciphertext.len());
        blob.push(VERSION);
        blob.extend_from_slice(&self.id());
        blob.extend_from_slice(&nonce);
        blob.extend_from_slice(&ciphertext);
        Ok(blob)
    }

    /// Decrypts the private key `kid` that [`seal`](Self::seal) encrypted for the same purpose.
    pub fn open(&self, purpose: KeyPurpose, kid: &Kid, blob: &[u8]) -> Result<PrivateKey, OpenError> {
        let (&version, rest) = blob.split_first().ok_or(OpenError::Damaged)?;
        if version != VERSION {
            return Err(OpenError::Damaged);
        }
        let (key_id, rest) = rest.split_first_chunk::<KEY_ID_LENGTH>().ok_or(OpenError::Damaged)?;
        let key = self.keys().find(|key| id(key) == *key_id).ok_or(OpenError::OtherMasterKey)?;
        let (nonce, ciphertext) = rest.split_first_chunk::<NONCE_LENGTH>().ok_or(OpenError::Damaged)?;
        let aad = associated_data(purpose, kid);
        let payload = Payload { msg: ciphertext, aad: &aad };
        let plaintext = cipher(key).decrypt(&Nonce::from(*nonce), payload).map_err(|_| OpenError::Damaged)?;
        let key = PrivateKey::from_bytes(&Zeroizing::new(plaintext))?;
        if key.kid() == kid { Ok(key) } else { Err(OpenError::Damaged) }
    }

    /// The keyed hash by which a one-time password is stored and found: without the master key, its 50 bits cannot be
    /// searched for in a copy of the database.
    pub fn otp_hmac(&self, otp: &Otp) -> [u8; 32] {
        otp_hmac(&self.current, otp)
    }

    /// The keyed hashes by which a one-time password may have been stored: under each of the keys that count.
    pub fn otp_hmacs(&self, otp: &Otp) -> Vec<[u8; 32]> {
        self.keys().map(|key| otp_hmac(key, otp)).collect()
    }

    /// What an `Idempotency-Key` gives: the id to find its answer by, and the key to open it with. `scope` is all that the
    /// key is good for. Both need the master key too, because people choose keys that can be guessed.
    ///
    /// While there are two master keys there are two of each, in the order of the ids: whoever takes both, in that order,
    /// meets whoever has only one of the keys, or has them the other way round.
    pub fn idempotency(&self, scope: &[&str], key: &str) -> Vec<([u8; 32], AnswerKey)> {
        // As JSON: no two lists of texts are the same text.
        let request = serde_json::json!([scope, key]).to_string();
        let derive = |master: &[u8; 32], purpose: &[u8]| {
            let derived = Zeroizing::new(hmac(master, purpose));
            hmac(&derived, request.as_bytes())
        };
        let of = |master| {
            let answer = AnswerKey(derive(master, b"keypost idempotency answer"));
            (derive(master, b"keypost idempotency id"), answer)
        };
        let mut all: Vec<_> = self.keys().map(of).collect();
        all.sort_unstable_by_key(|(id, _)| *id);
        all
    }

    /// The keyed hash that ties a form to the browser with this cookie and to what it is for.
    pub fn form_hmac(&self, cookie: &str, purpose: &str) -> [u8; 32] {
        form_hmac(&self.current, cookie, purpose)
    }

    /// The keyed hashes that a form may carry: under each of the keys that count.
    pub fn form_hmacs(&self, cookie: &str, purpose: &str) -> Vec<[u8; 32]> {
        self.keys().map(|key| form_hmac(key, cookie, purpose)).collect()
    }

    /// A name for the key to encrypt under, which is in all that rests under it.
    pub fn id(&self) -> [u8; KEY_ID_LENGTH] {
        id(&self.current)
    }
}

/// A name for a key; a hash of 256 random bits gives nothing away.
fn id(key: &[u8; 32]) -> [u8; KEY_ID_LENGTH] {
    let digest = Sha256::new().chain_update(b"keypost master key id\0").chain_update(key).finalize();
    let mut id = [0; KEY_ID_LENGTH];
    id.iter_mut().zip(digest).for_each(|(to, from)| *to = from);
    id
}

fn cipher(key: &[u8; 32]) -> Aes256Gcm {
    <Aes256Gcm as KeyInit>::new(key.into())
}

fn otp_hmac(key: &[u8; 32], otp: &Otp) -> [u8; 32] {
    let key = Zeroizing::new(hmac(key, b"keypost one-time password key"));
    hmac(&key, otp.expose().as_bytes())
}

fn form_hmac(key: &[u8; 32], cookie: &str, purpose: &str) -> [u8; 32] {
    let key = Zeroizing::new(hmac(key, b"keypost form key"));
    // As JSON: no two pairs of texts are the same text.
    hmac(&key, serde_json::json!([cookie, purpose]).to_string().as_bytes())
}

/// Encrypts the answer to a request that came with an `Idempotency-Key`.
#[derive(Zeroize, ZeroizeOnDrop)]
pub struct AnswerKey([u8; 32]);

impl AnswerKey {
    /// A keyed hash of a request that holds what can be guessed: without the key nobody can try guesses on it.
    pub fn hash(&self, request: &[u8]) -> [u8; 32] {
        let key = Zeroizing::new(hmac(&self.0, b"request"));
        hmac(&key, request)
    }

    /// Encrypts an answer: `nonce (12) | ciphertext and tag`.
    pub fn seal(&self, answer: &[u8], rng: &mut impl CryptoRngCore) -> Result<Vec<u8>, SealError> {
        let mut nonce = [0; NONCE_LENGTH];
        rng.fill_bytes(&mut nonce);
        let ciphertext = self.cipher().encrypt(&Nonce::from(nonce), answer).map_err(|_| SealError)?;
        Ok([nonce.as_slice(), &ciphertext].concat())
    }

    /// Decrypts what [`seal`](Self::seal) encrypted.
    pub fn open(&self, sealed: &[u8]) -> Result<Zeroizing<Vec<u8>>, OpenError> {
        let (nonce, ciphertext) = sealed.split_first_chunk::<NONCE_LENGTH>().ok_or(OpenError::Damaged)?;
        let opened = self.cipher().decrypt(&Nonce::from(*nonce), ciphertext);
        opened.map(Zeroizing::new).map_err(|_| OpenError::Damaged)
    }

    fn cipher(&self) -> Aes256Gcm {
        <Aes256Gcm as KeyInit>::new(&self.0.into())
    }
}

impl fmt::Debug for AnswerKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("AnswerKey(..)")
    }
}

impl fmt::Debug for MasterKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("MasterKey(..)")
    }
}

fn associated_data(purpose: KeyPurpose, kid: &Kid) -> Vec<u8> {
    match purpose {
        KeyPurpose::Root => format!("keypost private key\0root\0\0{kid}"),
        KeyPurpose::Publisher => format!("keypost private key\0publisher\0\0{kid}"),
        KeyPurpose::Pool(pool) => format!("keypost private key\0pool\0{pool}\0{kid}"),
    }
    .into_bytes()
}

fn hmac(key: &[u8; 32], message: &[u8]) -> [u8; 32] {
    // A key is padded with zeros to the block (RFC 2104 §2): given that length, the constructor cannot fail.
    let mut block = Zeroizing::new([0; 64]);
    block.iter_mut().zip(key).for_each(|(to, from)| *to = *from);
    let mut mac = <Hmac<Sha256> as Mac>::new(&(*block).into());
    mac.update(message);
    mac.finalize().into_bytes().into()
}

#[cfg(test)]
mod tests {
    use rand_chacha::ChaCha20Rng;
    use rand_core::SeedableRng;

    use super::*;

    const POOL: KeyPurpose = KeyPurpose::Pool(PoolId(uuid::Uuid::from_u128(1)));

    fn master(byte: u8) -> MasterKey {
        MasterKey { current: [byte; 32], other: None }
    }

    #[test]
    fn a_sealed_key_opens_for_its_purpose_and_row_only() {
        let mut rng = ChaCha20Rng::seed_from_u64(1);
        let key = PrivateKey::generate(&mut rng);
        let other = PrivateKey::generate(&mut rng);
        let blob = master(1).seal(POOL, &key, &mut rng).unwrap();

        assert_eq!(master(1).open(POOL, key.kid(), &blob).unwrap().public(), key.public());
        let other_pool = KeyPurpose::Pool(PoolId(uuid::Uuid::from_u128(2)));
        for purpose in [KeyPurpose::Root, KeyPurpose::Publisher, other_pool] {
            assert!(matches!(master(1).open(purpose, key.kid(), &blob), Err(OpenError::Damaged)));
        }
        assert!(matches!(master(1).open(POOL, other.kid(), &blob), Err(OpenError::Damaged)));
        assert!(matches!(master(2).open(POOL, key.kid(), &blob), Err(OpenError::OtherMasterKey)));
    }

    #[test]
    fn a_changed_or_cut_blob_does_not_open() {
        let mut rng = ChaCha20Rng::seed_from_u64(2);
        let key = PrivateKey::generate(&mut rng);
        let blob = master(1).seal(POOL, &key, &mut rng).unwrap();
        for position in 0..blob.len() {
            let mut changed = blob.clone();
            changed[position] ^= 1;
            assert!(master(1).open(POOL, key.kid(), &changed).is_err(), "byte {position}");
            assert!(master(1).open(POOL, key.kid(), &blob[..position]).is_err(), "cut to {position}");
        }
    }

    #[test]
    fn one_time_passwords_hash_differently_under_another_master_key() {
        let otp = Otp::generate(&mut ChaCha20Rng::seed_from_u64(3));
        assert_eq!(master(1).otp_hmac(&otp), master(1).otp_hmac(&otp));
        assert_ne!(master(1).otp_hmac(&otp), master(2).otp_hmac(&otp));
    }

    #[test]
    fn an_answer_opens_with_the_same_idempotency_key_in_the_same_scope_alone() {
        let mut rng = ChaCha20Rng::seed_from_u64(4);
        let [(id, key)] = master(1).idempotency(&["me", "POST", "/a"], "k").try_into().unwrap();
        let sealed = key.seal(b"answer", &mut rng).unwrap();
        assert_eq!(key.open(&sealed).unwrap().as_slice(), b"answer");
        assert!(key.open(&sealed[..20]).is_err());
        let others = [
            master(2).idempotency(&["me", "POST", "/a"], "k"),
            master(1).idempotency(&["you", "POST", "/a"], "k"),
            master(1).idempotency(&["me", "POST", "/a", "k"], ""),
            master(1).idempotency(&["me", "POST", "/a"], "l"),
        ];
        for (other_id, other) in others.into_iter().flatten() {
            assert_ne!(id, other_id);
            assert!(other.open(&sealed).is_err());
        }
    }

    #[test]
    fn while_there_are_two_master_keys_what_rests_under_either_opens_and_is_sealed_under_the_first() {
        let mut rng = ChaCha20Rng::seed_from_u64(5);
        let key = PrivateKey::generate(&mut rng);
        let old = master(1).seal(POOL, &key, &mut rng).unwrap();
        let both = master(2).accepting(&master(1));
        assert_eq!(both.open(POOL, key.kid(), &old).unwrap().public(), key.public());
        let new = both.reseal(POOL, key.kid(), &old, &mut rng).unwrap().expect("it rested under the other");
        assert!(
            master(2).open(POOL, key.kid(), &new).is_ok() && master(1).open(POOL, key.kid(), &new).is_err()
        );
        assert!(both.reseal(POOL, key.kid(), &new, &mut rng).unwrap().is_none());
        assert!(matches!(
            both.reseal(POOL, key.kid(), &master(3).seal(POOL, &key, &mut rng).unwrap(), &mut rng),
            Err(ResealError::Open(OpenError::OtherMasterKey))
        ));
        let sealed_now = both.seal(POOL, &key, &mut rng).unwrap();
        assert!(master(2).open(POOL, key.kid(), &sealed_now).is_ok());

        let otp = Otp::generate(&mut rng);
        assert_eq!(both.otp_hmacs(&otp), [master(2).otp_hmac(&otp), master(1).otp_hmac(&otp)]);
        assert_eq!(both.form_hmacs("c", "p"), [master(2).form_hmac("c", "p"), master(1).form_hmac("c", "p")]);
        let other_way_round = master(1).accepting(&master(2));
        let ids = |key: &MasterKey| -> Vec<[u8; 32]> {
            key.idempotency(&["me"], "k").iter().map(|(id, _)| *id).collect()
        };
        assert_eq!(ids(&both), ids(&other_way_round), "in one order");
        assert!(ids(&both).contains(&ids(&master(1))[0]) && ids(&both).contains(&ids(&master(2))[0]));
        assert_eq!(format!("{both:?}"), "MasterKey(..)");
    }

    #[test]
    fn a_master_key_is_exactly_32_bytes_and_does_not_print() {
        assert!(MasterKey::parse(&"A".repeat(43)).is_ok());
        for bad in ["", "AAAA", &"A".repeat(42), &"A".repeat(44), &format!("{}=", "A".repeat(43))] {
            assert!(MasterKey::parse(bad).is_err(), "{bad}");
        }
        assert_eq!(format!("{:?}", master(1)), "MasterKey(..)");
    }
}
