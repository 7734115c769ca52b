//! `check --online`: what works, and is likely not meant.

use std::{
    io::{Read, Write},
    net::TcpListener,
};

use super::Program;

#[test]
fn missing_rights_are_mistakes() {
    let program = Program::new();
    let server = program.file(
        "server.yaml",
        "server:\n  listen: 127.0.0.1:0\n  queues: [{name: orders, groups: [billing], max_consume_count: 1}, {name: parked, groups: [g]}]\n  auth: {access_keys: [{access_key: OP, secret_key: S1}, {access_key: W, secret_key: S2, rights: {consume: [parked], send: [orders]}}]}\n",
    );
    let server = program.start(&["serve", "-c", &server]);
    let check = |access_key: &str, secret_key: &str| {
        let yaml = format!(
            "dms: {{endpoint: '{}', auth: {{access_key: {access_key}, secret_key: {secret_key}}}}}\nworkers: [{{queue: orders, group: billing, on_reject: {{park: parked}}, handler: {{log: {{}}}}}}]\npublishers: [{{queue: parked}}]\n",
            server.url("serving on ")
        );
        program.run(&["check", "--online", "-c", &program.file("config.yaml", &yaml)])
    };
    check("OP", "S1").ok();
    let stderr = check("W", "S2").failed(1);
    for mistake in [
        "worker orders/billing: its key may not consume from queue orders: give it the right `consume`",
        "worker orders/billing (park): its key may not send to queue parked: give it the right `send`",
        "publishers[0]: its key may not send to queue parked",
    ] {
        assert!(stderr.contains(mistake), "{mistake}: {stderr}");
    }
    // Nothing was sent or consumed by asking.
    let mut list = program.command(&["-o", "json", "--endpoint", &server.url("serving on "), "queue", "list"]);
    list.env("DMS_WORKER_DMS__AUTH__ACCESS_KEY", "OP").env("DMS_WORKER_DMS__AUTH__SECRET_KEY", "S1");
    let listed: serde_json::Value = serde_json::from_slice(&list.output().unwrap().stdout).unwrap();
    assert_eq!((&listed[0]["backlog"], &listed[1]["backlog"]), (&0.into(), &0.into()), "{listed}");
}

/// The configuration of `serve` names no other service: the server that runs with it is asked, as every other command asks it.
#[test]
fn the_server_of_the_configuration_is_asked_if_it_runs() {
    let program = Program::new();
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let yaml = |secret: &str| {
        format!(
            "server:\n  listen: 127.0.0.1:{port}\n  project_id: shop\n  auth: {{access_keys: [{{access_key: OP, secret_key: {secret}}}]}}\n"
        )
    };
    let config = program.file("server.yaml", &yaml("S1"));
    let check = |config: &str| program.run(&["check", "--online", "-c", config]);
    let nothing = check(&config);
    assert!(nothing.stderr.contains(&format!("none runs at http://127.0.0.1:{port}")), "{}", nothing.stderr);
    assert!(!nothing.ok().contains("all there"));
    let _server = program.start(&["serve", "-c", &config]);
    let asked = check(&config).ok();
    assert!(asked.contains(&format!("endpoint http://127.0.0.1:{port}, all there")), "{asked}");
    let other = check(&program.file("other.yaml", &yaml("S2"))).failed(77);
    assert!(other.contains("APIGW.0301") && !other.contains("a short time ago"), "{other}");
}

#[test]
fn dead_letters_and_parked_messages_that_nobody_consumes_are_told() {
    let program = Program::new();
    let server = program.serve(&[]);
    let url = server.url("serving on ");
    let dms = |args: &[&str]| program.run(&[&["--endpoint", &url], args].concat()).ok();
    dms(&["queue", "create", "orders", "--group", "billing", "--max-consume-count", "1"]);
    dms(&["queue", "create", "parked"]);
    let yaml = format!(
        "dms: {{endpoint: '{url}'}}\nworkers: [{{queue: orders, group: billing, on_reject: {{park: parked}}, handler: {{command: ['false']}}}}]\n"
    );
    let config = program.file("config.yaml", &yaml);
    let mut worker = program.start(&["run", "-c", &config]);
    dms(&["send", "orders", "1"]);
    worker.until("the handler failed");
    worker.signal("TERM");
    worker.wait();
    let told = program.run(&["check", "--online", "-c", &config]);
    let stderr = told.stderr.clone();
    told.ok();
    assert!(
        stderr.contains("1 dead letter in group billing of queue orders, and no worker here consumes them"),
        "{stderr}"
    );
    assert!(
        stderr.contains("the parking queue parked has no group, so parked messages cannot be consumed"),
        "{stderr}"
    );
    dms(&["group", "create", "parked", "repair"]);
    dms(&["send", "parked", "2"]);
    let stderr = program.run(&["check", "--online", "-c", &config]).stderr;
    assert!(stderr.contains("1 message parked in parked and nobody consumes group repair"), "{stderr}");
}

#[test]
fn a_clock_that_is_far_off_is_told_before_anything_is_refused() {
    let program = Program::new();
    let service = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = service.local_addr().unwrap();
    std::thread::spawn(move || {
        for mut stream in service.incoming().flatten() {
            let _ = stream.read(&mut [0; 4096]);
            let answer = "HTTP/1.1 404 Not Found\r\nDate: Sun, 22 Nov 2015 10:00:00 GMT\r\nConnection: close\r\nContent-Length: 0\r\n\r\n";
            let _ = stream.write_all(answer.as_bytes());
        }
    });
    let yaml =
        format!("dms: {{endpoint: 'http://{address}'}}\nworkers: [{{queue: q, group: g, handler: {{log: {{}}}}}}]\n");
    let stderr = program.run(&["check", "--online", "-c", &program.file("config.yaml", &yaml)]).failed(1);
    assert!(stderr.contains("s ahead of the service's clock") && stderr.contains("set the clock"), "{stderr}");
}

#[test]
fn a_schedule_without_its_queue_is_a_mistake() {
    let program = Program::new();
    let server = program.serve(&[]);
    let url = server.url("serving on ");
    let yaml = format!(
        "dms: {{endpoint: '{url}'}}\nserver: {{data_dir: data, schedules: [{{name: nightly, cron: '@daily', queue: reports, message: 1}}]}}\n"
    );
    let config = program.file("config.yaml", &yaml);
    let stderr = program.run(&["check", "--online", "-c", &config]).failed(1);
    assert!(stderr.contains("schedule nightly: ") && stderr.contains("or list it in server.queues"), "{stderr}");
    program.run(&["--endpoint", &url, "queue", "create", "reports"]).ok();
    program.run(&["check", "--online", "-c", &config]).ok();
}
