//! `context`: saved services.

use serde_json::json;

use super::Program;

#[test]
fn commands_use_the_current_context_unless_another_is_named() {
    let program = Program::new();
    let (one, other) = (program.serve(&[]), program.serve(&[]));
    let (one, other) = (one.url("serving on "), other.url("serving on "));
    for (name, url, queue) in [("one", &one, "a"), ("other", &other, "b")] {
        program.run(&["context", "add", name, "--endpoint", url]).ok();
        program.run(&["--endpoint", url, "queue", "create", queue, "--group", "g"]).ok();
    }
    let names = |args: &[&str]| {
        let listed = program.run(&[args, &["-o", "json", "queue", "list"]].concat()).json();
        listed[0]["name"].as_str().unwrap().to_owned()
    };
    assert_eq!((names(&["--context", "one"]), names(&["--context", "other"])), ("a".to_owned(), "b".to_owned()));
    program.run(&["context", "use", "other"]).ok();
    assert_eq!((names(&[]), names(&["--endpoint", &one])), ("b".to_owned(), "a".to_owned()));
    let mut named = program.command(&["-o", "json", "queue", "list"]);
    let named = named.env("DMS_WORKER_CONTEXT", "one").output().unwrap();
    assert!(String::from_utf8(named.stdout).unwrap().contains("\"a\""));
    // A file that was named wins over the current context, and one that was only found does not.
    let file = program.file("config.yaml", &format!("dms: {{endpoint: '{one}', auth: {{token: other-service}}}}\n"));
    assert_eq!((names(&["-c", &file]), names(&[])), ("a".to_owned(), "b".to_owned()));

    // What goes to the admin address goes to the server of the context, or nowhere.
    let purge = program.run(&["queue", "purge", "b", "--yes"]).failed(2);
    assert!(purge.contains("is not known: name it with --admin"), "{purge}");

    let listed = program.run(&["context", "list"]).ok();
    assert!(listed.starts_with("CURRENT  NAME") && listed.contains("*        other"), "{listed}");
    let shown = program.run(&["-o", "json", "context", "show"]).json();
    assert_eq!(shown, json!({"name": "other", "current": true, "endpoint": other}));
    program.run(&["context", "remove", "other"]).ok();
    let stderr = program.run(&["--context", "other", "queue", "list"]).failed(78);
    assert!(stderr.contains("there is no context `other`: there are one"), "{stderr}");
    assert!(program.run(&["context", "show"]).failed(2).contains("no context is current"));
}

#[test]
fn a_context_has_the_project_and_the_file_of_the_secret_and_never_the_secret() {
    let program = Program::new();
    let server = program.file(
        "server.yaml",
        "server: {projects: [{id: p1, name: one, auth: {access_keys: [{access_key: AK, secret_key: planted}]}}]}\n",
    );
    let server = program.serve(&["-c", &server]);
    let url = server.url("serving on ");
    program.file("secret", "planted\n");
    let add = ["context", "add", "prod", "--endpoint", &url, "--project-id", "p1", "--use"];
    program.run(&[&add[..], &["--access-key", "AK", "--secret-key-file", "secret"]].concat()).ok();
    program.run(&["queue", "create", "q"]).ok();
    let saved = std::fs::read_to_string(program.dir().join(".config/dms-worker/contexts.yaml")).unwrap();
    assert!(saved.contains("project_id: p1") && !saved.contains("planted"), "{saved}");
    // With the server's own configuration, its project comes with its key.
    let file = program.dir().join("server.yaml").display().to_string();
    let address = url.strip_prefix("http://").unwrap();
    let mut here = program.command(&["-o", "json", "-c", &file, "queue", "list"]);
    let here = here.env("DMS_WORKER_SERVER__LISTEN", address).output().unwrap();
    assert!(String::from_utf8(here.stdout).unwrap().contains("\"q\""), "{}", String::from_utf8_lossy(&here.stderr));

    let again = program.run(&["context", "add", "prod", "--endpoint", &url]).failed(2);
    assert!(again.contains("add --replace"), "{again}");
    let secret = program.run(&["context", "add", "x", "--endpoint", "http://u:planted@h"]).failed(2);
    assert!(secret.contains("holds a secret") && !secret.contains("planted"), "{secret}");
    assert!(program.run(&["context", "add", "x"]).failed(2).contains("add --endpoint URL, or -c FILE"));
}

/// Options override variables, and what is named overrides what is only current.
#[test]
fn options_override_variables() {
    const CONTEXT: (&str, &str) = ("DMS_WORKER_CONTEXT", "env");
    const CONFIG: (&str, &str) = ("DMS_WORKER_CONFIG", "env.yaml");
    const ENDPOINT: (&str, &str) = ("DMS_WORKER_DMS__ENDPOINT", "http://127.0.0.1:6");
    const TOKEN: (&str, &str) = ("DMS_WORKER_DMS__AUTH__TOKEN", "planted");
    let program = Program::new();
    program.file("flag.yaml", "dms: {endpoint: 'http://127.0.0.1:1'}\n");
    program.file("env.yaml", "dms: {endpoint: 'http://127.0.0.1:2'}\n");
    program.file("secret", "planted");
    for (name, port) in [("flag", 3), ("env", 4), ("current", 5)] {
        let endpoint = format!("http://127.0.0.1:{port}");
        let credentials = ["--access-key", "AK", "--secret-key-file", "secret"];
        program.run(&[&["context", "add", name, "--endpoint", &endpoint], &credentials[..]].concat()).ok();
    }
    let port = |current: bool, variables: &[(&str, &str)], options: &[&str]| {
        let using = if current { &["context", "use", "current"][..] } else { &["context", "use", "--none"] };
        program.run(using).ok();
        let mut command = program.command(&[options, &["queue", "list"]].concat());
        let output = command.envs(variables.iter().copied()).output().unwrap();
        let stderr = String::from_utf8(output.stderr).unwrap();
        let (_, after) = stderr.split_once("running at http://127.0.0.1:").unwrap_or_else(|| panic!("{stderr}"));
        after.split_once('?').unwrap().0.to_owned()
    };
    let (file, context, endpoint) = (["-c", "flag.yaml"], ["--context", "flag"], ["--endpoint", "http://127.0.0.1:7"]);
    let every = [CONTEXT, CONFIG, ENDPOINT];
    for (expected, current, variables, options) in [
        ("7", true, &every[..], &[endpoint, context, file].concat()[..]),
        ("7", true, &every, &endpoint),
        ("3", true, &every, &context),
        ("3", true, &[ENDPOINT, TOKEN], &context),
        ("3", false, &[], &[context, file].concat()),
        ("1", true, &[CONTEXT, CONFIG], &file),
        // The contract of the configuration: variables override files.
        ("6", true, &every, &file),
        ("4", true, &[CONTEXT, CONFIG], &[]),
        ("6", true, &every, &[]),
        ("2", true, &[CONFIG], &[]),
        ("5", true, &[], &[]),
        ("6", true, &[ENDPOINT], &[]),
        ("6", false, &[ENDPOINT], &[]),
    ] {
        assert_eq!(port(current, variables, options), expected, "{current} {variables:?} {options:?}");
    }
}

/// The log's filter is one more setting with a variable.
#[test]
fn quiet_and_verbose_override_the_variable_of_the_log() {
    let program = Program::new();
    let stderr = |options: &[&str]| {
        let mut command = program.command(&[options, &["--endpoint", "http://127.0.0.1:1", "queue", "list"]].concat());
        String::from_utf8(command.env("RUST_LOG", "dms_worker=debug").output().unwrap().stderr).unwrap()
    };
    assert!(stderr(&[]).contains("DEBUG"), "{}", stderr(&[]));
    assert!(!stderr(&["-q"]).contains("DEBUG"), "{}", stderr(&["-q"]));
}
