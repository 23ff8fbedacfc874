//! That `cargo xtask bench` runs, counts and writes what whoever compares expects. No figure is looked at: a test is no place
//! to measure.

use std::process::Command;

use keypost_tests::stack::test_env;
use serde_json::Value;

#[test]
fn a_bench_of_one_job_writes_a_row_with_its_figures() {
    let env = test_env();
    let file = env.scratch.join("bench.json");
    let output = Command::new(&env.xtask)
        .args(["bench", "--quick", "--job", "(a)", "--json"])
        .arg(&file)
        .current_dir(&env.root)
        .env_remove("CARGO_MANIFEST_DIR")
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    let rows: Vec<Value> = serde_json::from_slice(&std::fs::read(&file).unwrap()).unwrap();
    let [row] = rows.as_slice() else { panic!("{rows:?}") };
    assert_eq!(row["job"], "(a) JavaScript, a constant");
    for figure in ["requestsPerSecond", "p50Ms", "p99Ms", "cpuUsPerRequest"] {
        assert!(row[figure].as_f64().is_some_and(|figure| figure > 0.0), "{figure}: {row}");
    }
    for none in ["ratioTo", "ratio", "target", "met"] {
        assert!(row.get(none).is_some_and(Value::is_null), "{none}: {row}");
    }
    let table = String::from_utf8_lossy(&output.stdout);
    assert!(table.contains("(a) JavaScript, a constant"), "{table}");
}
