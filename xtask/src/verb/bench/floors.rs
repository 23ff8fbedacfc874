//! Floors: what each job of the Worker asks of workerd, asked in JavaScript and nothing else done (`bench/yardsticks/floor.js`).
//! Where a target is missed, this says how much of it is ours.

use serde_json::{Value, json};

use super::{
    devices::{NEVER_SEEN, SEEN},
    edge::{INTROSPECTION, TARGETS, TOKEN_HELD, TOKEN_READ},
    load::{self, Expected, FORM},
    measure::Measured,
    report::Row,
    yardsticks::{GRANT, TOKEN, by_secret},
};

const HELD: &str = "floor: pool and client in the isolate";
const READ: &str = "floor: client read from KV";
const CHAIN_SEEN: &str = "floor: chain seen before";
const CHAIN_NEVER_SEEN: &str = "floor: chain never seen";
const INTROSPECTED: &str = "floor: introspection";

/// Each floor, and the job that it is the floor of.
pub(super) const FLOORS: [(&str, &str); 5] = [
    (HELD, TOKEN_HELD),
    (READ, TOKEN_READ),
    (CHAIN_SEEN, SEEN),
    (CHAIN_NEVER_SEEN, NEVER_SEEN),
    (INTROSPECTED, INTROSPECTION),
];

/// A floor to measure.
pub(super) struct Floor {
    pub(super) job: &'static str,
    pub(super) folder: &'static str,
    /// What `floor.js` is to ask workerd for.
    pub(super) plan: Value,
    /// A request of the job's shape and length.
    pub(super) request: Vec<u8>,
    pub(super) expected: Expected,
}

/// About as long as an assertion with the chain of an RSA-2048 device under an RSA-4096 intermediate.
const ASSERTION: usize = 5_200;
/// About as long as a token.
const ACCESS_TOKEN: usize = 1_100;

/// The floors of the jobs that are held against a signature.
pub(super) fn all() -> Vec<Floor> {
    let by_secret = |body: &str| by_secret("/floor/oauth2/token", "bench-client", body);
    let assertion =
        load::post("/floor/oauth2/token", FORM, "", &format!("assertion={}", "x".repeat(ASSERTION)));
    let token = |job, folder, plan, request| Floor { job, folder, plan, request, expected: TOKEN };
    vec![
        token(HELD, "floor-held", json!({"signs": true}), by_secret(GRANT)),
        token(READ, "floor-read", json!({"signs": true, "kv": 1, "es256": 1}), by_secret(GRANT)),
        token(
            CHAIN_SEEN,
            "floor-seen",
            json!({"signs": true, "rsa2048Held": 1, "cache": 1}),
            assertion.clone(),
        ),
        token(
            CHAIN_NEVER_SEEN,
            "floor-never-seen",
            json!({"signs": true, "kv": 2, "es256": 2, "rsa2048": 1, "rsa4096Held": 1, "cache": 1}),
            assertion,
        ),
        Floor {
            job: INTROSPECTED,
            folder: "floor-introspection",
            plan: json!({"es256": 1}),
            request: by_secret(&format!("token={}", "x".repeat(ACCESS_TOKEN))),
            expected: Expected { status: 200, holds: "\"active\":true" },
        },
    ]
}

/// A row for each floor, held against what its job is held against.
pub(super) fn rows(measured: &[Measured]) -> Vec<Row> {
    let find = |job: &str| measured.iter().find(|measured| measured.job == job);
    FLOORS
        .iter()
        .filter_map(|(floor, job)| {
            let (_, yardstick, _) = TARGETS.iter().find(|(own, ..)| own == job)?;
            let (floor, yardstick) = (find(floor)?, find(yardstick)?);
            Some(Row::of(floor).beside(floor, yardstick))
        })
        .collect()
}
