//! Every example runs to its end and prints its result.

use std::{env, process::Command};

/// Runs an example as its first comment says, and returns its output.
#[track_caller]
fn run(name: &str) -> String {
    let cargo = env::var("CARGO").expect("the tests are run by cargo");
    let root = concat!(env!("CARGO_MANIFEST_DIR"), "/../..");
    let output = Command::new(cargo).current_dir(root).args(["run", "--quiet", "--example", name]).output().unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{name}: {errors}");
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn producer_batching() {
    let printed = run("producer_batching");
    assert!(printed.contains("stored as "), "{printed}");
    assert!(printed.contains("not stored: label is \"no blanks\""), "{printed}");
    assert!(printed.contains("1002 messages in ") && printed.contains(" 0 lost"), "{printed}");
}

#[test]
fn dead_letter_reprocessing() {
    let printed = run("dead_letter_reprocessing");
    assert!(printed.contains("2 can be mended, 1 cannot"), "{printed}");
    assert!(printed.contains("2 sent again, 1 left, 0 perhaps twice"), "{printed}");
    assert!(printed.contains(r#"mended: {"cents":1000,"id":2} Some(1)"#), "{printed}");
}

#[test]
fn dead_letter_worker() {
    let printed = run("dead_letter_worker");
    assert!(printed.contains("ALERT order given up: \"a dozen\""), "{printed}");
    assert!(printed.contains("2 charged, 2 archived"), "{printed}");
    assert!(printed.contains("{\"attributes\":{},\"body\":\"some\"}\n"), "{printed}");
}

#[test]
fn many_queues() {
    let printed = run("many_queues");
    assert!(printed.contains("orders: 20 handled\nmails: 20 handled\n"), "{printed}");
    assert!(printed.contains("audit: 40 sent, drained: true"), "{printed}");
}

#[test]
fn quickstart() {
    run("quickstart");
}

#[test]
fn batch_handler() {
    let printed = run("batch_handler");
    assert!(printed.contains("one insert of 50 rows; 0 cannot be decoded"), "{printed}");
    assert!(printed.contains("95 done, 1 rejected, 96 acknowledged"), "{printed}");
}

#[test]
fn tower_layers() {
    let printed = run("tower_layers");
    assert!(printed.contains("retry 1") && printed.contains("20 done, "), "{printed}");
}

#[test]
fn idempotence() {
    let printed = run("idempotence");
    assert!(printed.contains("of 100 orders") && printed.contains("each order is charged once"), "{printed}");
}

#[test]
fn axum_publisher() {
    let printed = run("axum_publisher");
    assert!(printed.contains("202 Accepted: ") && printed.contains("400 Bad Request: expected "), "{printed}");
    assert!(printed.contains("1 sent, 0 failed"), "{printed}");
}
