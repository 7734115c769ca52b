//! What `check` finds before `run` would, and errors that name the key, the remedy, or the wrong address.

use super::Program;

#[test]
fn check_finds_what_the_start_would_refuse() {
    let program = Program::new();
    let worker = "workers: [{queue: q, group: g, handler: {log: {}}}]\nserver: {queues: [{name: q, groups: [g]}]}\n";
    let checked = |yaml: &str, text: &str| {
        let file = program.file("c.yaml", yaml);
        let stderr = program.run(&["check", "-c", &file]).failed(78);
        assert!(stderr.contains(text), "{stderr}");
    };
    checked(&format!("{worker}log: {{filter: 'info,=='}}\n"), "log.filter: `info,==` is not allowed");
    checked(&worker.replace("{log: {}}", "{command: [./missing.sh]}"), "handler.command: `./missing.sh` is not there");
    checked(
        &worker.replace("handler:", "on_reject: {park: nowhere}, handler:"),
        "workers[0].on_reject.park: the embedded server has no queue `nowhere`",
    );
    checked(
        &worker.replace("handler:", "on_failure: {republish: {then: {park: nowhere}}}, handler:"),
        "workers[0].on_failure.republish.then.park: the embedded server has no queue `nowhere`",
    );
    checked(
        &worker.replace("handler:", "source: dead_letters, handler:"),
        "workers[0].source: `dead_letters` is not allowed: queue `q` has none",
    );
    checked(
        &worker.replace("log: {}", "log: {body: 1}"),
        "handler.log.body: `1` is not allowed: true or false is needed",
    );
    checked(
        &worker.replace("handler:", "concurrency: true, handler:"),
        "workers[0].concurrency: `true` is not allowed: a number is needed",
    );
    checked("dms: {endpoint: 'https://x', ca_file: missing.pem}\n", "dms.ca_file: `missing.pem` cannot be read");
    let key = "{access_key: AK, secret_key: s}";
    checked(
        &format!("server: {{auth: {{access_keys: [{key}, {key}]}}}}\n"),
        "server.auth.access_keys[1].access_key: the access key AK is listed twice",
    );
    program.file("not.pem", "nothing");
    checked(
        "server: {tls: {certificate: not.pem, key: not.pem}}\n",
        "error: server.tls: TLS: `not.pem` has no certificate",
    );
}

#[test]
fn authorities_that_cannot_be_used_are_a_mistake_of_the_configuration() {
    let program = Program::new();
    program.file("not.pem", "nothing");
    let file = program.file("c.yaml", "dms: {endpoint: 'https://127.0.0.1:1', ca_file: not.pem}\n");
    program.run(&["-c", &file, "queue", "list"]).failed(78);
}

#[test]
fn an_access_key_without_its_secret_is_no_unsigned_request() {
    let program = Program::new();
    let server = program.serve(&[]);
    let mut half = program.command(&["--endpoint", &server.url("serving on "), "queue", "list"]);
    let half = half.env("HUAWEICLOUD_SDK_AK", "AK").output().unwrap();
    let stderr = String::from_utf8(half.stderr).unwrap();
    assert_eq!(half.status.code(), Some(78), "{stderr}");
    assert!(stderr.contains("HUAWEICLOUD_SDK_AK and HUAWEICLOUD_SDK_SK are not both set"), "{stderr}");
}

#[test]
fn the_vendors_variables_are_used_at_the_default_endpoint() {
    let program = Program::new();
    let file = program.file("s.yaml", "server: {auth: {access_keys: [{access_key: AK, secret_key: s}]}}\n");
    let server = program.serve(&["-c", &file]);
    let url = server.url("serving on ");
    let mut listed = program.command(&["queue", "list"]);
    listed.env("DMS_WORKER_SERVER__LISTEN", url.strip_prefix("http://").unwrap());
    assert_eq!(listed.output().unwrap().status.code(), Some(77));
    listed.env("HUAWEICLOUD_SDK_AK", "AK").env("HUAWEICLOUD_SDK_SK", "s");
    let signed = listed.output().unwrap();
    assert_eq!(signed.status.code(), Some(0), "{}", String::from_utf8_lossy(&signed.stderr));
}

#[test]
fn another_server_at_the_address_is_recognised() {
    let program = Program::new();
    let file = program.file("s.yaml", "server: {admin: '127.0.0.1:0'}\n");
    let server = program.serve(&["-c", &file]);
    let admin = server.url("admin on ");
    let stderr = program.run(&["--endpoint", &admin, "queue", "list"]).failed(1);
    assert!(stderr.contains(&format!("is {admin} the address of a DMS service")), "{stderr}");
}

#[test]
fn run_names_the_key_of_an_address_in_use() {
    let program = Program::new();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = taken.local_addr().unwrap();
    let base = "workers: [{queue: q, group: g, handler: {log: {}}}]\n";
    let server = |listen: &str| format!("server: {{listen: '{listen}', queues: [{{name: q, groups: [g]}}]}}\n");
    let cases = [
        ("server.listen", server(&taken.to_string())),
        ("admin.listen", server("127.0.0.1:0") + &format!("admin: {{listen: '{taken}'}}\n")),
        ("publishers[0].listen", server("127.0.0.1:0") + &format!("publishers: [{{queue: q, listen: '{taken}'}}]\n")),
    ];
    for (key, yaml) in cases {
        let file = program.file("c.yaml", &(base.to_owned() + &yaml));
        let stderr = program.run(&["run", "-c", &file]).failed(1);
        assert!(stderr.contains(&format!("choose another address in {key}")), "{stderr}");
    }
}

#[test]
fn the_origin_of_a_secret_in_a_file_is_the_line_that_names_the_file() {
    let program = Program::new();
    program.file("secret", "s");
    let file = program
        .file("c.yaml", "dms:\n  endpoint: http://h\n  auth:\n    access_key: AK\n    secret_key_file: secret\n");
    let shown = program.run(&["-o", "json", "config", "show", "--origin", "-c", &file]).json();
    assert_eq!(shown["dms.auth.secret_key"]["origin"], format!("{file}:5"), "{shown}");
}
