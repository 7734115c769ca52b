//! `man`: the manual pages.

use clap::Args;
use clap_mangen::Man;

use crate::cli::support::{
    failure::{ExitKind, Failure},
    terminal,
};

/// Options of `man`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  dms-worker man | man -l -                  read it
  dms-worker man queue create | man -l -     the page of one command
  dms-worker man > /usr/local/share/man/man1/dms-worker.1")]
pub(crate) struct ManArgs {
    /// A command, as in `send` or `queue create`; by default the main page is printed
    command: Vec<String>,
}

/// Prints the page of `program`, or of one of its commands.
pub(crate) fn run(args: &ManArgs, mut program: clap::Command) -> Result<(), Failure> {
    program.build();
    let version = program.get_version().unwrap_or_default().to_owned();
    let mut page = program;
    for name in &args.command {
        let unknown = || {
            let text = format!("there is no command `{}`: see dms-worker --help", args.command.join(" "));
            Failure::of(ExitKind::Usage, text)
        };
        page = page.find_subcommand(name).ok_or_else(unknown)?.clone();
    }
    let mut text = Vec::new();
    Man::new(page).source(format!("dms-worker {version}")).manual("dms-worker manual").render(&mut text)?;
    // The generator leaves the date out where there is none, so that the source would be taken for it.
    let text = String::from_utf8_lossy(&text).replacen(" 1  \"", " 1 \"\" \"", 1);
    Ok(terminal::print_own(&text)?)
}
