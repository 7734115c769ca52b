//! The output of the program, word for word: help, errors, and a configuration with all its mistakes, against the files of `snapshots/`.
//!
//! `DMS_UPDATE_SNAPSHOTS=1 cargo test --test it snapshots` writes them again; review the change in the diff.

use std::{collections::BTreeSet, fs, path::PathBuf};

use super::{Output, Program, help::COMMANDS};

fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/it/cli/snapshots")
}

fn is_update() -> bool {
    std::env::var_os("DMS_UPDATE_SNAPSHOTS").is_some()
}

/// Compares with the file of this name; the program's own directory stands there as `DIR`.
#[track_caller]
fn compare(name: &str, program: &Program, Output { code, stdout, stderr, .. }: &Output) {
    let text = format!("{stdout}{stderr}(exit code {})\n", code.unwrap_or(-1));
    let text = text.replace(&program.dir().display().to_string(), "DIR");
    let path = folder().join(name).with_extension("txt");
    if is_update() {
        fs::create_dir_all(folder()).unwrap();
        fs::write(&path, &text).unwrap();
    }
    let expected = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    assert_eq!(text, expected, "{name}: see the head of this file for how to accept a change");
}

#[test]
fn the_help_of_every_command() {
    let program = Program::new();
    compare("help", &program, &program.run(&["--help"]));
    for command in COMMANDS {
        compare(&format!("help-{}", command.join("-")), &program, &program.run(&[command, &["--help"]].concat()));
    }
}

#[test]
fn errors_of_use() {
    let program = Program::new();
    let cases: [(&str, &[&str]); 4] = [
        ("error-unknown-command", &["sned"]),
        ("error-missing-argument", &["send"]),
        ("error-without-unit", &["receive", "q", "g", "--wait", "20"]),
        ("error-not-there", &["--endpoint", "http://127.0.0.1:1", "queue", "list"]),
    ];
    for (name, args) in cases {
        compare(name, &program, &program.run(args));
    }
}

#[test]
fn all_mistakes_of_a_configuration() {
    let program = Program::new();
    let file = program.file(
        "wrong.yaml",
        "dms: {endpoint: 'ftp://x', projct_id: p}\n\
         workers:\n\
         - {queue: orders, group: billing, concurrency: 0, ack_wait: 400s, handler: {http: {url: 'nowhere'}}}\n\
         - {queue: mails, ordering: kye, handler: {log: {}}}\n\
         publishers: [{listen: '127.0.0.1:1'}]\n",
    );
    compare("check-mistakes", &program, &program.run(&["check", "-c", &file]));
    compare("check-mistakes-json", &program, &program.run(&["-o", "json", "check", "-c", &file]));
}

#[test]
fn a_configuration_with_its_origins_and_without_its_secrets() {
    let program = Program::new();
    let file = program.file(
        "good.yaml",
        "dms: {endpoint: 'http://127.0.0.1:9400', auth: {access_key: A, secret_key: planted}}\n\
         workers: [{queue: orders, group: billing, handler: {log: {}}}]\n",
    );
    compare("config-show-origin", &program, &program.run(&["config", "show", "--origin", "-c", &file]));
}

/// A file that no test reads any more says nothing.
#[test]
fn no_snapshot_is_left_over() {
    let others = [
        "help",
        "error-unknown-command",
        "error-missing-argument",
        "error-without-unit",
        "error-not-there",
        "check-mistakes",
        "check-mistakes-json",
        "config-show-origin",
    ];
    let commands = COMMANDS.iter().map(|command| format!("help-{}", command.join("-")));
    let known: BTreeSet<String> = others.iter().map(|name| (*name).to_owned()).chain(commands).collect();
    let there = fs::read_dir(folder()).unwrap().map(|entry| entry.unwrap().path());
    let there: BTreeSet<String> = there.map(|path| path.file_stem().unwrap().to_string_lossy().into_owned()).collect();
    assert_eq!(there, known);
}
