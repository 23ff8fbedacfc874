//! The publisher against a KV that fails in every way in which Cloudflare's may, against its own death, and that of the
//! database: what was accepted reaches KV, and no older document takes the place of a newer one (design §2, promise 4).

use std::time::Duration;

use keypost_tests::admin::Fleet;
use keypost_tests::load::Load;
use keypost_tests::lone_control_plane::LoneControlPlane;
use keypost_tests::stack::is_long;
use keypost_tests::wait;
use kv_stand_in::Fault;
use rand_core::{OsRng, RngCore};
use serde_json::json;

/// Makes a fleet of so many devices, each with an app.
async fn fleet(plane: &LoneControlPlane, name: &str, count: usize) -> (Fleet, Vec<String>) {
    let fleet = plane.admin(0).fleet(name).await;
    let devices: Vec<String> = (0..count).map(|number| format!("pos-{number}")).collect();
    for device in &devices {
        fleet.device(device).await;
    }
    plane.settled("before").await;
    (fleet, devices)
}

async fn change_all(fleet: &Fleet, devices: &[String], n: usize) {
    for device in devices {
        fleet.admin.patch(&format!("{}/device/{device}", fleet.path), json!({"metadata": {"n": n}})).await;
    }
}

/// Lets each of these happen to up to three calls in a row, with changes before and after.
async fn overcome(name: &str, cases: impl IntoIterator<Item = Fault>) {
    let plane = LoneControlPlane::start(name, 1).await;
    let (fleet, devices) = fleet(&plane, name, 5).await;
    for (n, fault) in cases.into_iter().enumerate() {
        let what = format!("{fault:?}");
        plane.kv.fail_next(vec![fault; 3]);
        change_all(&fleet, &devices, 2 * n).await;
        wait::until(&what, Duration::from_secs(90), || async {
            let left = plane.kv.faults_left();
            if left < 3 { Ok(()) } else { Err(format!("{left} faults left")) }
        })
        .await;
        change_all(&fleet, &devices, 2 * n + 1).await;
        plane.kv.recover();
        plane.settled(&what).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn refusals_and_partial_failures_of_kv_are_overcome() {
    overcome(
        "kv-refusals",
        [
            Fault::RateLimited(Some(1)),
            Fault::RateLimited(None),
            Fault::Status(400),
            Fault::Status(403),
            Fault::NoSuccess,
            Fault::Unsuccessful("pos-".to_owned()),
            Fault::Unsuccessful("v1/".to_owned()),
        ],
    )
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn errors_and_resets_of_kv_are_overcome() {
    overcome(
        "kv-errors",
        [Fault::Status(500), Fault::ResetBefore, Fault::ResetAfter, Fault::CarriedOutThen(502)],
    )
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lost_answers_and_stalls_of_kv_are_overcome() {
    overcome("kv-stalls", [Fault::CarriedOutThenHang, Fault::Stall(500), Fault::Stall(3_500)]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn stalls_of_thirty_seconds_are_overcome_with_the_times_of_a_real_deployment() {
    if !is_long() {
        return;
    }
    let mut plane = LoneControlPlane::start("kv-long-stalls", 1).await;
    plane.stop_all();
    plane.set("KEYPOST_KV_TIMEOUT_SECONDS", "20");
    plane.start_all().await;
    let (fleet, devices) = fleet(&plane, "kv-long-stalls", 5).await;
    plane.kv.fail_next([Fault::Stall(30_000), Fault::Stall(30_000)]);
    change_all(&fleet, &devices, 1).await;
    plane.settled_within("stalls of 30 s", Duration::from_secs(400)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_a_hundred_times_at_random_points_it_loses_nothing() {
    let mut plane = LoneControlPlane::start("kill-nine-hundred", 1).await;
    let (fleet, devices) = fleet(&plane, "kill-nine-hundred", 6).await;
    let load = Load::start(vec![plane.admin(0)], &fleet, &devices);
    for round in 0..if is_long() { 500 } else { 100 } {
        // Every other time it has come up and taken a change; else it may still be starting.
        let before = load.accepted();
        if round % 2 == 0 {
            wait::until("a change to be accepted", Duration::from_secs(60), || async {
                if load.accepted() > before { Ok(()) } else { Err("none yet".to_owned()) }
            })
            .await;
        }
        tokio::time::sleep(Duration::from_millis(u64::from(OsRng.next_u32() % 600))).await;
        plane.kill(0);
        plane.launch(0);
    }
    plane.ready(0).await;
    load.finish(&fleet).await;
    plane.settled("after the kills").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_database_that_dies_in_the_middle_of_a_batch_costs_nothing() {
    let mut plane = LoneControlPlane::with_own_postgres("database-restarts").await;
    let (fleet, devices) = fleet(&plane, "database-restarts", 6).await;
    let load = Load::start(vec![plane.admin(0)], &fleet, &devices);
    for round in 0..4 {
        // A call is under way when the database goes.
        plane.kv.fail_next([Fault::Stall(700)]);
        let before = load.accepted();
        wait::until("changes, and a call that stalls", Duration::from_secs(60), || async {
            let (accepted, left) = (load.accepted(), plane.kv.faults_left());
            if accepted > before + 5 && left == 0 { Ok(()) } else { Err(format!("{accepted} {left}")) }
        })
        .await;
        let postgres = plane.postgres.as_mut().unwrap();
        if round % 2 == 0 {
            postgres.stop()
        } else {
            postgres.kill()
        }
        postgres.resume().await;
    }
    wait::until("the control plane to recover", Duration::from_secs(90), || async {
        let ready = keypost_tests::edge::get(&format!("{}/readyz", fleet.admin.url)).await;
        if ready.status == 200 { Ok(()) } else { Err(ready.body.to_string()) }
    })
    .await;
    load.finish(&fleet).await;
    plane.settled("after the restarts").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_publishers_at_once_keep_the_order_and_the_rates() {
    let mut plane = LoneControlPlane::start("two-publishers", 2).await;
    let (fleet, devices) = fleet(&plane, "two-publishers", 20).await;
    let load = Load::start(vec![plane.admin(0), plane.admin(1)], &fleet, &devices);
    let faults =
        [Fault::Status(500), Fault::ResetAfter, Fault::RateLimited(Some(1)), Fault::CarriedOutThenHang];
    for fault in faults {
        plane.kv.fail_next([fault]);
        wait::until("the fault to happen", Duration::from_secs(90), || async {
            let left = plane.kv.faults_left();
            if left == 0 { Ok(()) } else { Err(format!("{left} faults left")) }
        })
        .await;
    }
    // One of them dies, and the other goes on with what that had leased.
    plane.kill(1);
    plane.launch(1);
    plane.ready(1).await;
    load.finish(&fleet).await;
    plane.settled("after two publishers").await;
}
