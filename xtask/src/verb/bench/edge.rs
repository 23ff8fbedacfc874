//! What the Worker is measured at, and what it must not exceed.

use keypost_shared::{id::ClientId, kv_key::KvKey};

use super::{
    Wanted,
    devices::{NEVER_SEEN, SEEN},
    fleet::{Fleet, FleetPool},
    kv::StandIn,
    lists,
    load::{self, Expected, Requests},
    measure::{Measured, Subject},
    report::Row,
    workerd::{Script, Workerd, Workerds},
    yardsticks::{CONSTANT, GRANT, OIDC_PROVIDER, SIGN, SIGN_WITH_KV, TOKEN, by_secret},
};
use crate::{Error, setup::worker::WorkerBuild};

pub(super) const TOKEN_HELD: &str = "client_credentials, pool and client in the isolate";
pub(super) const TOKEN_READ: &str = "client_credentials, client read from KV";
const JWKS: &str = "JWKS";
const METADATA: &str = "metadata";
const STATUS_LIST: &str = "status list";
pub(super) const INTROSPECTION: &str = "introspection";

/// How many clients are asked for in turn so that each one must be read: more than the isolate holds (16 MiB of records).
const MORE_THAN_HELD: u32 = 16_000;

/// How many clients are asked for in turn so that all of them are held.
const HELD: u32 = 100;

/// The Worker with what it reads.
#[derive(Debug)]
pub(super) struct Edge {
    worker: Workerd,
    script: Script,
    pool: FleetPool,
    held: Vec<ClientId>,
    read: Vec<ClientId>,
    /// What making its status lists took.
    pub(super) lists: Row,
    resource_server: ClientId,
    /// A token of each of the held clients.
    tokens: Vec<String>,
    _kv: StandIn,
    _cache: StandIn,
}

/// The Worker's modules and variables.
fn script(build: &WorkerBuild, fleet: &Fleet, kv: &StandIn, cache: &StandIn) -> Script {
    Script {
        name: "keypost",
        modules: vec![build.folder.join("index.js"), build.folder.join("index_bg.wasm")],
        vars: fleet.variables(),
        kv: Some(kv.address.clone()),
        cache: Some(cache.address.clone()),
    }
}

impl Edge {
    /// Publishes a fleet and starts the Worker.
    ///
    /// # Errors
    /// When a document cannot be made, or the Worker does not start.
    pub(super) async fn start(
        workerds: &Workerds,
        build: &WorkerBuild,
        fleet: &Fleet,
        wanted: &Wanted,
    ) -> Result<Self, Error> {
        let pool = fleet.pool(1)?;
        fleet.publish_pool(&pool)?;
        let (lists, first_list) = lists::make(fleet, &pool)?;
        fleet.kv.put(KvKey::Status(pool.id, 0).to_string(), first_list);
        let held = fleet.publish_clients(&pool, 0..HELD)?;
        let read = if wanted.wants(TOKEN_READ) { MORE_THAN_HELD } else { 0 };
        let read = fleet.publish_clients(&pool, HELD..HELD + read)?;
        let resource_server = fleet.publish_service(&pool, "introspect", HELD + MORE_THAN_HELD)?;
        let (kv, cache) = (StandIn::kv(&fleet.kv).await?, StandIn::cache().await?);
        let script = script(build, fleet, &kv, &cache);
        let worker = workerds.start(&script).await?;
        let mut tokens = Vec::new();
        for client in &held {
            let request = by_secret(&format!("/{}/oauth2/token", pool.id), client.as_str(), GRANT);
            tokens.push(access_token(&load::ask_once(&worker.address(), &request, TOKEN).await?)?);
        }
        Ok(Self { worker, script, pool, held, read, lists, resource_server, tokens, _kv: kv, _cache: cache })
    }

    /// What is measured of it.
    pub(super) fn subjects(&self) -> Vec<Subject> {
        let tokens = |clients: &[ClientId]| {
            let path = format!("/{}/oauth2/token", self.pool.id);
            clients.iter().map(|client| by_secret(&path, client.as_str(), GRANT)).collect()
        };
        let of_pool = |path: &str| vec![load::get(&format!("/{}/{path}", self.pool.id))];
        let introspect = format!("/{}/oauth2/introspect", self.pool.id);
        let resource_server = self.resource_server.as_str();
        let asked = self
            .tokens
            .iter()
            .map(|token| by_secret(&introspect, resource_server, &format!("token={token}")));
        let holding = |holds| Expected { status: 200, holds };
        vec![
            self.subject(TOKEN_HELD, tokens(&self.held), TOKEN),
            self.subject(TOKEN_READ, tokens(&self.read), TOKEN),
            self.subject(JWKS, of_pool(".well-known/jwks.json"), holding("\"kty\":\"EC\"")),
            self.subject(
                METADATA,
                of_pool(".well-known/openid-configuration"),
                holding("\"token_endpoint\""),
            ),
            self.subject(STATUS_LIST, of_pool("status/0"), holding("eyJ")),
            self.subject(INTROSPECTION, asked.collect(), holding("\"active\":true")),
        ]
    }

    /// A Worker with the same KV, to be started anew, and a token request for it.
    pub(super) fn cold(&self) -> (&Script, Vec<u8>) {
        let client = self.held.first().map(ClientId::as_str).unwrap_or_default();
        (&self.script, by_secret(&format!("/{}/oauth2/token", self.pool.id), client, GRANT))
    }

    fn subject(&self, job: &'static str, texts: Vec<Vec<u8>>, expected: Expected) -> Subject {
        Subject::same(job, self.pid(), Requests::of(self.address(), texts, expected))
    }

    /// Where the Worker answers.
    pub(super) fn address(&self) -> String {
        self.worker.address()
    }

    /// The number of its process.
    pub(super) fn pid(&self) -> u32 {
        self.worker.pid()
    }
}

fn access_token(body: &str) -> Result<String, Error> {
    #[derive(serde::Deserialize)]
    struct Answer {
        access_token: String,
    }
    let answer: Answer = serde_json::from_str(body).map_err(Error::malformed("a token response"))?;
    Ok(answer.access_token)
}

/// The jobs of the Worker that runs all the time.
pub(super) const JOBS: [&str; 6] = [TOKEN_HELD, TOKEN_READ, JWKS, METADATA, STATUS_LIST, INTROSPECTION];

/// Which yardstick each job is held against, and what the ratio may be.
pub(super) const TARGETS: [(&str, &str, f64); 9] = [
    (TOKEN_HELD, SIGN, 1.25),
    (TOKEN_HELD, OIDC_PROVIDER, 1.0),
    (TOKEN_READ, SIGN_WITH_KV, 1.25),
    (SEEN, SIGN, 2.0),
    (NEVER_SEEN, SIGN, 5.0),
    (JWKS, CONSTANT, 1.25),
    (METADATA, CONSTANT, 1.25),
    (STATUS_LIST, CONSTANT, 1.25),
    (INTROSPECTION, SIGN, 2.0),
];

/// A row for each target whose job and yardstick have been measured.
pub(super) fn rows(measured: &[Measured]) -> Vec<Row> {
    let find = |job: &str| measured.iter().find(|measured| measured.job == job);
    TARGETS
        .iter()
        .filter_map(|(job, yardstick, most)| {
            let (own, yardstick) = (find(job)?, find(yardstick)?);
            Some(Row::of(own).against(own, yardstick, *most))
        })
        .collect()
}
