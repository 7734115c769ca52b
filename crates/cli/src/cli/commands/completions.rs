//! `completions`: a script that completes commands and options in a shell.

use clap::Args;
use clap_complete::Shell;

use crate::cli::support::{failure::Failure, terminal};

/// Options of `completions`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  dms-worker completions bash > /etc/bash_completion.d/dms-worker
  dms-worker completions zsh > \"${fpath[1]}/_dms-worker\"
  dms-worker completions fish > ~/.config/fish/completions/dms-worker.fish")]
pub(crate) struct CompletionsArgs {
    /// The shell
    shell: Shell,
}

/// Prints the script for `program`.
pub(crate) fn run(args: &CompletionsArgs, mut program: clap::Command) -> Result<(), Failure> {
    // Into memory first: the generator panics where a write fails.
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut program, "dms-worker", &mut script);
    let mut script = String::from_utf8_lossy(&script).into_owned();
    if args.shell == Shell::Bash {
        // The generator replaces the `-` in the program's name when it lists the subcommands, but not when it detects the current
        // command, so no command would be completed.
        script = script.replace("dms__subcmd__worker", "dms__worker");
    }
    Ok(terminal::print_own(&script)?)
}
