//! Long-running commands: `serve`, `run`, and the tour.

use std::{
    io,
    net::{Shutdown, TcpListener, TcpStream},
    process::Stdio,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    thread,
};

use serde_json::Value;

use super::{Program, Running};

#[test]
fn a_server_keeps_its_messages_through_sigterm() {
    let program = Program::new();
    let data = program.dir().join("data").display().to_string();
    let server = program.serve(&["--data-dir", &data]);
    assert!(server.announced.contains(&format!("data in {data}")), "{}", server.announced);
    let url = server.url("serving on ");
    program.run(&["--endpoint", &url, "queue", "create", "q", "--group", "g"]).ok();
    program.run(&["--endpoint", &url, "send", "q", "1"]).ok();
    server.signal("TERM");
    assert_eq!(server.wait().0.code(), Some(0));

    let server = program.serve(&["--data-dir", &data]);
    let received =
        program.run(&["--endpoint", &server.url("serving on "), "receive", "--ack", "q", "g", "--wait", "5s"]);
    assert_eq!(received.received(), "{\"body\":1}\n");
}

#[test]
fn a_server_does_not_look_at_the_directory_it_is_started_in() {
    let program = Program::new();
    program.file("config.yaml", "server: {queues: [{name: surprise}]}\n");
    let server = program.serve(&[]);
    let queues = program.run(&["--endpoint", &server.url("serving on "), "-o", "json", "queue", "list"]).json();
    assert_eq!(queues, serde_json::json!([]));
}

#[test]
fn the_documented_configuration_runs_and_ends_in_order() {
    let program = Program::new();
    let text = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../../config.yaml")).unwrap();
    let text = text.replace("127.0.0.1:9400", "127.0.0.1:0").replace("127.0.0.1:9402", "127.0.0.1:0");
    program.file("config.yaml", &text);
    let sidecar = program.start(&["run"]);
    assert!(sidecar.announced.contains("running hello/log"), "{}", sidecar.announced);
    let admin = sidecar.url("admin on ");
    program.run(&["--endpoint", &sidecar.url("server on "), "send", "hello", "{\"to\":\"world\"}"]).ok();
    // Draining waits for running handlers. Whether or not the worker has fetched the message, it ends in order.
    program.run(&["health", &format!("{admin}/livez")]).ok();
    sidecar.signal("INT");
    let (status, log) = sidecar.wait();
    assert_eq!(status.code(), Some(0), "{log}");
    assert!(log.contains("dms-worker: hello/log ended:"), "{log}");
}

#[test]
fn sighup_applies_changes_and_keeps_the_current_configuration_if_the_new_one_is_invalid() {
    let program = Program::new();
    let yaml = |concurrency: &str, extra: &str| {
        format!(
            "server: {{listen: '127.0.0.1:0', queues: [{{name: q, groups: [g]}}]}}\nworkers:\n  - {{queue: q, group: g, concurrency: {concurrency}, handler: {{log: }}}}\nadmin: {{listen: '127.0.0.1:0'}}\n{extra}"
        )
    };
    program.file("config.yaml", &yaml("5", ""));
    let sidecar = program.start(&["run"]);
    let status = format!("{}/status", sidecar.url("admin on "));
    let concurrency = || {
        let answer = reqwest_get(&status);
        serde_json::from_str::<Value>(&answer).unwrap()["workers"][0]["concurrency"].as_u64().unwrap()
    };
    assert_eq!(concurrency(), 5);
    program.file("config.yaml", &yaml("7", "limits: {in_flight: 9}\n"));
    sidecar.signal("HUP");
    while concurrency() != 7 {
        std::thread::yield_now();
    }
    program.file("config.yaml", &yaml("zero", ""));
    sidecar.signal("HUP");
    sidecar.signal("TERM");
    let (status, log) = sidecar.wait();
    assert_eq!(status.code(), Some(0), "{log}");
    assert!(log.contains("the new values of limits and on_worker_failure are in force"), "{log}");
}

/// The body of an answer.
fn reqwest_get(url: &str) -> String {
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let get = async { client.get(url).send().await.unwrap().text().await.unwrap() };
    tokio::runtime::Runtime::new().unwrap().block_on(get)
}

#[test]
fn systemd_is_notified_of_the_start_and_the_end() {
    let program = Program::new();
    let path = program.dir().join("notify.sock");
    let socket = std::os::unix::net::UnixDatagram::bind(&path).unwrap();
    socket.set_read_timeout(Some(std::time::Duration::from_secs(30))).unwrap();
    let mut command = program.command(&["serve", "--listen", "127.0.0.1:0"]);
    command.env("NOTIFY_SOCKET", &path).stdin(Stdio::null()).stdout(Stdio::null());
    let server = Running::start(&mut command);
    let told = || {
        let mut text = [0; 64];
        let length = socket.recv(&mut text).unwrap();
        String::from_utf8(text[..length].to_vec()).unwrap()
    };
    assert_eq!(told(), "READY=1");
    server.signal("TERM");
    assert_eq!(told(), "STOPPING=1");
    assert_eq!(server.wait().0.code(), Some(0));
}

#[test]
fn the_tour_accounts_for_every_message() {
    let output = Program::new().run(&["demo", "-o", "json", "--orders", "300"]);
    let figures: Value = output.json();
    assert_eq!(figures["complete"], true, "{figures}");
    assert_eq!((&figures["sent"], &figures["handled"], &figures["lost"]), (&300.into(), &300.into(), &0.into()));
    assert_eq!((&figures["dead_lettered"], &figures["redriven"]), (&3.into(), &3.into()));
}

#[test]
fn a_benchmark_has_figures_for_every_run_and_cleans_up() {
    let program = Program::new();
    let server = program.serve(&[]);
    let url = server.url("serving on ");
    let pid = server.pid().to_string();
    let bench = ["-o", "json", "bench", "--against", &url, "--server-pid", &pid, "--messages", "100", "--rate", "1000"];
    let figures: Value = program.run(&bench).json();
    let runs = figures["runs"].as_array().unwrap();
    let names: Vec<_> = runs.iter().map(|run| run["name"].clone()).collect();
    assert_eq!(names, ["produce", "consume", "both", "latency"]);
    for run in runs {
        let rate = |name: &str| run[name].as_f64().unwrap();
        assert!(rate("seconds") > 0.0 && rate("produced_per_second") + rate("acknowledged_per_second") > 0.0, "{run}");
        let latency = |name: &str| run["latency_ms"][name].as_f64().unwrap();
        assert!(latency("p50") > 0.0 && latency("p50") <= latency("p99") && latency("p99") <= latency("max"), "{run}");
        for side in ["client", "server"] {
            assert!(run[side]["peak_bytes"].as_u64().unwrap() > 1_000_000, "{side}: {run}");
        }
    }
    assert_eq!(program.run(&["--endpoint", &url, "-o", "json", "queue", "list"]).json(), serde_json::json!([]));
}

/// Passes connections on to a server; gives its address, and how many there were.
fn counting(server: &str) -> (String, Arc<AtomicUsize>) {
    let server = server.strip_prefix("http://").unwrap().to_owned();
    let (listener, counted) = (TcpListener::bind("127.0.0.1:0").unwrap(), Arc::new(AtomicUsize::new(0)));
    let (url, count) = (format!("http://{}", listener.local_addr().unwrap()), counted.clone());
    thread::spawn(move || {
        for client in listener.incoming() {
            let (client, server) = (client.unwrap(), TcpStream::connect(&server).unwrap());
            count.fetch_add(1, Relaxed);
            for (mut from, mut to) in [
                (client.try_clone().unwrap(), server.try_clone().unwrap()),
                (server.try_clone().unwrap(), client.try_clone().unwrap()),
            ] {
                thread::spawn(move || {
                    let _ = io::copy(&mut from, &mut to);
                    let _ = to.shutdown(Shutdown::Write);
                });
            }
        }
    });
    (url, counted)
}

/// Concurrent requests each have a connection; later requests reuse them.
#[test]
fn a_benchmark_reuses_its_connections() {
    let program = Program::new();
    let server = program.serve(&[]);
    let (url, connections) = counting(&server.url("serving on "));
    let bench = ["bench", "--against", &url, "--run", "produce,consume", "--messages", "6000", "--connections", "64"];
    program.run(&bench).ok();
    let connections = connections.load(Relaxed);
    assert!((64..300).contains(&connections), "{connections} connections for 1,800 requests");
}

#[test]
fn a_benchmark_starts_a_separate_server() {
    let program = Program::new();
    let data = program.dir().join("data").display().to_string();
    let bench = ["-o", "json", "bench", "--data-dir", &data, "--run", "consume", "--messages", "50"];
    let figures: Value = program.run(&bench).json();
    assert_eq!((&figures["durable"], &figures["runs"][0]["name"]), (&true.into(), &"consume".into()));
    assert!(figures["runs"][0]["acknowledged_per_second"].as_f64().unwrap() > 0.0, "{figures}");
}

/// Every curve is measured, written in three forms, and leaves no queue behind.
#[test]
fn a_sweep_has_a_point_for_each_value_and_draws_each_curve() {
    let program = Program::new();
    let server = program.serve(&[]);
    let url = server.url("serving on ");
    let (pid, report) = (server.pid().to_string(), program.dir().join("report"));
    let to = report.display().to_string();
    let bench = ["-o", "json", "bench", "--sweep", "--against", &url, "--server-pid", &pid, "--messages", "40"];
    let figures: Value = program.run(&[&bench[..], &["--up-to", "1000", "--report", &to]].concat()).json();
    let curves: Vec<_> = figures["curves"].as_array().unwrap().iter().collect();
    let values: Vec<_> = curves
        .iter()
        .map(|curve| {
            let points = curve["points"].as_array().unwrap().iter();
            (curve["name"].as_str().unwrap(), points.map(|point| point["value"].as_u64().unwrap()).collect())
        })
        .collect();
    let expected: [(&str, Vec<u64>); 6] = [
        ("connections", vec![1, 4, 16, 64, 256]),
        ("queues", vec![1, 10]), // the quota is 30
        ("groups", vec![1, 2, 3]),
        ("backlog", vec![1_000]),
        ("size", vec![100, 1_000]),
        ("workers", vec![1, 2, 4, 8, 16, 32, 64]),
    ];
    assert_eq!(values, expected);
    for point in curves.iter().flat_map(|curve| curve["points"].as_array().unwrap()) {
        assert!(point["sent_per_second"].as_f64().unwrap() > 0.0, "{point}");
        assert!(point["acknowledged_per_second"].as_f64().unwrap() > 0.0, "{point}");
    }
    let read = |name: &str| std::fs::read_to_string(report.join(name)).unwrap();
    assert_eq!(serde_json::from_str::<Value>(&read("sweep.json")).unwrap(), figures);
    assert_eq!(read("sweep.md").lines().filter(|line| line.starts_with("| queues")).count(), 2);
    let plot = read("sweep.svg");
    for title in ["concurrent requests", "queues", "consumer groups", "waiting before", "bytes of a body", "workers"] {
        assert!(plot.contains(title), "{title} is not in the plot");
    }
    assert_eq!(program.run(&["--endpoint", &url, "-o", "json", "queue", "list"]).json(), serde_json::json!([]));
}

#[test]
fn the_tour_prints_a_table_without_a_terminal() {
    let table = Program::new().run(&["demo", "--orders", "100"]).ok();
    let names: Vec<_> = table.lines().map(|line| line.trim().split("  ").next().unwrap()).collect();
    let expected = [
        "sent",
        "handled",
        "redelivered",
        "dead-lettered",
        "redriven",
        "lost",
        "messages per second",
        "send to handled, p50",
        "send to handled, p99",
    ];
    assert_eq!(names, expected);
}
