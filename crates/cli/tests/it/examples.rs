//! Every example is run, and prints its result.

use std::{env, fs, path::Path, process::Command};

#[cfg(unix)]
use dms_worker_postgres_fixture::PgServer;

#[cfg(unix)]
use crate::cli::Program;

const ROOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../..");

/// The command of an example, as its first comment says.
fn command(name: &str) -> Command {
    let mut command = Command::new(env::var_os("CARGO").expect("the tests are run by cargo"));
    command.current_dir(ROOT).args(["run", "--quiet", "--example", name]);
    command
}

/// Runs an example to its end, and returns its output.
#[track_caller]
fn run(name: &str) -> String {
    let output = command(name).output().unwrap();
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

#[test]
fn handler_arguments() {
    let printed = run("handler_arguments");
    assert!(printed.contains("order 3: alice pays 750 cents"), "{printed}");
    assert!(printed.contains(r#"3 done, 2 rejected: Mutex { data: {"alice": 1000, "bob": 500}"#), "{printed}");
}

/// An example that stays until it is interrupted.
#[cfg(unix)]
struct Staying {
    child: std::process::Child,
    lines: std::io::Lines<std::io::BufReader<std::process::ChildStdout>>,
}

#[cfg(unix)]
impl Staying {
    fn start(command: &mut Command) -> Self {
        use std::io::BufRead;
        let mut child = command.stdout(std::process::Stdio::piped()).spawn().unwrap();
        let lines = std::io::BufReader::new(child.stdout.take().unwrap()).lines();
        Self { child, lines }
    }

    /// Waits for a line that contains this, and returns it.
    #[track_caller]
    fn until(&mut self, text: &str) -> String {
        let line = self.lines.by_ref().map(Result::unwrap).find(|line| line.contains(text));
        line.unwrap_or_else(|| panic!("it ended without printing {text:?}"))
    }

    /// Presses Ctrl-C, waits for the end, and returns what the example printed after that. On Unix, the process of `cargo run`
    /// becomes the program.
    #[track_caller]
    fn interrupt(mut self) -> String {
        let status = Command::new("kill").args(["-INT", &self.child.id().to_string()]).status();
        assert!(status.unwrap().success());
        let rest: Vec<String> = self.lines.by_ref().map(Result::unwrap).collect();
        assert!(self.child.wait().unwrap().success(), "{rest:?}");
        rest.join("\n")
    }
}

#[cfg(unix)]
impl Drop for Staying {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
#[cfg(unix)]
fn first_worker() {
    let program = Program::new();
    let server = program.serve(&[]);
    let url = server.url("serving on ");
    program
        .run(&["queue", "create", "orders", "--group", "billing", "--max-consume-count", "3", "--endpoint", &url])
        .ok();
    let mut example = Staying::start(command("first_worker").env("DMS_WORKER_DMS__ENDPOINT", &url));
    program.run(&["send", "orders", r#"{"id": 1, "cents": 250}"#, "--endpoint", &url]).ok();
    example.until("order 1: 250 cents");
    example.interrupt();
}

#[test]
#[cfg(unix)]
fn embedded_server() {
    let program = Program::new();
    let mut example = Staying::start(command("embedded_server").args(["--", "127.0.0.1:0"]));
    let line = example.until("listening on ");
    let url = line.strip_prefix("listening on ").unwrap();
    let list = |secret: &str| {
        let auth = format!("{{access_key: EXAMPLEKEY, secret_key: {secret}}}");
        let dms = format!("dms: {{endpoint: '{url}', project_id: b78a90ae2a134b4b8b2ba30acab4e23a, auth: {auth}}}\n");
        program.run(&["-c", &program.file("config.yaml", &dms), "queue", "list"])
    };
    assert!(list("example-secret").ok().contains("orders"));
    list("another-secret").failed(77);
    example.interrupt();
}

/// It is killed, and started again.
#[test]
#[cfg(unix)]
fn inbox_outbox() {
    let Some(postgres) = PgServer::shared() else { return };
    postgres.psql("postgres", "CREATE DATABASE inbox_outbox").unwrap();
    let database = postgres.url().replace("dbname=postgres", "dbname=inbox_outbox");
    let program = Program::new();
    let server = program.serve(&[]);
    let start = || {
        let url = server.url("serving on ");
        Staying::start(command("inbox_outbox").args(["--", &database]).env("DMS_WORKER_DMS__ENDPOINT", url))
    };
    let mut killed = start();
    killed.until(" is charged");
    drop(killed);
    let mut example = start();
    example.until(" is charged");
    let printed = example.interrupt();
    assert!(printed.ends_with("0 orders were charged twice"), "{printed}");
}

/// A test above runs each example in Rust, and has its name. `tests/sidecar` runs the applications in other languages, and `.ci/run` tests the
/// examples that are packages of their own.
#[test]
fn no_example_is_forgotten() {
    let text = |path: &str| fs::read_to_string(Path::new(ROOT).join(path)).unwrap();
    let (tests, gate) = (text("crates/cli/tests/it/examples.rs"), text(".ci/run"));
    let sidecar = ["test_languages.py", "test_readme.py"].map(|name| text(&format!("tests/sidecar/{name}"))).concat();
    let mut seen = 0;
    for path in files("examples") {
        let name = path.strip_prefix("examples/").unwrap();
        let is_run = match name.split_once('/') {
            None => tests.contains(&format!("fn {}() {{", name.trim_end_matches(".rs"))),
            Some(("sidecar", name)) => {
                sidecar.contains(&format!("\"{name}\"")) || sidecar.contains(&format!("\"{path}\""))
            }
            Some((folder, _)) => {
                let manifest = text(&format!("examples/{folder}/Cargo.toml"));
                let package = manifest.split('"').nth(1).unwrap();
                gate.contains(&format!("cargo test --locked --package {package}"))
            }
        };
        assert!(is_run, "{path} is run by no test");
        seen += 1;
    }
    assert!(seen > 25, "{seen}");
}

/// The files below a folder, without what a build left there.
fn files(folder: &str) -> Vec<String> {
    let mut found = Vec::new();
    for entry in fs::read_dir(Path::new(ROOT).join(folder)).unwrap().map(Result::unwrap) {
        let name = entry.file_name().into_string().unwrap();
        let path = format!("{folder}/{name}");
        if !entry.file_type().unwrap().is_dir() {
            found.push(path);
        } else if !["target", "node_modules", "__pycache__"].contains(&&*name) {
            found.extend(files(&path));
        }
    }
    found
}
