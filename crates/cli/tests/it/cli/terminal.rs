//! Output for people and for programs: width, colours, JSON from every command, completions.

use std::process::Command;

use serde_json::json;

use super::{Program, help::COMMANDS};

#[test]
fn every_help_fits_eighty_columns() {
    let program = Program::new();
    let groups: [&[&str]; 6] = [&[], &["config"], &["queue"], &["group"], &["tag"], &["dlq"]];
    for command in groups.iter().chain(&COMMANDS) {
        let output = program.command(&[command, &["--help"][..]].concat()).env("COLUMNS", "80").output().unwrap();
        let help = String::from_utf8(output.stdout).unwrap();
        assert!(help.contains("Examples:"), "{command:?} has no examples: {help}");
        // Their values are on one line each, and so is an option: the whole fits two screens.
        assert!(!help.contains("Possible values:"), "{command:?}: {help}");
        if let Some(line) = help.lines().find(|line| line.chars().count() > 80) {
            panic!("{command:?}: {line}");
        }
    }
}

#[test]
fn colours_follow_the_flag_and_the_environment() {
    let program = Program::new();
    let error = |args: &[&str], variable: Option<&str>| {
        let mut command = program.command(&[args, &["queue", "list", "--endpoint", "http://127.0.0.1:1"]].concat());
        if let Some(name) = variable {
            command.env(name, "1");
        }
        String::from_utf8(command.output().unwrap().stderr).unwrap()
    };
    assert!(!error(&[], None).contains('\u{1b}'), "a pipe has no colours");
    assert!(error(&["--color", "always"], None).starts_with("\u{1b}[1;31merror:"));
    assert!(error(&["--color", "always"], Some("NO_COLOR")).contains('\u{1b}'), "a flag is over a variable");
    assert!(!error(&["--color", "never"], Some("CLICOLOR_FORCE")).contains('\u{1b}'));
    assert!(error(&[], Some("CLICOLOR_FORCE")).contains('\u{1b}'));
}

#[test]
fn help_and_usage_errors_follow_the_color_flag() {
    let program = Program::new();
    let shown = |args: &[&str], forced: bool| {
        let mut command = program.command(args);
        if forced {
            command.env("CLICOLOR_FORCE", "1");
        }
        let output = command.output().unwrap();
        String::from_utf8([output.stdout, output.stderr].concat()).unwrap()
    };
    for asked in [&["queue", "--help"][..], &["queue", "nothing"]] {
        assert!(shown(&[&["--color", "always"], asked].concat(), false).contains('\u{1b}'), "{asked:?}");
        assert!(shown(asked, true).contains('\u{1b}'), "{asked:?}");
        assert!(!shown(&[&["--color=never"], asked].concat(), true).contains('\u{1b}'), "{asked:?}");
    }
}

#[test]
fn a_refused_group_name_creates_no_queue() {
    let program = Program::new();
    let server = program.serve(&[]);
    let url = server.url("serving on ");
    let create = ["--endpoint", &url, "queue", "create", "q"];
    let stderr = program.run(&[&create[..], &["--group", "a b"]].concat()).failed(2);
    assert!(stderr.contains("group name is \"a b\""), "{stderr}");
    assert_eq!(program.run(&["--endpoint", &url, "queue", "list", "-o", "json"]).json(), json!([]));
    let four = ["--group", "a", "--group", "b", "--group", "c", "--group", "d"];
    let stderr = program.run(&[&create[..], &four].concat()).failed(1);
    assert!(stderr.contains("queue q was created, but not its groups") && stderr.contains("group create"), "{stderr}");
}

#[test]
fn every_change_is_reported_in_json() {
    let program = Program::new();
    let server = program.serve(&[]);
    let url = server.url("serving on ");
    let run = |args: &[&str]| program.run(&[args, &["-o", "json", "--endpoint", &url]].concat()).json();
    let queue = run(&["queue", "create", "q", "--max-consume-count", "3"])["id"].clone();
    let group = run(&["group", "create", "q", "g"])[0]["id"].clone();
    let tags = [json!({ "key": "env", "value": "prod" })];
    assert_eq!(run(&["tag", "add", "q", "env=prod"]), json!({ "queue": "q", "added": tags }));
    assert_eq!(run(&["tag", "remove", "q", "env=prod"]), json!({ "queue": "q", "removed": tags }));
    assert_eq!(run(&["dlq", "discard", "q", "g", "--yes"])["discarded"], 0);
    let deleted = json!({ "deleted": { "id": group, "name": "g", "queue": "q" } });
    assert_eq!(run(&["group", "delete", "q", "g", "--yes"]), deleted);
    assert_eq!(run(&["queue", "delete", "q", "--yes"]), json!({ "deleted": { "id": queue, "name": "q" } }));
    assert_eq!(run(&["queue", "list"]), json!([]));
}

#[test]
fn destructive_commands_need_a_confirmation() {
    let program = Program::new();
    let server = program.serve(&[]);
    let url = server.url("serving on ");
    program.run(&["--endpoint", &url, "queue", "create", "q", "--group", "g"]).ok();
    for args in [&["queue", "delete", "q"][..], &["group", "delete", "q", "g"]] {
        let stderr = program.run(&[args, &["--endpoint", &url]].concat()).failed(2);
        assert!(stderr.contains("will be deleted: add --yes to confirm"), "{stderr}");
    }
    program.run(&["--endpoint", &url, "group", "delete", "q", "g", "--yes"]).ok();
}

#[test]
fn bash_completes_commands_and_options() {
    let program = Program::new();
    let script = program.run(&["completions", "bash"]).ok();
    // The script says which of its functions completes.
    let function = script.split("complete -F ").nth(1).unwrap().split(' ').next().unwrap().to_owned();
    let script = program.file("complete.bash", &script);
    let complete = |words: &str| {
        let text = format!(
            "source {script}; COMP_WORDS=({words}); COMP_CWORD=$((${{#COMP_WORDS[@]}} - 1)); {function} dms-worker \"${{COMP_WORDS[COMP_CWORD]}}\" \"${{COMP_WORDS[COMP_CWORD-1]}}\"; echo \"${{COMPREPLY[@]}}\""
        );
        let output = Command::new("bash").args(["--norc", "-c", &text]).output().unwrap();
        assert!(output.stderr.is_empty(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    };
    assert_eq!(complete("dms-worker qu"), "queue quota");
    assert_eq!(complete("dms-worker queue cr"), "create");
    assert_eq!(complete("dms-worker config s"), "show schema");
    assert_eq!(complete("dms-worker serve --data"), "--data-dir");
    assert_eq!(complete("dms-worker --output j"), "json");
}
