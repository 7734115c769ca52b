//! `queue purge` and `queue update`, and what a configuration says about how long queues keep messages.

use serde_json::json;

use super::{Output, Program, Running};

/// Its admin address.
fn admin(server: &Running) -> String {
    server.url("admin on ").trim_end_matches(')').to_owned()
}

/// A server with a queue `q`, two groups, three messages and one that is not due.
fn filled(program: &Program) -> Running {
    let server = program.serve(&["--admin", "127.0.0.1:0"]);
    let dms = client(program, &server);
    dms(&["queue", "create", "q", "--group", "a", "--group", "b"]).ok();
    for body in ["1", "2", "3"] {
        dms(&["send", "q", body]).ok();
    }
    dms(&["send", "q", "4", "--delay", "1h"]).ok();
    server
}

fn client<'a>(program: &'a Program, server: &Running) -> impl Fn(&[&str]) -> Output + use<'a> {
    let (url, admin) = (server.url("serving on "), admin(server));
    move |arguments: &[&str]| {
        let of_admin =
            matches!(arguments, ["queue", "purge" | "update", ..] | ["-o", "json", "queue", "purge" | "update", ..]);
        let address: &[&str] = if of_admin { &["--admin", &admin] } else { &["--endpoint", &url] };
        program.run(&[arguments, address].concat())
    }
}

#[test]
fn a_purge_asks_for_confirmation_and_reports_its_result() {
    let program = Program::new();
    let server = filled(&program);
    let dms = client(&program, &server);

    let asked = dms(&["queue", "purge", "q"]).failed(2);
    assert!(
        asked.contains("4 messages of queue q at ")
            && asked.contains(" will be deleted, for all of its groups: add --yes"),
        "{asked}"
    );
    let asked = dms(&["queue", "purge", "q", "--group", "a"]).failed(2);
    assert!(
        asked.contains("3 messages of queue q at ") && asked.contains(" will be deleted for group a: add --yes"),
        "{asked}"
    );
    assert!(dms(&["queue", "purge", "other", "--yes"]).failed(1).contains("the server has no queue other"));
    assert!(dms(&["queue", "purge", "q", "--group", "c", "--yes"]).failed(1).contains("queue q has no group c"));

    let purged = dms(&["-o", "json", "queue", "purge", "q", "--group", "a", "--yes"]).json();
    assert_eq!((&purged["queue"], &purged["group"]), (&"q".into(), &"a".into()), "{purged}");
    assert_eq!((&purged["purged_messages"], &purged["purged_delayed_messages"]), (&3.into(), &0.into()), "{purged}");
    assert_eq!(dms(&["receive", "--ack", "q", "a", "--wait", "1s"]).ok(), "");
    assert_eq!(dms(&["receive", "--ack", "q", "b", "--wait", "1s", "--max", "1"]).received(), "{\"body\":1}\n");

    let purged = dms(&["queue", "purge", "q", "--yes"]);
    assert!(purged.stderr.contains("purged 4 messages of queue q"), "{}", purged.stderr);
    assert_eq!(dms(&["-o", "json", "queue", "show", "q"]).json()["produced_messages"], 0);
}

/// A purge must not reach another server's messages.
#[test]
fn the_admin_address_of_another_server_is_not_used() {
    let program = Program::new();
    let server = filled(&program);
    let admin = admin(&server);
    let address = admin.trim_start_matches("http://");
    let url = server.url("serving on ");
    let listen = url.trim_start_matches("http://");
    let file = program.file("config.yaml", &format!("server: {{listen: '{listen}', admin: '{address}'}}\n"));
    for command in [["queue", "purge", "q", "--yes"].as_slice(), &["queue", "update", "q", "--retention", "1h"]] {
        let other = program.run(&[command, &["-c", &file, "--endpoint", "http://127.0.0.1:9"]].concat()).failed(2);
        assert!(other.contains("the admin address of http://127.0.0.1:9 is not known"), "{other}");
        let own = program.run(&[command, &["-c", &file, "--endpoint", &url]].concat());
        assert!(own.stderr.contains(&format!("at {admin}")), "the server is named: {}", own.stderr);
    }
}

#[test]
fn purge_and_update_need_the_admin_address_of_the_server() {
    let program = Program::new();
    for arguments in [["queue", "purge", "q", "--yes"].as_slice(), &["queue", "update", "q", "--retention", "1h"]] {
        let said = program.run(arguments).failed(2);
        assert!(said.contains("--admin") && said.contains("server.admin"), "{said}");
    }
}

#[test]
fn the_retention_of_a_queue_is_set_and_reset() {
    let program = Program::new();
    let server = filled(&program);
    let dms = client(&program, &server);
    let set = dms(&["queue", "update", "q", "--retention", "12h", "--delete-when-settled", "true"]);
    assert!(set.stderr.contains(" keeps messages for 12h, or until every group has settled them"), "{}", set.stderr);
    assert_eq!(dms(&["-o", "json", "queue", "show", "q"]).json()["reservation_minutes"], 720);
    let back = ["-o", "json", "queue", "update", "q", "--retention", "default", "--delete-when-settled", "default"];
    let back = dms(&back).json();
    assert_eq!((&back["retention_ms"], &back["delete_when_settled"]), (&json!(259_200_000), &json!(false)));
    for (wrong, said) in [("73h", "1s to 72h are allowed, or default"), ("0s", "1s to 72h"), ("12", "12s for seconds")]
    {
        let refused = dms(&["queue", "update", "q", "--retention", wrong]).failed(2);
        assert!(refused.contains(said), "{refused}");
    }
    assert!(dms(&["queue", "update", "q"]).failed(2).contains("--retention"), "something has to be set");
}

/// From the file and from the environment, for all queues and for one.
#[test]
fn the_configuration_sets_the_retention() {
    let program = Program::new();
    let yaml = "server:\n  listen: 127.0.0.1:0\n  admin: 127.0.0.1:0\n  retention: 2h\n  queues:\n    - {name: plain}\n    - {name: short, retention: 90s}\n    - {name: lean, delete_when_settled: true, groups: [a]}\n";
    program.file("config.yaml", yaml);
    let server = program.start(&["serve", "-c", "config.yaml"]);
    let dms = client(&program, &server);
    let minutes = |queue| dms(&["-o", "json", "queue", "show", queue]).json()["reservation_minutes"].clone();
    assert_eq!([minutes("plain"), minutes("short"), minutes("lean")], [json!(120), json!(2), json!(120)]);
    let refused = dms(&["queue", "update", "short", "--retention", "1h"]).failed(1);
    assert!(refused.contains("configuration of the server sets retention of this queue"), "{refused}");

    dms(&["send", "lean", "1"]).ok();
    dms(&["receive", "--ack", "lean", "a", "--wait", "5s"]).ok();
    while dms(&["-o", "json", "queue", "show", "lean"]).json()["produced_messages"] != 0 {}
    dms(&["group", "create", "lean", "late"]).ok();
    assert_eq!(
        dms(&["receive", "--ack", "lean", "late", "--wait", "1s"]).ok(),
        "",
        "settled before there was this group"
    );
    drop(server);

    let mut command = program.command(&["serve", "-c", "config.yaml"]);
    let server = Running::start(command.env("DMS_WORKER_SERVER__RETENTION", "5h"));
    let dms = client(&program, &server);
    assert_eq!(dms(&["-o", "json", "queue", "show", "plain"]).json()["reservation_minutes"], 300);
}

/// The other properties of a queue.
#[test]
fn an_update_changes_the_description_and_the_dead_letters() {
    let program = Program::new();
    let server = filled(&program);
    let dms = client(&program, &server);
    let done = dms(&["queue", "update", "q", "--max-consume-count", "5", "--description", "new orders"]);
    assert!(
        done.stderr.contains("makes a message a dead letter after 5 failures; it is described as: new orders"),
        "{done:?}"
    );
    let shown = dms(&["-o", "json", "queue", "show", "q"]).json();
    assert_eq!((&shown["max_consume_count"], &shown["description"]), (&5.into(), &"new orders".into()), "{shown}");
    let done = dms(&["queue", "update", "q", "--max-consume-count", "none", "--description", ""]);
    assert!(done.stderr.contains("has no dead letters; it has no description"), "{done:?}");
    assert!(
        dms(&["queue", "update", "q", "--max-consume-count", "101"])
            .failed(2)
            .contains("1 to 100 are allowed, or none")
    );
    assert!(dms(&["queue", "update", "q"]).failed(2).contains("nothing to set"));
}
