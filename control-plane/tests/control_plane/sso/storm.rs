//! What a storm of sign-ins does to the machine. Not a test that can fail by a busy machine: it measures, and prints what
//! ARCHITECTURE.md tells.
//!
//!     cargo test -p keypost --test control_plane -- --ignored --nocapture a_storm_of_sign_ins

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use argon2::{Algorithm, Argon2, Block, Params, Version};
use futures_util::future::join_all;
use keypost::service::sso::password::{Password, PasswordCost, Passwords};

use crate::support::TestApp;
use crate::support::sso::{ClientApp, PASSWORD, SsoRequest};

/// How long each of the runs takes.
const RUN: Duration = Duration::from_secs(8);
/// How many people sign in at once.
const PEOPLE: usize = 64;

fn cores() -> usize {
    thread::available_parallelism().unwrap().get()
}

/// Hashes a second, on all cores, with nothing else to do.
fn bare_rate() -> f64 {
    let cost = PasswordCost::default();
    let hashes = AtomicU32::new(0);
    let began = Instant::now();
    thread::scope(|scope| {
        for _ in 0..cores() {
            scope.spawn(|| {
                let params = Params::new(cost.memory_kib(), cost.iterations(), 1, Some(32)).unwrap();
                let mut blocks = vec![Block::new(); params.block_count()];
                let argon2 = Argon2::new(Algorithm::Argon2id, Version::V0x13, params);
                let mut output = [0; 32];
                while began.elapsed() < RUN {
                    argon2
                        .hash_password_into_with_memory(
                            PASSWORD.as_bytes(),
                            &[7; 16],
                            &mut output,
                            &mut blocks,
                        )
                        .unwrap();
                    hashes.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
    });
    f64::from(hashes.into_inner()) / began.elapsed().as_secs_f64()
}

/// Hashes a second through the queue of passwords, for as many people, with nothing else to do.
async fn queued_rate(passwords: &Passwords) -> f64 {
    let began = Instant::now();
    let people = (0..PEOPLE).map(|_| {
        let passwords = passwords.clone();
        tokio::spawn(async move {
            let mut done = 0_u32;
            while began.elapsed() < RUN {
                passwords.verify(Password::typed(PASSWORD), None).await.unwrap();
                done += 1;
            }
            done
        })
    });
    let people: Vec<_> = people.collect();
    let done: u32 = join_all(people).await.into_iter().map(Result::unwrap).sum();
    f64::from(done) / began.elapsed().as_secs_f64()
}

/// Sign-ins a second while everybody tries again as soon as they are in, and how long others waited meanwhile.
async fn storm(app: &Arc<TestApp>, till: &ClientApp, people: usize) -> (f64, Vec<Duration>) {
    let over = Arc::new(AtomicBool::new(false));
    let began = Instant::now();
    let users = (0..people).map(|n| {
        let (app, till, over) = (app.clone(), till.clone(), over.clone());
        tokio::spawn(async move {
            let mut done = 0_u32;
            while !over.load(Ordering::Relaxed) {
                app.log_in(&till, &format!("user{}", n % 8), PASSWORD).await.data(200);
                done += 1;
            }
            done
        })
    });
    let users: Vec<_> = users.collect();
    let others = {
        let (app, till, over) = (app.clone(), till.clone(), over.clone());
        tokio::spawn(async move {
            let mut waits = Vec::new();
            while !over.load(Ordering::Relaxed) {
                let asked = Instant::now();
                app.sso(SsoRequest::get("/api/auth/validate").key(&till.key)).await.data(200);
                waits.push(asked.elapsed());
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
            waits
        })
    };
    tokio::time::sleep(RUN).await;
    over.store(true, Ordering::Relaxed);
    let done: u32 = join_all(users).await.into_iter().map(Result::unwrap).sum();
    let took = began.elapsed().as_secs_f64();
    (f64::from(done) / took, others.await.unwrap())
}

fn percentile(waits: &mut [Duration], percent: usize) -> Duration {
    waits.sort_unstable();
    waits[(waits.len() - 1) * percent / 100]
}

fn resident_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "a measurement, which takes a minute and a machine of its own"]
async fn a_storm_of_sign_ins_costs_hashes_and_little_else() {
    let app = TestApp::start_changed(|context| {
        context.passwords = Passwords::new(PasswordCost::default(), context.metrics.clone());
    })
    .await;
    let app = Arc::new(app);
    let owner = app.owner("ada").await;
    let till = app.client_app(&owner, "Till").await;
    for n in 0..8 {
        app.app_user(&till, &format!("user{n}")).await;
    }
    let before = resident_kib();
    for _ in 0..3 {
        let bare = tokio::task::spawn_blocking(bare_rate).await.unwrap();
        let queued = queued_rate(&app.context.passwords).await;
        let (_, mut calm) = storm(&app, &till, 0).await;
        let (rate, mut waits) = storm(&app, &till, PEOPLE).await;
        println!(
            "{} cores: {bare:.1} hashes a second bare, {queued:.1} through the queue ({:.0} %), {rate:.1} sign-ins a second ({:.0} %); others: p50 {:?}, p99 {:?} \
             (without the storm {:?}, {:?}); {} MiB more memory",
            cores(),
            100.0 * queued / bare,
            100.0 * rate / bare,
            percentile(&mut waits, 50),
            percentile(&mut waits, 99),
            percentile(&mut calm, 50),
            percentile(&mut calm, 99),
            resident_kib().saturating_sub(before) / 1024,
        );
    }
}
