//! Proof Key for Code Exchange (RFC 7636), by its one method that is worth having: S256.

use keypost_shared::secret::SecretHash;

/// What an app announces of the verifier that it keeps: the verifier's SHA-256 (RFC 7636 §4.2).
#[derive(Clone, Debug)]
pub struct CodeChallenge(SecretHash);

/// What an app shows to prove that it is the one that began (RFC 7636 §4.1).
#[derive(Clone, Debug)]
pub struct CodeVerifier(SecretHash);

impl CodeChallenge {
    /// Reads a parameter: the base64url of 32 bytes, without padding.
    pub fn parse(text: &str) -> Option<Self> {
        SecretHash::try_from(text.to_owned()).ok().map(Self)
    }

    /// A challenge that was stored.
    pub fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(SecretHash::from_bytes(bytes))
    }

    /// The bytes to store.
    pub fn as_bytes(&self) -> &[u8; 32] {
        self.0.as_bytes()
    }

    /// Whether this is the verifier that it was made of, in constant time.
    pub fn is_met_by(&self, verifier: &CodeVerifier) -> bool {
        self.0.matches(&verifier.0)
    }
}

impl CodeVerifier {
    /// Reads a parameter: 43 to 128 unreserved characters. All that is kept of it is its hash.
    pub fn parse(text: &str) -> Option<Self> {
        let unreserved = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
        let well_formed = (43..=128).contains(&text.len()) && text.bytes().all(unreserved);
        well_formed.then(|| Self(SecretHash::of(text.as_bytes())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 7636 appendix B.
    const VERIFIER: &str = "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk";
    const CHALLENGE: &str = "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM";

    #[test]
    fn the_example_of_the_rfc_verifies_and_nothing_else_does() {
        let challenge = CodeChallenge::parse(CHALLENGE).unwrap();
        assert!(challenge.is_met_by(&CodeVerifier::parse(VERIFIER).unwrap()));
        assert!(
            CodeChallenge::from_bytes(*challenge.as_bytes())
                .is_met_by(&CodeVerifier::parse(VERIFIER).unwrap())
        );
        // The method `plain`, by which the challenge itself would do.
        assert!(!challenge.is_met_by(&CodeVerifier::parse(CHALLENGE).unwrap()));
        assert!(!challenge.is_met_by(&CodeVerifier::parse(&format!("{VERIFIER}k")).unwrap()));
    }

    #[test]
    fn what_cannot_be_a_challenge_or_a_verifier_is_refused() {
        let padded = format!("{CHALLENGE}=");
        for bad in ["", "short", &CHALLENGE[1..], &padded, &CHALLENGE.replace('-', "+"), &"A".repeat(64)] {
            assert!(CodeChallenge::parse(bad).is_none(), "{bad}");
        }
        for bad in ["", &"a".repeat(42), &"a".repeat(129), &"é".repeat(30), &format!("{VERIFIER} ")] {
            assert!(CodeVerifier::parse(bad).is_none(), "{bad}");
        }
        assert!(CodeVerifier::parse(&"~".repeat(128)).is_some());
    }
}
