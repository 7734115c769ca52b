//! `key`: keys that are added and removed while the server runs.

use super::{Program, Running};

/// Lists the queues with this key; the exit code.
fn list(program: &Program, server: &Running, access_key: &str, secret_key: &str) -> Option<i32> {
    let mut command = program.command(&["--endpoint", &server.url("serving on "), "queue", "list"]);
    command.env("DMS_WORKER_DMS__AUTH__ACCESS_KEY", access_key).env("DMS_WORKER_DMS__AUTH__SECRET_KEY", secret_key);
    command.output().unwrap().status.code()
}

#[test]
fn keys_change_while_the_server_runs() {
    let program = Program::new();
    let keys = program.dir().join("keys.yaml").display().to_string();
    let yaml =
        format!("server: {{listen: '127.0.0.1:0', queues: [{{name: orders}}], auth: {{access_keys_file: {keys}}}}}\n");
    let config = program.file("server.yaml", &yaml);
    let nobody = program.run(&["serve", "-c", &config]).failed(78);
    assert!(nobody.contains(&format!("add one with `dms-worker key add --file {keys}`")), "{nobody}");

    let first = program.run(&["-o", "json", "key", "add", "OPERATOR", "--file", &keys]).json();
    let first = first["secret_key"].as_str().unwrap().to_owned();
    let mut server = program.start(&["serve", "-c", &config]);
    assert_eq!(list(&program, &server, "OPERATOR", &first), Some(0));

    // Rotation: another key with the same rights, and then the old one goes.
    let add = ["key", "add", "OPERATOR-2", "--like", "OPERATOR", "-c", &config, "--secret-key-file", "secret"];
    assert_eq!(program.run(&add).ok(), "access_key: OPERATOR-2\n", "the secret is in its file alone");
    server.until("the keys and users were read again");
    let again = ["key", "add", "OPERATOR-3", "-c", &config, "--secret-key-file", "secret"];
    let again = program.run(&again).failed(2);
    assert!(again.contains("secret exists") && again.contains("name another one"), "{again}");
    let second = std::fs::read_to_string(program.dir().join("secret")).unwrap();
    assert_eq!(list(&program, &server, "OPERATOR-2", second.trim()), Some(0));
    program.run(&["key", "remove", "OPERATOR", "-c", &config, "--yes"]).ok();
    server.until("the keys and users were read again");
    assert_eq!(list(&program, &server, "OPERATOR", &first), Some(77));
    assert_eq!(list(&program, &server, "OPERATOR-2", second.trim()), Some(0));

    let last = program.run(&["key", "remove", "OPERATOR-2", "-c", &config, "--yes"]).failed(2);
    assert!(last.contains("the last key") && last.contains("add another one first"), "{last}");
    // A file that is gone or damaged leaves the keys in force.
    std::fs::write(&keys, "planted").unwrap();
    server.until("cannot be used");
    std::fs::remove_file(&keys).unwrap();
    server.until("is missing");
    assert_eq!(list(&program, &server, "OPERATOR-2", second.trim()), Some(0));
    server.signal("TERM");
    let (_, log) = server.wait();
    assert!(!log.contains("planted") && !log.contains(second.trim()), "{log}");
}

/// A mistyped project must not change the keys of the server's own one.
#[test]
fn a_project_that_the_configuration_lacks_is_refused() {
    let program = Program::new();
    let keys = program.dir().join("keys.yaml").display().to_string();
    program.run(&["key", "add", "OPERATOR", "--file", &keys]).ok();
    let yaml = format!("server: {{project_id: shop, auth: {{access_keys_file: {keys}}}}}\n");
    let config = program.file("server.yaml", &yaml);
    program.run(&["key", "list", "-c", &config, "--project-id", "shop"]).ok();
    let unknown = program.run(&["key", "list", "-c", &config, "--project-id", "typo"]).failed(2);
    assert!(unknown.contains("no project typo"), "{unknown}");
}

#[test]
fn keys_have_rights_and_no_list_shows_a_secret() {
    let program = Program::new();
    let key = |args: &[&str]| program.run(&[&["key"], args, &["--file", "keys.yaml"]].concat());
    key(&["add", "SHOP", "--send", "orders", "--send", "invoices-*"]).ok();
    let made = key(&["add"]).ok();
    assert!(made.starts_with("access_key: AK") && made.contains("\nsecret_key: "), "{made}");
    let secret = made.trim().rsplit(' ').next().unwrap();
    let listed = key(&["list"]).ok();
    assert!(
        listed.starts_with("ACCESS KEY") && listed.contains("orders invoices-*") && !listed.contains(secret),
        "{listed}"
    );
    assert!(key(&["add", "SHOP"]).failed(2).contains("there is a key SHOP already"));
    assert!(key(&["add", "X", "--send", "a b"]).failed(2).contains("with * for any part of it"));
    assert!(key(&["add", "X", "--like", "NOBODY"]).failed(2).contains("it has SHOP, AK"));
    assert!(key(&["remove", "SHOP"]).failed(2).contains("--yes"));
    assert!(program.run(&["key", "list"]).failed(2).contains("access_keys_file"));
}

/// A project that has no name of its own is named by its id in requests for tokens.
#[test]
fn a_project_is_named_by_its_id_unless_it_has_a_name() {
    let program = Program::new();
    let user = "{user: u, password: p, domain: d}";
    for (name, named) in [("", "shop"), ("project_name: eu, ", "eu")] {
        let yaml = format!("server: {{listen: '127.0.0.1:0', project_id: shop, {name}auth: {{users: [{user}]}}}}\n");
        let server = program.start(&["serve", "-c", &program.file("server.yaml", &yaml)]);
        let url = server.url("serving on ");
        for (project, code) in [(named, 0), ("local", 77)] {
            let iam = format!("iam: {{endpoint: '{url}', user: u, password: p, domain: d, project: {project}}}");
            let yaml = format!("dms: {{endpoint: '{url}', project_id: shop, auth: {{{iam}}}}}\n");
            let listed = program.run(&["queue", "list", "-c", &program.file("client.yaml", &yaml)]);
            assert_eq!(listed.code, Some(code), "{name}{project}: {}", listed.stderr);
        }
    }
}
