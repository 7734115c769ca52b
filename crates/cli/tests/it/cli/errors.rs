//! Exit codes, and that an error is one sentence with the remedy.

use super::Program;

/// An address where nothing listens: port 1 of the loopback.
const NOWHERE: &str = "http://127.0.0.1:1";

#[test]
fn wrong_usage_exits_with_2() {
    let program = Program::new();
    for args in [&["send"][..], &["nothing"], &["queue"], &["receive", "q"], &["--colour", "send", "q", "b"]] {
        assert_eq!(program.run(args).code, Some(2), "{args:?}");
    }
    let stderr = program.run(&["receive", "q", "g", "--wait", "90s"]).failed(2);
    assert_eq!(stderr, "error: poll_wait is 90: 1 to 60 s are allowed\n");
    let stderr = program.run(&["receive", "q", "g", "--wait", "20"]).failed(2);
    assert!(stderr.contains("`20` has no unit: write 20s for seconds or 20ms for milliseconds"), "{stderr}");
}

#[test]
fn an_unreachable_service_exits_with_69() {
    let program = Program::new();
    let stderr = program.run(&["--endpoint", NOWHERE, "send", "orders", "x"]).failed(69);
    assert_eq!(stderr.lines().count(), 1, "{stderr}");
    assert!(stderr.contains(NOWHERE) && stderr.contains("--endpoint names another"), "{stderr}");
    let causes = program.run(&["-v", "--endpoint", NOWHERE, "queue", "list"]).failed(69);
    assert!(causes.contains("caused by: "), "{causes}");
    program.run(&["health", &format!("{NOWHERE}/readyz")]).failed(69);
    let file = program.file("c.yaml", &format!("dms: {{endpoint: '{NOWHERE}'}}\n"));
    program.run(&["check", "--online", "-c", &file]).failed(69);
}

#[test]
fn errors_are_json_with_json_output() {
    let stderr = Program::new().run(&["-o", "json", "--endpoint", NOWHERE, "queue", "list"]).failed(69);
    let error: serde_json::Value = serde_json::from_str(&stderr).unwrap();
    assert_eq!((&error["error"]["code"], &error["error"]["exit_code"]), (&"unavailable".into(), &69.into()));
}

#[test]
fn an_invalid_configuration_exits_with_78_and_names_all_mistakes() {
    let program = Program::new();
    program.file("config.yaml", "dms: {endpoint: ftp://x}\nworkers:\n  - {queue: q, group: g, concurency: 1}\n");
    for command in ["check", "run"] {
        let stderr = program.run(&[command]).failed(78);
        assert!(
            stderr.starts_with("error: the configuration has 3 mistakes:\n  config.yaml:1: dms.endpoint: `ftp://x`"),
            "{stderr}"
        );
        assert!(
            stderr.contains("config.yaml:3: workers[0].concurency: unknown key; did you mean `concurrency`?"),
            "{stderr}"
        );
    }
    assert!(program.run(&["check", "-c", "missing.yaml"]).failed(78).contains("missing.yaml: cannot be read"));
    let mut command = program.command(&["serve"]);
    let output = command.env("DMS_WORKER_SERVER__LISTEN", "nowhere").output().unwrap();
    assert_eq!(output.status.code(), Some(78));
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert!(stderr.contains("DMS_WORKER_SERVER__LISTEN: server.listen: `nowhere` is not allowed"), "{stderr}");
}

#[test]
fn a_configuration_with_nothing_to_run_exits_with_78() {
    let stderr = Program::new().run(&["run"]).failed(78);
    assert!(stderr.contains("no workers and no publishers; name a configuration with -c"), "{stderr}");
}

#[test]
fn a_malformed_log_filter_exits_with_78() {
    let program = Program::new();
    let file = program.file("c.yaml", "log: {filter: 'info,=='}\n");
    let stderr = program.run(&["serve", "--listen", "127.0.0.1:0", "-c", &file]).failed(78);
    assert!(stderr.contains("log.filter: `info,==` is not allowed"), "{stderr}");
}

#[test]
fn an_address_in_use_is_named_with_the_remedy() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let stderr = Program::new().run(&["serve", "--listen", &address]).failed(1);
    assert!(stderr.contains(&format!("cannot listen on {address}")) && stderr.contains("--listen"), "{stderr}");
}

#[test]
fn a_server_without_credentials_is_refused_outside_of_loopback() {
    let stderr = Program::new().run(&["serve", "--listen", "0.0.0.0:0"]).failed(78);
    assert!(stderr.contains("server.auth is not set: set it, or listen on 127.0.0.1"), "{stderr}");
}

#[test]
fn refused_credentials_exit_with_77() {
    let program = Program::new();
    let server = program.file("server.yaml", "server: {auth: {access_keys: [{access_key: AK, secret_key: right}]}}\n");
    let server = program.serve(&["-c", &server]);
    let url = server.url("serving on ");
    let yaml = |secret: &str| {
        format!(
            "dms: {{endpoint: '{url}', auth: {{access_key: AK, secret_key: {secret}}}}}\nworkers:\n  - {{queue: q, group: g, handler: {{log: }}}}\n"
        )
    };
    let wrong = program.file("wrong.yaml", &yaml("wr0ng-s3cret"));
    for args in [&["check", "--online"][..], &["queue", "list"], &["run"]] {
        let output = program.run(&[args, &["-c", &wrong]].concat());
        assert_eq!(output.code, Some(77), "{args:?}: {}", output.stderr);
        assert!(output.stderr.contains("error:") && output.stderr.contains("APIGW.0301"), "{}", output.stderr);
        assert!(!output.stderr.contains("wr0ng-s3cret"));
        if args[0] != "run" {
            assert_eq!(output.stderr.matches("APIGW.0301").count(), 1, "it is said once: {}", output.stderr);
        }
    }
    // Three commands, three bad signatures: had one of them tried again and again, the key would be locked by now.
    let right = program.file("right.yaml", &yaml("right"));
    program.run(&["queue", "list", "-c", &right]).ok();
}

#[test]
fn a_secret_is_shown_nowhere() {
    let program = Program::new();
    let yaml = "dms: {endpoint: 'http://127.0.0.1:1', auth: {access_key: AK, secret_key: pl4nted}}\nserver: {auth: {users: [{user: u, password: pl4nted}]}}\nadmin: {token: pl4nted}\n";
    let file = program.file("c.yaml", yaml);
    for args in [&["config", "show", "--origin"][..], &["config", "show", "-o", "json"], &["-vv", "queue", "list"]] {
        let output = program.run(&[args, &["-c", &file]].concat());
        assert!(
            !output.stdout.contains("pl4nted") && !output.stderr.contains("pl4nted"),
            "{args:?}: {}",
            output.stdout
        );
    }
}
