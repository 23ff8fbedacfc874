//! The yardsticks: what others need for the same, in the same run. Their sources are in `bench/yardsticks`.

use std::{path::PathBuf, sync::Arc, time::Duration};

use base64ct::{Base64, Base64UrlUnpadded, Encoding as _};
use keypost_shared::{host::PrivateKey, secret::SecretHash};
use rand_core::OsRng;
use serde_json::{Value, json};
use tokio::net::TcpStream;

use super::{
    fleet::SECRET,
    kv::{Kv, StandIn},
    load::{self, Expected, FORM, Requests},
    measure::Subject,
    workerd::{Script, Workerd, Workerds},
};
use crate::{
    Error,
    command::{Cmd, need_program},
    files::{self, Fingerprint},
    progress::Step,
    repo::Repo,
    setup::node::Node,
    stack::{
        port::Port,
        process::{Process, Spec},
    },
};

/// The yardsticks' names.
pub(super) const CONSTANT: &str = "(a) JavaScript, a constant";
pub(super) const SIGN: &str = "(b) JavaScript, signs a JWT";
pub(super) const SIGN_WITH_KV: &str = "(c) JavaScript, signs a JWT after a KV read";
pub(super) const OIDC_PROVIDER: &str = "(d) oidc-provider in Node";
pub(super) const TOKEN_ENDPOINT: &str = "(e) JavaScript, a token endpoint";

const CLIENT: &str = "bench-client";

/// How many clients yardstick (c) reads, each as long as one of Keypost's.
const CLIENTS: usize = 4_096;

/// What an answer with a token must be.
pub(super) const TOKEN: Expected = Expected { status: 200, holds: "\"access_token\":\"ey" };

/// The running yardsticks.
#[derive(Debug)]
pub(super) struct Yardsticks {
    constant: Workerd,
    sign: Workerd,
    sign_with_kv: Workerd,
    token_endpoint: Workerd,
    oidc_provider: OidcProvider,
    _kv: StandIn,
}

impl Yardsticks {
    /// Starts all of them.
    ///
    /// # Errors
    /// When one does not start.
    pub(super) async fn start(
        repo: &Repo,
        workerds: &Workerds,
        node: &Node,
        xtask: &std::path::Path,
        state: &std::path::Path,
    ) -> Result<Self, Error> {
        let key = signing_key()?;
        let kv = Kv::default();
        for number in 0..CLIENTS {
            kv.put(client_name(number), "x".repeat(1_300));
        }
        let stand_in = StandIn::kv(&kv).await?;
        let hash = SecretHash::of(SECRET.as_bytes());
        let hash = Base64UrlUnpadded::encode_string(hash.as_bytes());
        let clients = json!({CLIENT: {"sha256": hash, "scope": "device", "device": "pos-0000001"}});
        let signs = |name, file, more: Vec<(&'static str, String)>, kv: Option<String>| Script {
            name,
            modules: modules(repo, &[file, "jwt.js"]),
            vars: [("SIGNING_KEY", key.to_string())].into_iter().chain(more).collect(),
            kv,
            cache: None,
        };
        let constant = workerds.start(&constant(repo)).await?;
        let sign = workerds.start(&signs("sign", "sign.js", vec![], None)).await?;
        let with_kv = signs("sign-with-kv", "sign-with-kv.js", vec![], Some(stand_in.address.clone()));
        let sign_with_kv = workerds.start(&with_kv).await?;
        let endpoint =
            signs("token-endpoint", "token-endpoint.js", vec![("CLIENTS", clients.to_string())], None);
        let token_endpoint = workerds.start(&endpoint).await?;
        let oidc_provider = OidcProvider::start(repo, node, xtask, state, &key).await?;
        Ok(Self { constant, sign, sign_with_kv, token_endpoint, oidc_provider, _kv: stand_in })
    }

    /// What is measured of them.
    pub(super) fn subjects(&self) -> Vec<Subject> {
        let same = |job, pid, address, texts, expected| {
            let requests = Requests { address, texts: Arc::new(texts), once: false, expected };
            Subject { job, pid, requests }
        };
        let workerd = |job, worker: &Workerd, texts, expected| {
            same(job, worker.pid(), worker.address(), texts, expected)
        };
        let constant = Expected { status: 200, holds: "\"ok\"" };
        let read =
            (0..CLIENTS).map(|number| load::post(&format!("/{}", client_name(number)), FORM, "", GRANT));
        vec![
            workerd(CONSTANT, &self.constant, vec![load::get("/")], constant),
            workerd(SIGN, &self.sign, vec![load::post("/", FORM, "", GRANT)], TOKEN),
            workerd(SIGN_WITH_KV, &self.sign_with_kv, read.collect(), TOKEN),
            same(
                OIDC_PROVIDER,
                self.oidc_provider.process.pid(),
                self.oidc_provider.address(),
                vec![by_secret("/token", CLIENT, GRANT)],
                TOKEN,
            ),
            workerd(
                TOKEN_ENDPOINT,
                &self.token_endpoint,
                vec![by_secret("/oauth2/token", CLIENT, GRANT)],
                TOKEN,
            ),
        ]
    }
}

/// Yardstick (a).
pub(super) fn constant(repo: &Repo) -> Script {
    Script { name: "constant", modules: modules(repo, &["constant.js"]), vars: vec![], kv: None, cache: None }
}

/// A token request's body.
pub(super) const GRANT: &str = "grant_type=client_credentials";

/// A request of a client with `client_secret_basic`.
pub(super) fn by_secret(path: &str, client: &str, body: &str) -> Vec<u8> {
    let credentials = Base64::encode_string(format!("{client}:{SECRET}").as_bytes());
    load::post(path, FORM, &format!("authorization: Basic {credentials}\r\n"), body)
}

fn client_name(number: usize) -> String {
    format!("v1/client/yardstick/{number:07}")
}

fn modules(repo: &Repo, files: &[&str]) -> Vec<PathBuf> {
    files.iter().map(|file| repo.path("bench/yardsticks").join(file)).collect()
}

/// A new private key as a JWK.
fn signing_key() -> Result<Value, Error> {
    let key = PrivateKey::generate(&mut OsRng);
    let mut jwk = serde_json::to_value(key.public()).map_err(Error::malformed("a key"))?;
    if let Some(members) = jwk.as_object_mut() {
        members.insert("d".to_owned(), json!(Base64UrlUnpadded::encode_string(&*key.to_bytes())));
    }
    Ok(jwk)
}

/// Yardstick (d).
#[derive(Debug)]
struct OidcProvider {
    process: Process,
    port: Port,
}

impl OidcProvider {
    async fn start(
        repo: &Repo,
        node: &Node,
        xtask: &std::path::Path,
        state: &std::path::Path,
        key: &Value,
    ) -> Result<Self, Error> {
        install(repo).await?;
        let port = Port::free(None)?;
        let mut spec = Spec::new("oidc-provider", &node.node, state.join("oidc-provider.log"))
            .args([repo.path("bench/yardsticks/oidc-provider.js")])
            .envs([
                ("PORT", port.number().to_string()),
                ("SIGNING_KEY", key.to_string()),
                ("CLIENT_ID", CLIENT.to_owned()),
                ("CLIENT_SECRET", SECRET.to_owned()),
                ("NODE_ENV", "production".to_owned()),
            ]);
        spec.grace = Duration::from_secs(2);
        let process = Process::start(xtask, spec)?;
        let mut started = Self { process, port };
        let address = started.address();
        let listens =
            || async { TcpStream::connect(&address).await.map(drop).map_err(|error| error.to_string()) };
        started.process.until_up(Duration::from_secs(30), listens).await?;
        Ok(started)
    }

    fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port.number())
    }
}

/// The packages of `bench/package-lock.json`.
async fn install(repo: &Repo) -> Result<(), Error> {
    let folder = repo.path("bench");
    let stamp = folder.join("node_modules/.keypost-stamp");
    let mut wanted = Fingerprint::default();
    for file in ["package.json", "package-lock.json"] {
        wanted.file(&folder.join(file))?;
    }
    let wanted = wanted.finish();
    if files::read_if_there(&stamp)?.as_deref() == Some(wanted.as_str()) {
        return Ok(());
    }
    let npm = need_program("npm", "install Node.js with npm")?;
    let step = Step::quiet("npm packages of the bench (oidc-provider)");
    Cmd::new("npm ci", npm).args(["ci", "--loglevel=error"]).dir(&folder).run().await?;
    files::write_private(&stamp, wanted.as_bytes())?;
    step.done();
    Ok(())
}
