//! Devices with certificates: an RSA-4096 root and intermediate and RSA-2048 devices, made by this machine's openssl, and
//! the assertions that they sign. All devices have one key, because making keys takes long and nobody looks at it.

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

/// A root, an intermediate, and devices.
#[derive(Debug)]
pub(super) struct Chains {
    folder: PathBuf,
    node: PathBuf,
    script: PathBuf,
    root: Vec<u8>,
    /// The `x5c` of each device: its certificate, then the intermediate.
    x5c: Vec<[String; 2]>,
}

/// A device in a pool, of which an assertion is wanted.
#[derive(Clone, Debug)]
pub(super) struct Order {
    pub(super) device: u32,
    pub(super) issuer: String,
}

impl Chains {
    /// Makes them.
    ///
    /// # Errors
    /// When openssl is missing or fails.
    pub(super) async fn make(
        folder: PathBuf,
        node: &Node,
        script: PathBuf,
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
        let (root, intermediate) = (der(&folder, "root")?, der(&folder, "intermediate")?);
        let mut x5c = Vec::new();
        for device in 0..devices {
            let subject = format!("/O={ORGANIZATION}/CN={}", device_id(device)?);
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
                &(device + 3).to_string(),
                "-days",
                "30",
                "-sha256",
                "-out",
                "device.pem",
            ])
            .await?;
            x5c.push([der(&folder, "device")?, intermediate.clone()].map(|der| Base64::encode_string(&der)));
        }
        Ok(Self { folder, node: node.node.clone(), script, root, x5c })
    }

    /// How many devices there are.
    pub(super) fn devices(&self) -> u32 {
        u32::try_from(self.x5c.len()).unwrap_or(u32::MAX)
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

    /// Assertions, each good for one request within five minutes.
    ///
    /// # Errors
    /// When Node fails.
    pub(super) async fn sign(&self, orders: &[Order], now: i64) -> Result<Vec<String>, Error> {
        let mut asked = Vec::new();
        for Order { device, issuer } in orders {
            asked.push(json!({"chain": device, "device": device_id(*device)?, "audience": issuer}));
        }
        let path = self.folder.join("orders.json");
        let whole = json!({"chains": self.x5c, "now": now, "orders": asked});
        fs::write(&path, whole.to_string()).map_err(Error::file("write", &path))?;
        let printed = Cmd::new("assertions.js", &self.node)
            .arg(&self.script)
            .arg(self.folder.join("device.key"))
            .arg(&path)
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
