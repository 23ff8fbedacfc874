//! Writes certificates, right ones and wrong ones: every field is DER that a test can replace.

use der::oid::ObjectIdentifier;
use p256::ecdsa::signature::Signer;
use p256::ecdsa::{DerSignature, SigningKey};
use sha2::{Digest, Sha256};

use super::super::{TrustAnchor, oid};

// DER, one function a type.

pub(crate) fn tlv(tag: u8, content: &[u8]) -> Vec<u8> {
    let mut out = vec![tag];
    match content.len() {
        length @ 0..=0x7f => out.push(length as u8),
        length @ 0x80..=0xff => out.extend([0x81, length as u8]),
        length @ 0x100..=0xffff => out.extend([0x82, (length >> 8) as u8, length as u8]),
        length => out.extend([0x83, (length >> 16) as u8, (length >> 8) as u8, length as u8]),
    }
    out.extend_from_slice(content);
    out
}

pub(crate) fn sequence(parts: &[&[u8]]) -> Vec<u8> {
    tlv(0x30, &parts.concat())
}

pub(crate) fn set(parts: &[&[u8]]) -> Vec<u8> {
    tlv(0x31, &parts.concat())
}

pub(crate) fn id(id: &ObjectIdentifier) -> Vec<u8> {
    tlv(0x06, id.as_bytes())
}

pub(crate) fn dotted(dotted: &str) -> Vec<u8> {
    id(&ObjectIdentifier::new(dotted).unwrap())
}

pub(crate) fn utf8(text: &str) -> Vec<u8> {
    tlv(0x0c, text.as_bytes())
}

pub(crate) fn printable(text: &str) -> Vec<u8> {
    tlv(0x13, text.as_bytes())
}

pub(crate) fn utc(text: &str) -> Vec<u8> {
    tlv(0x17, text.as_bytes())
}

pub(crate) fn bits(octets: &[u8]) -> Vec<u8> {
    tlv(0x03, &[&[0], octets].concat())
}

/// An RDNSequence of single attributes whose values are DER.
pub(crate) fn name(attributes: &[(ObjectIdentifier, Vec<u8>)]) -> Vec<u8> {
    let rdns: Vec<u8> =
        attributes.iter().flat_map(|(kind, value)| set(&[&sequence(&[&id(kind), value])])).collect();
    tlv(0x30, &rdns)
}

pub(crate) fn common_name(text: &str) -> Vec<u8> {
    name(&[(oid::COMMON_NAME, utf8(text))])
}

// Extensions' values.

pub(crate) fn basic_constraints(ca: bool, path_length: Option<u8>) -> Vec<u8> {
    let ca = if ca { tlv(0x01, &[0xff]) } else { Vec::new() };
    let path_length = path_length.map_or_else(Vec::new, |length| tlv(0x02, &[length]));
    sequence(&[&ca, &path_length])
}

pub(crate) const DIGITAL_SIGNATURE: [u8; 4] = [0x03, 0x02, 0x07, 0x80];
pub(crate) const KEY_CERT_SIGN: [u8; 4] = [0x03, 0x02, 0x02, 0x04];
pub(crate) const CRL_SIGN: [u8; 4] = [0x03, 0x02, 0x01, 0x02];

pub(crate) fn purposes(purposes: &[&str]) -> Vec<u8> {
    let purposes: Vec<u8> = purposes.iter().flat_map(|purpose| dotted(purpose)).collect();
    tlv(0x30, &purposes)
}

pub(crate) const CLIENT_AUTH: &str = "1.3.6.1.5.5.7.3.2";
pub(crate) const SERVER_AUTH: &str = "1.3.6.1.5.5.7.3.1";
pub(crate) const ANY_PURPOSE: &str = "2.5.29.37.0";

/// A key, the same for the same seed.
pub(crate) fn key(seed: &str) -> SigningKey {
    SigningKey::from_slice(&Sha256::digest(seed)).unwrap()
}

pub(crate) fn public_key(key: &SigningKey) -> Vec<u8> {
    let point = key.verifying_key().to_encoded_point(false);
    sequence(&[&sequence(&[&id(&oid::EC_PUBLIC_KEY), &id(&oid::P256)]), &bits(point.as_bytes())])
}

pub(crate) fn ecdsa_with_sha256() -> Vec<u8> {
    sequence(&[&id(&oid::ECDSA_WITH_SHA256)])
}

/// An extension to be written.
#[derive(Clone, Debug)]
pub(crate) struct Extension {
    pub(crate) id: Vec<u8>,
    pub(crate) critical: bool,
    pub(crate) value: Vec<u8>,
}

/// A certificate to be written. Every field but the version and the signer's key is DER.
#[derive(Clone)]
pub(crate) struct Draft {
    pub(crate) version: Vec<u8>,
    pub(crate) serial: Vec<u8>,
    pub(crate) inner_algorithm: Vec<u8>,
    pub(crate) outer_algorithm: Vec<u8>,
    pub(crate) issuer: Vec<u8>,
    pub(crate) not_before: Vec<u8>,
    pub(crate) not_after: Vec<u8>,
    pub(crate) subject: Vec<u8>,
    pub(crate) public_key: Vec<u8>,
    pub(crate) unique_identifiers: Vec<u8>,
    pub(crate) extensions: Vec<Extension>,
    pub(crate) signer: SigningKey,
}

impl Draft {
    /// Of the subject and key called `subject`, by the issuer and key called `issuer`.
    pub(crate) fn new(subject: &str, issuer: &str) -> Self {
        Self {
            version: tlv(0xa0, &[0x02, 0x01, 0x02]),
            serial: tlv(0x02, &[0x01]),
            inner_algorithm: ecdsa_with_sha256(),
            outer_algorithm: ecdsa_with_sha256(),
            issuer: common_name(issuer),
            not_before: utc("200101000000Z"),
            not_after: utc("400101000000Z"),
            subject: common_name(subject),
            public_key: public_key(&key(subject)),
            unique_identifiers: Vec::new(),
            extensions: Vec::new(),
            signer: key(issuer),
        }
    }

    pub(crate) fn ca(subject: &str, issuer: &str) -> Self {
        Self::new(subject, issuer).with(&oid::BASIC_CONSTRAINTS, true, basic_constraints(true, None)).with(
            &oid::KEY_USAGE,
            true,
            KEY_CERT_SIGN.to_vec(),
        )
    }

    pub(crate) fn device(subject: &str, issuer: &str) -> Self {
        Self::new(subject, issuer).with(&oid::KEY_USAGE, true, DIGITAL_SIGNATURE.to_vec()).with(
            &oid::EXTENDED_KEY_USAGE,
            false,
            purposes(&[CLIENT_AUTH]),
        )
    }

    /// Version 1, as openssl makes it without an extension file.
    pub(crate) fn version_1(mut self) -> Self {
        self.version.clear();
        self.extensions.clear();
        self
    }

    pub(crate) fn with(mut self, id: &ObjectIdentifier, critical: bool, value: Vec<u8>) -> Self {
        self.set(id, critical, value);
        self
    }

    /// Puts an extension in the place of the one with its id, or at the end.
    pub(crate) fn set(&mut self, kind: &ObjectIdentifier, critical: bool, value: Vec<u8>) {
        self.remove(kind);
        self.extensions.push(Extension { id: id(kind), critical, value });
    }

    pub(crate) fn remove(&mut self, kind: &ObjectIdentifier) {
        self.extensions.retain(|extension| extension.id != id(kind));
    }

    pub(crate) fn tbs(&self) -> Vec<u8> {
        let extensions: Vec<u8> = self
            .extensions
            .iter()
            .flat_map(|Extension { id, critical, value }| {
                let critical = if *critical { tlv(0x01, &[0xff]) } else { Vec::new() };
                sequence(&[id, &critical, &tlv(0x04, value)])
            })
            .collect();
        let extensions = if extensions.is_empty() { extensions } else { tlv(0xa3, &tlv(0x30, &extensions)) };
        sequence(&[
            &self.version,
            &self.serial,
            &self.inner_algorithm,
            &self.issuer,
            &sequence(&[&self.not_before, &self.not_after]),
            &self.subject,
            &self.public_key,
            &self.unique_identifiers,
            &extensions,
        ])
    }

    pub(crate) fn sign(&self) -> Vec<u8> {
        self.wrap(&self.tbs())
    }

    /// The certificate around `tbs`, signed.
    pub(crate) fn wrap(&self, tbs: &[u8]) -> Vec<u8> {
        let signature: DerSignature = self.signer.sign(tbs);
        sequence(&[tbs, &self.outer_algorithm, &bits(signature.as_bytes())])
    }

    pub(crate) fn anchor(&self) -> TrustAnchor {
        TrustAnchor::from_der(self.sign()).unwrap()
    }
}

/// The usual chain: root, intermediate, device.
pub(crate) struct Chain {
    pub(crate) root: Draft,
    pub(crate) intermediate: Draft,
    pub(crate) leaf: Draft,
}

impl Chain {
    pub(crate) fn usual() -> Self {
        Self {
            root: Draft::ca("root", "root"),
            intermediate: Draft::ca("intermediate", "root"),
            leaf: Draft::device("pos-terminal-001", "intermediate"),
        }
    }

    /// Without the root.
    pub(crate) fn x5c(&self) -> Vec<Vec<u8>> {
        vec![self.leaf.sign(), self.intermediate.sign()]
    }

    pub(crate) fn anchor(&self) -> TrustAnchor {
        self.root.anchor()
    }
}
