//! Devices with certificates: an RSA-4096 root and intermediate and one RSA-2048 device, made by this machine's openssl, and
//! after its likeness all others, each with a key of its own (`bench/devices`); and the assertions that they sign.

use std::{
    fs,
    path::{Path, PathBuf},
};

use base64ct::{Base64, Encoding as _};
use keypost_shared::{
    certificate::{CertificateDer, TrustAnchor},
    device_certificate::{CertificatePins, PoolTrustAnchor},
    document::{ClientStatus, ClientSubject, DeviceDocument},
    kv_key::KvKey,
};
use serde_json::json;

use super::fleet::{Fleet, FleetPool, client, client_id, device_claims, device_id};
use crate::{Error, command::Cmd, files, setup::node::Node};

/// The O of every device.
const ORGANIZATION: &str = "05243";

/// The serial number of the device that the others are made after: long enough to be found in it. All of theirs begin with
/// its first half.
const SERIAL_NUMBER: &str = "0x4b65797000000000";

/// What the devices' keys are made of.
const PRIMES: &str = "primes.json";

/// A root, an intermediate, and devices.
#[derive(Debug)]
pub(super) struct Chains {
    folder: PathBuf,
    node: PathBuf,
    scripts: PathBuf,
    root: Vec<u8>,
    /// As it stands in `x5c`.
    intermediate: String,
    /// The certificate of each device, as it stands in `x5c`.
    certificates: Vec<String>,
}

impl Chains {
    /// Makes them.
    ///
    /// # Errors
    /// When openssl is missing or fails.
    pub(super) async fn make(
        folder: PathBuf,
        node: &Node,
        scripts: PathBuf,
        devices: u32,
    ) -> Result<Self, Error> {
        files::create_folder(&folder)?;
        let openssl = async |arguments: &[&str]| {
            Cmd::new("openssl", "openssl").args(arguments).dir(&folder).run().await
        };
        for (name, bits) in [("root", "4096"), ("intermediate", "4096"), ("device", "2048")] {
            openssl(&["genrsa", "-out", &format!("{name}.key"), bits]).await?;
        }
        openssl(&["rsa", "-in", "device.key", "-pubout", "-out", "device.pub"]).await?;
        openssl(&[
            "req",
            "-x509",
            "-new",
            "-key",
            "root.key",
            "-sha256",
            "-days",
            "30",
            "-subj",
            "/O=Bench/CN=Root",
            "-addext",
            "basicConstraints=critical,CA:true",
            "-out",
            "root.pem",
        ])
        .await?;
        openssl(&[
            "req",
            "-new",
            "-key",
            "intermediate.key",
            "-subj",
            "/O=Bench/CN=Issuing",
            "-out",
            "intermediate.csr",
        ])
        .await?;
        let extensions = folder.join("intermediate.ext");
        fs::write(&extensions, "basicConstraints=CA:TRUE,pathlen:0\n")
            .map_err(Error::file("write", &extensions))?;
        openssl(&[
            "x509",
            "-req",
            "-in",
            "intermediate.csr",
            "-CA",
            "root.pem",
            "-CAkey",
            "root.key",
            "-set_serial",
            "2",
            "-days",
            "30",
            "-sha256",
            "-extfile",
            "intermediate.ext",
            "-out",
            "intermediate.pem",
        ])
        .await?;
        let subject = format!("/O={ORGANIZATION}/CN={}", device_id(0)?);
        openssl(&[
            "x509",
            "-new",
            "-force_pubkey",
            "device.pub",
            "-subj",
            &subject,
            "-CA",
            "intermediate.pem",
            "-CAkey",
            "intermediate.key",
            "-set_serial",
            SERIAL_NUMBER,
            "-days",
            "30",
            "-sha256",
            "-outform",
            "DER",
            "-out",
            "device.der",
        ])
        .await?;
        let printed = Cmd::new("certificates.js", &node.node)
            .arg(scripts.join("certificates.js"))
            .args(["device.der", "intermediate.key", &devices.to_string(), PRIMES])
            .dir(&folder)
            .output()
            .await?;
        Ok(Self {
            root: der(&folder, "root")?,
            intermediate: Base64::encode_string(&der(&folder, "intermediate")?),
            certificates: serde_json::from_str(&printed)
                .map_err(Error::malformed("what certificates.js prints"))?,
            folder,
            node: node.node.clone(),
            scripts,
        })
    }

    /// How many devices there are.
    pub(super) fn devices(&self) -> u32 {
        u32::try_from(self.certificates.len()).unwrap_or(u32::MAX)
    }

    /// A pool that knows all of them, published.
    ///
    /// # Errors
    /// When a document cannot be made.
    pub(super) fn publish_pool(&self, fleet: &Fleet, number: u128) -> Result<FleetPool, Error> {
        let mut pool = fleet.pool(number)?;
        pool.document.trust_anchors =
            vec![PoolTrustAnchor { certificate: CertificateDer::new(self.root.clone()), replaces: None }];
        fleet.publish_pool(&pool)?;
        let anchor = TrustAnchor::from_der(self.root.clone()).map_err(Error::malformed("the root"))?;
        for device in 0..self.devices() {
            let id = device_id(device)?;
            let client_id = client_id(pool.id, &id)?;
            let subject = ClientSubject::Device(device_claims(id.clone())?);
            fleet.publish(&KvKey::Client(pool.id, client_id.clone()), &client(subject, "device", device)?)?;
            let document = DeviceDocument {
                status: ClientStatus::Enabled,
                clients: vec![client_id],
                // As of a device that has been here before, so that there is nothing to report.
                pins: Some(CertificatePins {
                    organization: Some(ORGANIZATION.to_owned()),
                    common_name: Some(id.as_str().to_owned()),
                    roots: vec![anchor.fingerprint()],
                }),
            };
            fleet.publish(&KvKey::Device(pool.id, id), &document)?;
        }
        Ok(pool)
    }

    /// Assertions of these devices, each good for one request within five minutes.
    ///
    /// # Errors
    /// When Node fails.
    pub(super) async fn sign(&self, audience: &str, devices: &[u32], now: i64) -> Result<Vec<String>, Error> {
        let mut orders = Vec::new();
        for number in devices {
            let certificate = self.certificates.get(*number as usize);
            orders.push(json!({"number": number, "device": device_id(*number)?, "certificate": certificate}));
        }
        let whole =
            json!({"intermediate": self.intermediate, "now": now, "audience": audience, "orders": orders});
        let path = self.folder.join("orders.json");
        fs::write(&path, whole.to_string()).map_err(Error::file("write", &path))?;
        let printed = Cmd::new("assertions.js", &self.node)
            .arg(self.scripts.join("assertions.js"))
            .args([self.folder.join(PRIMES), path])
            .output()
            .await?;
        serde_json::from_str(&printed).map_err(Error::malformed("what assertions.js prints"))
    }
}

fn der(folder: &Path, name: &str) -> Result<Vec<u8>, Error> {
    let path = folder.join(format!("{name}.pem"));
    let pem = fs::read_to_string(&path).map_err(Error::file("read", &path))?;
    let body: String = pem.lines().filter(|line| !line.starts_with("-----")).collect();
    Base64::decode_vec(&body).map_err(Error::malformed(format!("{name}.pem")))
}
