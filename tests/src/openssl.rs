//! Certificates and assertions as people make them: with the openssl of this machine.

use std::path::{Path, PathBuf};
use std::process::Command;

use base64ct::{Base64, Base64UrlUnpadded, Encoding};
use keypost_shared::certificate::{Curve, ecdsa_from_der};
use serde_json::{Value, json};
use tempfile::TempDir;

/// The keys of a chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// RSA-4096 for the CAs, RSA-2048 for devices.
    Rsa,
    /// P-256 throughout.
    P256,
    /// P-384 throughout.
    P384,
}

/// A root with an intermediate.
pub struct Authority {
    folder: TempDir,
    kind: Kind,
}

/// A device's key and chain.
pub struct Device {
    /// The subject's CN.
    pub name: String,
    /// The chain as `x5c` carries it: device, intermediate, root.
    pub x5c: Vec<String>,
    key: PathBuf,
}

impl Authority {
    /// An RSA-4096 root with key identifiers and critical basicConstraints, and an intermediate with basicConstraints and
    /// nothing else; or the same with elliptic curves.
    pub fn new(kind: Kind) -> Self {
        let folder = TempDir::new().unwrap();
        let made = Self { folder, kind };
        made.key("root", "rsa:4096");
        made.openssl(&[
            "req",
            "-x509",
            "-new",
            "-key",
            "root.key",
            made.digest(),
            "-days",
            "3650",
            "-subj",
            &format!("/C=US/O=Retail Corp/CN=Retail Root {kind:?}"),
            "-addext",
            "subjectKeyIdentifier=hash",
            "-addext",
            "authorityKeyIdentifier=keyid:always",
            "-addext",
            "basicConstraints=critical,CA:true",
            "-out",
            "root.pem",
        ]);
        made.key("intermediate", "rsa:4096");
        std::fs::write(made.path("intermediate.ext"), "basicConstraints=CA:TRUE,pathlen:0\n").unwrap();
        made.issue(
            "root",
            "intermediate",
            &format!("/C=US/O=Retail Corp/CN=Retail Issuing {kind:?}"),
            &["-extfile", "intermediate.ext"],
        );
        made
    }

    /// A device of the business unit `organization`: a certificate without any extension file, which is X.509 version 1.
    pub fn device(&self, organization: &str, name: &str) -> Device {
        let file = format!("{organization}-{name}");
        self.key(&file, "rsa:2048");
        self.issue("intermediate", &file, &format!("/C=US/ST=State/L=City/O={organization}/CN={name}"), &[]);
        let x5c = [file.as_str(), "intermediate", "root"].map(|part| Base64::encode_string(&self.der(part)));
        Device { name: name.to_owned(), x5c: x5c.to_vec(), key: self.path(&format!("{file}.key")) }
    }

    /// The root as a PEM file.
    pub fn root_pem(&self) -> String {
        std::fs::read_to_string(self.path("root.pem")).unwrap()
    }

    /// The DER of the root.
    pub fn root_der(&self) -> Vec<u8> {
        self.der("root")
    }

    fn path(&self, file: &str) -> PathBuf {
        self.folder.path().join(file)
    }

    fn digest(&self) -> &'static str {
        if self.kind == Kind::P384 { "-sha384" } else { "-sha256" }
    }

    fn key(&self, name: &str, rsa: &str) {
        let file = format!("{name}.key");
        match self.kind {
            Kind::Rsa => {
                let bits = rsa.trim_start_matches("rsa:");
                self.openssl(&["genrsa", "-out", &file, bits]);
            }
            Kind::P256 => {
                self.openssl(&["ecparam", "-genkey", "-noout", "-name", "prime256v1", "-out", &file])
            }
            Kind::P384 => {
                self.openssl(&["ecparam", "-genkey", "-noout", "-name", "secp384r1", "-out", &file])
            }
        }
    }

    fn issue(&self, issuer: &str, name: &str, subject: &str, options: &[&str]) {
        let [key, csr, pem] = ["key", "csr", "pem"].map(|kind| format!("{name}.{kind}"));
        let [ca, ca_key] = ["pem", "key"].map(|kind| format!("{issuer}.{kind}"));
        self.openssl(&["req", "-new", "-key", &key, "-subj", subject, "-out", &csr]);
        let arguments = [
            &["x509", "-req", "-in", &csr, "-CA", &ca, "-CAkey", &ca_key, "-CAcreateserial", "-days", "365"]
                [..],
            &[self.digest(), "-out", &pem],
            options,
        ];
        self.openssl(&arguments.concat());
    }

    fn der(&self, name: &str) -> Vec<u8> {
        let pem = std::fs::read_to_string(self.path(&format!("{name}.pem"))).unwrap();
        let body: String = pem.lines().filter(|line| !line.starts_with("-----")).collect();
        Base64::decode_vec(&body).unwrap()
    }

    fn openssl(&self, arguments: &[&str]) {
        run(self.folder.path(), arguments);
    }
}

impl Device {
    /// An assertion for this audience, signed with `alg`.
    pub fn assertion(&self, alg: &str, audience: &str, now: u64) -> String {
        let mut jti = [0; 16];
        rand_core::RngCore::fill_bytes(&mut rand_core::OsRng, &mut jti);
        let claims = json!({
            "iss": self.name, "sub": self.name, "aud": audience, "iat": now, "exp": now + 300,
            "jti": Base64UrlUnpadded::encode_string(&jti),
        });
        self.sign(&json!({"alg": alg, "typ": "JWT", "x5c": self.x5c}), &claims)
    }

    /// A field of the certificate as `openssl x509 -noout` prints it, its name and all.
    pub fn printed(&self, field: &str) -> String {
        let folder = TempDir::new().unwrap();
        let file = folder.path().join("certificate.der");
        std::fs::write(&file, Base64::decode_vec(&self.x5c[0]).unwrap()).unwrap();
        let arguments = ["x509", "-inform", "DER", "-in", file.to_str().unwrap(), "-noout", field];
        String::from_utf8(run(folder.path(), &arguments)).unwrap().trim_end().to_owned()
    }

    /// The key as a PEM file.
    pub fn key_pem(&self) -> String {
        std::fs::read_to_string(&self.key).unwrap()
    }

    /// The public key as a JWK, without anything that is optional.
    pub fn public_jwk(&self) -> Value {
        let folder = TempDir::new().unwrap();
        let key = self.key.to_str().unwrap();
        let text = |octets: &[u8]| Base64UrlUnpadded::encode_string(octets);
        if self.key_pem().contains("EC PRIVATE KEY") {
            let spki = run(folder.path(), &["pkey", "-in", key, "-pubout", "-outform", "DER"]);
            // The point ends the SPKI: X and Y, of the same length.
            let (curve, length) = if spki.len() > 100 { ("P-384", 48) } else { ("P-256", 32) };
            let (x, y) = spki[spki.len() - 2 * length..].split_at(length);
            return json!({"kty": "EC", "crv": curve, "x": text(x), "y": text(y)});
        }
        let shown = run(folder.path(), &["rsa", "-in", key, "-noout", "-modulus"]);
        let modulus = String::from_utf8(shown).unwrap();
        let digits = modulus.trim().strip_prefix("Modulus=").unwrap();
        let octets: Vec<u8> = (0..digits.len())
            .step_by(2)
            .map(|at| u8::from_str_radix(&digits[at..at + 2], 16).unwrap())
            .collect();
        json!({"kty": "RSA", "n": text(&octets), "e": "AQAB"})
    }

    /// Signs these claims with the algorithm that the header names.
    pub fn sign(&self, header: &Value, claims: &Value) -> String {
        let part = |value: &Value| Base64UrlUnpadded::encode_string(value.to_string().as_bytes());
        let input = format!("{}.{}", part(header), part(claims));
        let folder = TempDir::new().unwrap();
        let file = folder.path().join("input");
        std::fs::write(&file, &input).unwrap();
        let alg = header["alg"].as_str().unwrap();
        let digest = format!("-sha{}", &alg[2..]);
        let (key, file) = (self.key.to_str().unwrap(), file.to_str().unwrap());
        let pss = ["-sigopt", "rsa_padding_mode:pss", "-sigopt", "rsa_pss_saltlen:digest"];
        let options: &[&str] = if alg.starts_with("PS") { &pss } else { &[] };
        let arguments = [&["dgst", digest.as_str(), "-sign", key][..], options, &[file]].concat();
        let signature = run(folder.path(), &arguments);
        let signature = match alg {
            "ES256" => ecdsa_from_der(&signature, Curve::P256).unwrap(),
            "ES384" => ecdsa_from_der(&signature, Curve::P384).unwrap(),
            _ => signature,
        };
        format!("{input}.{}", Base64UrlUnpadded::encode_string(&signature))
    }
}

fn run(folder: &Path, arguments: &[&str]) -> Vec<u8> {
    let output =
        Command::new("openssl").args(arguments).current_dir(folder).output().expect("openssl is installed");
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "openssl {arguments:?}: {stderr}");
    output.stdout
}
