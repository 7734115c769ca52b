//! `schedule`, and `server.schedules`.

use serde_json::{Value, json};

use super::{Output, Program, Running};

/// The admin address of a server.
fn admin(server: &Running) -> String {
    server.url("admin on ").trim_end_matches(')').to_owned()
}

fn schedule<'a>(program: &'a Program, server: &Running) -> impl Fn(&[&str]) -> Output + use<'a> {
    let admin = admin(server);
    move |arguments: &[&str]| program.run(&[&["-o", "json", "schedule"], arguments, &["--admin", &admin]].concat())
}

const CONFIG: &str = "
server:
  listen: 127.0.0.1:0
  admin: 127.0.0.1:0
  data_dir: data
  queues: [{name: reports, groups: [mailer]}]
  schedules:
    - {name: nightly, cron: 0 2 * * *, queue: reports, message: {report: daily}, timezone: Europe/Berlin}
";

#[test]
fn a_schedule_is_added_listed_paused_resumed_and_removed() {
    let program = Program::new();
    let server = program.serve(&["--admin", "127.0.0.1:0"]);
    let (url, admin) = (server.url("serving on "), admin(&server));
    program.run(&["queue", "create", "reports", "--group", "mailer", "--endpoint", &url]).ok();

    let add = ["schedule", "add", "every", "--cron", "* * * * * *", "--queue", "reports", "--message", "hello"];
    let added = program.run(&[add.as_slice(), &["--admin", &admin]].concat());
    assert!(added.stderr.contains("schedule every of queue reports"), "{}", added.stderr);
    assert_eq!(
        added.stderr.lines().filter(|line| line.starts_with("  20")).count(),
        3,
        "three times: {}",
        added.stderr
    );
    // Real seconds: a server that is asked from outside has no other clock.
    let got =
        program.run(&["receive", "reports", "mailer", "--ack", "--wait", "20s", "--max", "1", "--endpoint", &url]);
    let got: Value = serde_json::from_str(got.ok().lines().next().unwrap()).unwrap();
    assert_eq!((&got["body"], &got["attributes"]["dms-schedule"]), (&json!("hello"), &json!("every")), "{got}");
    assert!(got["attributes"]["dms-scheduled-time"].as_str().unwrap().ends_with('Z'), "{got}");

    let run = schedule(&program, &server);
    assert_eq!(run(&["pause", "every"]).json()["paused"], true);
    let listed = run(&["list"]).json();
    let only = &listed[0];
    assert_eq!((&only["source"], &only["next"]), (&json!("command"), &json!([])), "{listed}");
    assert_eq!(only["message"], json!({"body": "hello", "attributes": {}, "tags": []}));
    assert!(only["sent_messages"].as_u64().unwrap() >= 1 && only["last"]["message_id"].is_string(), "{listed}");
    assert_eq!(run(&["resume", "every", "--queue", "reports"]).json()["next"].as_array().unwrap().len(), 3);
    let text = program.run(&["schedule", "list", "--admin", &admin]).ok();
    assert!(text.starts_with("NAME") && text.contains("every") && text.contains("added"), "{text}");
    let unknown = program.run(&["schedule", "pause", "evry", "--admin", &admin]).failed(1);
    assert!(unknown.contains("There is no schedule \"evry\"; did you mean every?"), "{unknown}");
    assert_eq!(run(&["remove", "every"]).json()["name"], "every");
    assert_eq!(run(&["list"]).json(), json!([]));
}

#[test]
fn mistakes_are_wrong_usage_and_an_unknown_queue_names_the_remedy() {
    let program = Program::new();
    let server = program.serve(&["--admin", "127.0.0.1:0"]);
    let admin = admin(&server);
    let add = |cron: &str, zone: &str, message: &str| {
        let add = ["schedule", "add", "x", "--cron", cron, "--timezone", zone, "--queue", "missing"];
        program.run(&[add.as_slice(), &["--message", message, "--admin", &admin]].concat())
    };
    assert!(add("0 25 * * *", "UTC", "1").failed(2).contains("--cron is \"0 25 * * *\": the hour is \"25\""));
    assert!(add("@daily", "Europe/Berlim", "1").failed(2).contains("did you mean Europe/Berlin?"));
    assert!(add("@daily", "UTC", r#"{"body":1,"tag":"a"}"#).failed(2).contains("--message cannot be read"));
    let missing = add("@daily", "UTC", "1").failed(1);
    assert!(
        missing.contains("There is no queue \"missing\": create it first, with `dms-worker queue create`"),
        "{missing}"
    );
}

#[test]
fn schedules_of_the_configuration_are_kept_there() {
    let program = Program::new();
    let file = program.file("config.yaml", CONFIG);
    let mut server = program.start(&["serve", "-c", &file]);
    let run = schedule(&program, &server);
    let listed = run(&["list"]).json();
    assert_eq!(
        (&listed[0]["name"], &listed[0]["source"], &listed[0]["timezone"], &listed[0]["message"]["body"]),
        (&json!("nightly"), &json!("configuration"), &json!("Europe/Berlin"), &json!({"report": "daily"}))
    );
    let refused = run(&["remove", "nightly"]).failed(1);
    assert!(refused.contains("server.schedules in the configuration of the server"), "{refused}");
    assert_eq!(run(&["pause", "nightly"]).json()["paused"], true);
    run(&["add", "mine", "--cron", "@daily", "--queue", "reports", "--message", "1"]).ok();

    // A reload takes changes at once, and resumes nothing.
    let changed = CONFIG.replace("0 2 * * *", "0 3 * * *").replace("message: {report: daily}", "message: other");
    program.file("config.yaml", &changed);
    server.signal("HUP");
    server.until("a schedule was set");
    let listed = run(&["list", "--queue", "reports"]).json();
    let nightly = listed.as_array().unwrap().iter().find(|one| one["name"] == "nightly").unwrap();
    assert_eq!((&nightly["cron"], &nightly["paused"]), (&json!("0 3 * * *"), &json!(true)));
    let without = &changed[..changed.find("  schedules:").unwrap()];
    program.file("config.yaml", without);
    server.signal("HUP");
    server.until("a schedule was removed");
    assert_eq!(run(&["list"]).json().as_array().unwrap().len(), 1, "the one that was added by command stays");
}

/// A schedule whose queue was deleted while the server ran does not keep the server from starting.
#[test]
fn a_configured_schedule_without_its_queue_is_listed_with_the_remedy() {
    let program = Program::new();
    let file = program.file("config.yaml", &CONFIG.replace("queue: reports,", "queue: gone,"));
    let output = program.run(&["check", "-c", &file]);
    assert_eq!(output.code, Some(0), "{}", output.stderr);
    let server = program.start(&["serve", "-c", &file]);
    let waiting = schedule(&program, &server)(&["list"]).json();
    let only = &waiting[0];
    assert_eq!((&only["name"], &only["state"], &only["next"]), (&json!("nightly"), &json!("waiting"), &json!([])));
    assert_eq!((&only["queue"], &only["queue_id"]), (&json!("gone"), &json!(null)), "{waiting}");
    let listed = program.run(&["schedule", "list", "--admin", &admin(&server)]);
    assert!(listed.stdout.contains("waiting"), "{}", listed.stdout);
    let remedy = "schedule nightly of queue gone: it is not in force: ";
    assert!(listed.stderr.contains(remedy) && listed.stderr.contains("server.queues"), "{}", listed.stderr);
    assert_eq!(schedule(&program, &server)(&["list", "--queue", "reports"]).json(), json!([]));
    // The queues of a server in memory are known.
    let file =
        program.file("memory.yaml", &CONFIG.replace("queue: reports,", "queue: gone,").replace("data_dir: data", ""));
    let refused = program.run(&["check", "-c", &file]).failed(78);
    assert!(refused.contains("server.schedules[0].queue: the server has no queue `gone`"), "{refused}");
}
