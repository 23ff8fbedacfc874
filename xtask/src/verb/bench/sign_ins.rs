//! A storm of sign-ins: how many a second beside the bare rate of hashes on the same cores, and how long others wait.

use std::{
    sync::atomic::{AtomicUsize, Ordering},
    thread,
    time::{Duration, Instant},
};

use argon2::{Algorithm, Argon2, Block, Params, Version};
use serde_json::{Value, json};

use super::{
    control_plane::{post, text},
    load::{self, Expected, Load, Requests},
    measure::{Pace, median},
    report::Row,
    usage,
};
use crate::Error;

pub(super) const STORM: &str = "sign-ins, 64 at a time";
pub(super) const HASHES: &str = "bare argon2id hashes, all cores";
pub(super) const OTHERS: &str = "others during the sign-ins";

/// All of its jobs.
pub(super) const JOBS: [&str; 3] = [STORM, HASHES, OTHERS];

/// How many sign in at a time.
const AT_A_TIME: usize = 64;
const PEOPLE: usize = 8;
const PASSWORD: &str = "correct horse battery staple";
/// The control plane's own settings where nobody has set others: KiB of memory, and iterations.
const COST: (u32, u32) = (19_456, 2);
/// A storm needs longer than other jobs: at its end everybody waits for their turn once more.
const LONGER: u32 = 3;

/// Measures it.
///
/// # Errors
/// When a person cannot be made, or something gives a wrong answer.
pub(super) async fn rows(
    http: &reqwest::Client,
    address: &str,
    pid: u32,
    pace: Pace,
) -> Result<[Row; 3], Error> {
    let app_key = people(http, address).await?;
    let key = format!("apikey: {app_key}\r\n");
    let sign_in = |number: usize| {
        let body = json!({"username": format!("user{number}"), "password": PASSWORD}).to_string();
        load::post("/api/auth/login", "application/json", &key, &body)
    };
    let done = Expected { status: 200, holds: "\"success\":true" };
    let sign_ins = Requests::of(address.to_owned(), (0..PEOPLE).map(sign_in).collect(), done);
    let validate = format!("GET /api/auth/validate HTTP/1.1\r\nhost: 127.0.0.1\r\n{key}\r\n").into_bytes();
    let others = Requests::of(address.to_owned(), vec![validate], done);

    let run = pace.run * LONGER;
    let (mut bare, mut storms, mut waits, mut ratios, mut cpu) = (vec![], vec![], vec![], vec![], vec![]);
    load::run(&sign_ins, AT_A_TIME, pace.warm_up).await?;
    for _ in 0..pace.rounds.min(5) {
        let hashes = tokio::task::spawn_blocking(move || hashes_per_second(run)).await;
        let hashes = hashes.map_err(|error| Error::Refused(format!("hashing was broken off: {error}")))??;
        let before = usage::cpu_time(pid)?;
        let (storm, other) = tokio::join!(load::run(&sign_ins, AT_A_TIME, run), now_and_then(&others, run));
        let storm = storm?;
        cpu.push((usage::cpu_time(pid)? - before).as_secs_f64() * 1e6 / storm.requests as f64);
        ratios.push(storm.requests_per_second() / hashes);
        bare.push(hashes);
        storms.push(storm);
        waits.push(other?);
    }
    let of = |loads: &[Load], figure: &dyn Fn(&Load) -> f64| median(loads.iter().map(figure).collect());
    let rate = |rate: f64| Some((rate * 10.0).round() / 10.0);
    let yardstick = Row { job: HASHES.to_owned(), requests_per_second: rate(median(bare)), ..Row::default() };
    let storm = Row {
        job: STORM.to_owned(),
        requests_per_second: rate(of(&storms, &Load::requests_per_second)),
        cpu_us_per_request: Some(median(cpu).round()),
        ratio_to: Some(HASHES.to_owned()),
        ..Row::default()
    };
    let storm = storm
        .latencies(
            of(&storms, &|load| load.percentile_ms(0.5)),
            of(&storms, &|load| load.percentile_ms(0.99)),
        )
        .judge_least(median(ratios), 0.9);
    let others = Row { job: OTHERS.to_owned(), ..Row::default() }
        .latencies(of(&waits, &|load| load.percentile_ms(0.5)), of(&waits, &|load| load.percentile_ms(0.99)));
    Ok([yardstick, storm, others])
}

/// An organization with a client app and people: the app's key.
async fn people(http: &reqwest::Client, address: &str) -> Result<String, Error> {
    let post = async |path: &str, header: (&str, &str), body: Value| {
        post(http, &format!("http://{address}{path}"), header, &body).await
    };
    let owner = json!({
        "username": "owner", "password": PASSWORD, "email": "owner@bench.example",
        "firstName": "Bench", "lastName": "Owner", "organizationName": "Bench people",
    });
    let owner = post("/api/auth/signup", ("accept", "application/json"), owner).await?;
    let token = text(&owner, "/data/accessToken")?;
    let org = text(&owner, "/data/userClaims/organizationId")?;
    let apps = format!("/api/organization/{org}/client-apps");
    let app =
        post(&apps, ("authorization", &format!("Bearer {token}")), json!({"name": "Bench app"})).await?;
    let key = text(&app, "/data/clientAppApiKey")?;
    for number in 0..PEOPLE {
        let user = json!({
            "username": format!("user{number}"), "password": PASSWORD,
            "email": format!("user{number}@bench.example"),
        });
        post("/api/auth/signup", ("apikey", &key), user).await?;
    }
    Ok(key)
}

/// Asks once every 10 ms, for this long.
async fn now_and_then(requests: &Requests, duration: Duration) -> Result<Load, Error> {
    let started = Instant::now();
    let mut latencies = Vec::new();
    while started.elapsed() < duration {
        let one = Requests { once: true, next: Default::default(), ..requests.clone() };
        latencies.extend(load::run(&one, 1, duration).await?.latencies);
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    latencies.sort_unstable();
    Ok(Load { requests: latencies.len(), took: started.elapsed(), latencies })
}

/// Hashes a second on all cores, as the control plane makes them, with nothing else to do.
fn hashes_per_second(duration: Duration) -> Result<f64, Error> {
    let failed = |error| Error::Refused(format!("argon2 failed: {error}"));
    let params = Params::new(COST.0, COST.1, 1, Some(32)).map_err(failed)?;
    let hashes = AtomicUsize::new(0);
    let cores = thread::available_parallelism().map_or(1, usize::from);
    let began = Instant::now();
    thread::scope(|scope| {
        let hash = || {
            let mut blocks = vec![Block::new(); params.block_count()];
            let argon2 = Argon2::new(Algorithm::Argon2id, Version::V0x13, params.clone());
            let mut output = [0; 32];
            while began.elapsed() < duration {
                let (password, salt) = (PASSWORD.as_bytes(), &[7; 16]);
                argon2.hash_password_into_with_memory(password, salt, &mut output, &mut blocks)?;
                hashes.fetch_add(1, Ordering::Relaxed);
            }
            Ok(())
        };
        let threads: Vec<_> = (0..cores).map(|_| scope.spawn(hash)).collect();
        threads.into_iter().try_for_each(|thread| thread.join().unwrap_or(Ok(())).map_err(failed))
    })?;
    Ok(hashes.into_inner() as f64 / began.elapsed().as_secs_f64())
}
