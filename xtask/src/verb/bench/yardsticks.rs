//! The yardsticks: what others need for the same, in the same run. Their sources are in `bench/yardsticks`.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use base64ct::{Base64, Base64UrlUnpadded, Encoding as _};
use keypost_shared::{host::PrivateKey, secret::SecretHash};
use rand_core::OsRng;
use serde_json::{Value, json};
use tokio::net::TcpStream;

use super::{
    Wanted,
    fleet::SECRET,
    floors::{self, Floor},
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

/// How many clients yardstick (c) reads.
const CLIENTS: usize = 4_096;
/// What their names begin with; a number of seven digits follows.
const CLIENT_PREFIX: &str = "v1/client/yardstick/";
/// How long each is: about as long as one of Keypost's.
const RECORD: usize = 1_500;

/// What an answer with a token must be.
pub(super) const TOKEN: Expected = Expected { status: 200, holds: "\"access_token\":\"ey" };

/// The running yardsticks.
#[derive(Debug)]
pub(super) struct Yardsticks {
    workers: Vec<(Workerd, Asked)>,
    oidc_provider: Option<OidcProvider>,
    _kv: StandIn,
    _cache: StandIn,
}

/// What a yardstick is asked.
#[derive(Debug)]
struct Asked {
    job: &'static str,
    texts: Vec<Vec<u8>>,
    expected: Expected,
}

impl Yardsticks {
    /// Starts those that are wanted.
    ///
    /// # Errors
    /// When one does not start.
    pub(super) async fn start(
        repo: &Repo,
        workerds: &Workerds,
        node: &Node,
        xtask: &Path,
        state: &Path,
        wanted: &Wanted,
    ) -> Result<Self, Error> {
        let key = signing_key()?;
        let kv = Kv::default();
        for number in 0..CLIENTS {
            kv.put(client_name(number), "x".repeat(RECORD));
        }
        let (stand_in, cache) = (StandIn::kv(&kv).await?, StandIn::cache().await?);
        let mut workers = Vec::new();
        for (script, asked) in workers_of(repo, &key, &stand_in) {
            if wanted.wants(asked.job) {
                workers.push((workerds.start(&script).await?, asked));
            }
        }
        for floor in floors::all() {
            if wanted.wants_floor(floor.job) {
                let worker = workerds.start(&floor_script(repo, &key, &stand_in, &cache, &floor)).await?;
                // It makes its keys at its first request: one of 4,096 bits may take seconds.
                load::ask_once(&worker.address(), &floor.request, floor.expected).await?;
                let asked = Asked { job: floor.job, texts: vec![floor.request], expected: floor.expected };
                workers.push((worker, asked));
            }
        }
        let oidc_provider = if wanted.wants(OIDC_PROVIDER) {
            Some(OidcProvider::start(repo, node, xtask, state, &key).await?)
        } else {
            None
        };
        Ok(Self { workers, oidc_provider, _kv: stand_in, _cache: cache })
    }

    /// What is measured of them.
    pub(super) fn subjects(&self) -> Vec<Subject> {
        let mut subjects = Vec::new();
        for (worker, Asked { job, texts, expected }) in &self.workers {
            let requests = Requests::of(worker.address(), texts.clone(), *expected);
            subjects.push(Subject::same(job, worker.pid(), requests));
        }
        if let Some(node) = &self.oidc_provider {
            let texts = vec![by_secret("/token", CLIENT, GRANT)];
            let requests = Requests::of(node.address(), texts, TOKEN);
            subjects.push(Subject::same(OIDC_PROVIDER, node.process.pid(), requests));
        }
        subjects
    }
}

/// The yardsticks that are Workers, and what each is asked.
fn workers_of(repo: &Repo, key: &Value, kv: &StandIn) -> Vec<(Script, Asked)> {
    let hash = Base64UrlUnpadded::encode_string(SecretHash::of(SECRET.as_bytes()).as_bytes());
    let clients = json!({CLIENT: {"sha256": hash, "scope": "device", "device": "pos-0000001"}});
    let signs = |name, file| Script {
        name,
        modules: modules(repo, &[file, "jwt.js"]),
        vars: vec![("SIGNING_KEY", key.to_string()), ("CLIENTS", clients.to_string())],
        kv: None,
        cache: None,
    };
    let read = (0..CLIENTS).map(|number| load::post(&format!("/{}", client_name(number)), FORM, "", GRANT));
    let constant_answer = Expected { status: 200, holds: "\"ok\"" };
    vec![
        (constant(repo), Asked { job: CONSTANT, texts: vec![load::get("/")], expected: constant_answer }),
        (
            signs("sign", "sign.js"),
            Asked { job: SIGN, texts: vec![load::post("/", FORM, "", GRANT)], expected: TOKEN },
        ),
        (
            Script { kv: Some(kv.address.clone()), ..signs("sign-with-kv", "sign-with-kv.js") },
            Asked { job: SIGN_WITH_KV, texts: read.collect(), expected: TOKEN },
        ),
        (
            signs("token-endpoint", "token-endpoint.js"),
            Asked {
                job: TOKEN_ENDPOINT,
                texts: vec![by_secret("/oauth2/token", CLIENT, GRANT)],
                expected: TOKEN,
            },
        ),
    ]
}

fn floor_script(repo: &Repo, key: &Value, kv: &StandIn, cache: &StandIn, floor: &Floor) -> Script {
    Script {
        name: floor.folder,
        modules: modules(repo, &["floor.js", "jwt.js"]),
        vars: vec![
            ("SIGNING_KEY", key.to_string()),
            ("PLAN", floor.plan.to_string()),
            ("RECORD_PREFIX", CLIENT_PREFIX.to_owned()),
            ("RECORDS", CLIENTS.to_string()),
        ],
        kv: Some(kv.address.clone()),
        cache: Some(cache.address.clone()),
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
    format!("{CLIENT_PREFIX}{number:07}")
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
    async fn start(repo: &Repo, node: &Node, xtask: &Path, state: &Path, key: &Value) -> Result<Self, Error> {
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
