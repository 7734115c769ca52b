//! Help, completions, the manual page.

use std::{io::Read, process::Stdio};

use super::Program;

/// The commands, and their commands.
pub(super) const COMMANDS: [&[&str]; 58] = [
    &["run"],
    &["serve"],
    &["demo"],
    &["check"],
    &["config", "show"],
    &["config", "schema"],
    &["context", "add"],
    &["context", "list"],
    &["context", "use"],
    &["context", "show"],
    &["context", "remove"],
    &["queue", "create"],
    &["queue", "list"],
    &["queue", "show"],
    &["queue", "update"],
    &["queue", "purge"],
    &["queue", "move"],
    &["queue", "copy"],
    &["queue", "delete"],
    &["group", "create"],
    &["group", "list"],
    &["group", "delete"],
    &["tag", "add"],
    &["tag", "remove"],
    &["tag", "list"],
    &["tag", "project"],
    &["quota"],
    &["send"],
    &["receive"],
    &["peek"],
    &["stats"],
    &["top"],
    &["bench"],
    &["dlq", "list"],
    &["dlq", "show"],
    &["dlq", "dump"],
    &["dlq", "redrive"],
    &["dlq", "discard"],
    &["message", "show"],
    &["message", "retry"],
    &["message", "discard"],
    &["schedule", "list"],
    &["schedule", "add"],
    &["schedule", "pause"],
    &["schedule", "resume"],
    &["schedule", "remove"],
    &["data", "check"],
    &["data", "repair"],
    &["data", "backup"],
    &["data", "verify"],
    &["data", "rebuild-index"],
    &["data", "export"],
    &["data", "import"],
    &["data", "damaged"],
    &["data", "skip"],
    &["health"],
    &["completions"],
    &["man"],
];

#[test]
fn every_command_has_examples_in_its_help() {
    let program = Program::new();
    for command in COMMANDS {
        let help = program.run(&[command, &["--help"]].concat()).ok();
        assert!(help.contains("Examples:") && help.contains("dms-worker "), "{command:?}: {help}");
    }
}

#[test]
fn the_help_lists_the_commands_and_the_exit_codes() {
    let help = Program::new().run(&["--help"]).ok();
    for word in
        ["run ", "serve ", "demo ", "send ", "receive ", "69  the service cannot be reached", "78  the configuration"]
    {
        assert!(help.contains(word), "{word}: {help}");
    }
}

#[test]
fn completions_and_manual_are_printed() {
    let program = Program::new();
    for (shell, word) in [("bash", "complete -F"), ("zsh", "#compdef dms-worker"), ("fish", "complete -c dms-worker")] {
        assert!(program.run(&["completions", shell]).ok().contains(word), "{shell}");
    }
    assert!(program.run(&["man"]).ok().starts_with(".ie"));
    assert!(program.run(&["man", "send"]).ok().contains("\\-\\-attribute"));
    let page = program.run(&["man", "queue", "create"]).ok();
    assert!(page.contains(".TH dms-worker-queue-create 1 \"\" \"dms-worker "), "{page}");
    assert_eq!(
        program.run(&["man", "nothing"]).failed(2),
        "error: there is no command `nothing`: see dms-worker --help\n"
    );
}

#[test]
fn a_closed_output_pipe_is_no_failure() {
    let program = Program::new();
    let mut command = program.command(&["completions", "bash"]);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    drop(child.stdout.take());
    let mut stderr = String::new();
    child.stderr.take().unwrap().read_to_string(&mut stderr).unwrap();
    assert_eq!((child.wait().unwrap().code(), stderr.as_str()), (Some(0), ""));
}
