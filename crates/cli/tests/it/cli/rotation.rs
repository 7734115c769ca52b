//! Keys that change while the server runs: by SIGHUP, and by a changed secret file.

use super::{Program, Running};

/// A server with one key, whose secret stands in the file `secret`; `rights` go to a second key.
fn config(program: &Program, rights: &str) -> String {
    let secret = program.dir().join("secret");
    let yaml = format!(
        "server:\n  listen: 127.0.0.1:0\n  queues: [{{name: q, groups: [g]}}]\n  auth:\n    access_keys:\n      - {{access_key: AK, secret_key_file: {}}}\n      - {{access_key: B, secret_key: S, rights: {rights}}}\n",
        secret.display()
    );
    program.file("server.yaml", &yaml)
}

/// Sends a message with this key; the exit code.
fn send(program: &Program, server: &Running, access_key: &str, secret_key: &str) -> Option<i32> {
    let mut command = program.command(&["--endpoint", &server.url("serving on "), "send", "q", "1"]);
    command.env("DMS_WORKER_DMS__AUTH__ACCESS_KEY", access_key).env("DMS_WORKER_DMS__AUTH__SECRET_KEY", secret_key);
    command.output().unwrap().status.code()
}

#[test]
fn a_changed_secret_file_takes_effect_and_a_broken_one_does_not() {
    let program = Program::new();
    program.file("secret", "one\n");
    let mut server = program.start(&["serve", "-c", &config(&program, "{send: ['*']}")]);
    assert_eq!(send(&program, &server, "AK", "one"), Some(0));
    program.file("secret", "two\n");
    server.until("the keys and users were read again");
    assert_eq!(send(&program, &server, "AK", "two"), Some(0));
    assert_eq!(send(&program, &server, "AK", "one"), Some(77));

    program.file("secret", " \n");
    server.until("its current secret stays in use");
    assert_eq!(send(&program, &server, "AK", "two"), Some(0));
    std::fs::remove_file(program.dir().join("secret")).unwrap();
    server.until("cannot be read");
    assert_eq!(send(&program, &server, "AK", "two"), Some(0));
    program.file("secret", "three");
    server.until("the keys and users were read again");
    assert_eq!(send(&program, &server, "AK", "three"), Some(0));

    server.signal("TERM");
    let (_, log) = server.wait();
    assert_eq!(log.matches("its current secret stays in use").count(), 2, "each content is told once: {log}");
    assert!(log.contains("change_key") && log.contains("dms_worker::access"), "{log}");
    assert!(!log.contains("three"), "{log}");
}

#[test]
fn sighup_applies_keys_and_rights_and_nothing_of_an_invalid_configuration() {
    let program = Program::new();
    program.file("secret", "one");
    let mut server = program.start(&["serve", "-c", &config(&program, "{send: ['*']}")]);
    assert_eq!(send(&program, &server, "B", "S"), Some(0));
    config(&program, "{consume: ['*']}");
    server.signal("HUP");
    server.until("the configuration was read again");
    assert_ne!(send(&program, &server, "B", "S"), Some(0));
    config(&program, "{send: ['a b']}");
    server.signal("HUP");
    server.until("the new configuration was rejected");
    assert_ne!(send(&program, &server, "B", "S"), Some(0));
    assert_eq!(send(&program, &server, "AK", "one"), Some(0));
}

/// By the watch of the files, and by SIGHUP.
#[test]
fn one_broken_secret_file_does_not_hold_back_the_others() {
    let program = Program::new();
    let path = |name: &str| program.dir().join(name).display().to_string();
    for name in ["one", "two", "admin"] {
        program.file(name, &format!("{name}-old"));
    }
    let yaml = format!(
        "server:\n  listen: 127.0.0.1:0\n  admin: 127.0.0.1:0\n  admin_token_file: {}\n  queues: [{{name: q, groups: [g]}}]\n  auth:\n    access_keys:\n      - {{access_key: A, secret_key_file: {}}}\n      - {{access_key: B, secret_key_file: {}}}\n",
        path("admin"),
        path("one"),
        path("two")
    );
    let file = program.file("server.yaml", &yaml);
    let mut server = program.start(&["serve", "-c", &file]);
    let (admin, client) = (server.url("admin on "), reqwest::blocking::Client::builder().no_proxy().build().unwrap());
    let ask =
        |token: &str| client.get(format!("{admin}/admin/queues")).bearer_auth(token).send().unwrap().status().as_u16();
    assert_eq!((send(&program, &server, "A", "one-old"), ask("admin-old")), (Some(0), 200));

    program.file("one", "");
    server.until("its current secret stays in use");
    program.file("two", "two-new");
    server.until("the keys and users were read again");
    assert_eq!(send(&program, &server, "A", "one-old"), Some(0));
    assert_eq!(send(&program, &server, "B", "two-new"), Some(0));

    program.file("two", "two-newer");
    program.file("admin", "admin-new");
    server.signal("HUP");
    server.until("the configuration was read again");
    assert_eq!(send(&program, &server, "A", "one-old"), Some(0));
    assert_eq!(send(&program, &server, "B", "two-newer"), Some(0));
    assert_eq!((ask("admin-old"), ask("admin-new")), (401, 200));
    server.signal("TERM");
    let (_, log) = server.wait();
    assert!(!log.contains("need a restart") && !log.contains("was rejected"), "{log}");
}

/// The client of the server in this process goes on as that does.
#[test]
fn keys_that_the_embedded_server_refused_are_not_used_by_the_client() {
    const WORKER: &str = "\
server: {listen: '127.0.0.1:0', queues: [{name: q, groups: [g]}]AUTH}
workers: [{queue: q, group: g, handler: {log: {}}}]
publishers: [{queue: q, listen: '127.0.0.1:0'}]
";
    let program = Program::new();
    let key = ", auth: {access_keys: [{access_key: AK, secret_key: SK}]}";
    let file = program.file("config.yaml", &WORKER.replace("AUTH", key));
    let mut sidecar = program.start(&["run", "-c", &file]);
    let publisher = sidecar.url("publisher on ");
    let client = reqwest::blocking::Client::builder().no_proxy().build().unwrap();
    let publish = || client.post(&publisher).body("{\"body\":1}").send().unwrap().status().as_u16();
    assert_eq!(publish(), 200);
    program.file("config.yaml", &WORKER.replace("AUTH", ""));
    sidecar.signal("HUP");
    sidecar.until("these changes need a restart");
    assert_eq!(publish(), 200);
    sidecar.signal("TERM");
    let (_, log) = sidecar.wait();
    assert!(log.contains("the current ones stay in use"), "{log}");
}

#[test]
fn check_refuses_the_keys_that_a_server_refuses() {
    let program = Program::new();
    let keys = "[{access_key: OP, secret_key: a}, {access_key: OP, secret_key: b}]";
    let file = program.file("server.yaml", &format!("server: {{auth: {{access_keys: {keys}}}}}\n"));
    let said = program.run(&["check", "-c", &file]).failed(78);
    assert!(said.contains("the access key OP is listed twice with different secrets"), "{said}");
}
