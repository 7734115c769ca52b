//! `man`: the manual page.

use std::io::{Write, stdout};

use clap::Args;
use clap_mangen::Man;

use super::failure::{Failure, Kind};

/// Options of `man`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  dms-worker man | man -l -                  read it
  dms-worker man send > dms-worker-send.1    the page of one command
  dms-worker man > /usr/local/share/man/man1/dms-worker.1")]
pub(crate) struct ManArgs {
    /// The command whose page is printed; the whole program's by default
    command: Option<String>,
}

/// Prints the page of `program`, or of one of its commands.
pub(crate) fn run(args: &ManArgs, mut program: clap::Command) -> Result<(), Failure> {
    program.build();
    let page = match &args.command {
        None => program,
        Some(name) => {
            let unknown = || Failure::of(Kind::Usage, format!("there is no command `{name}`: see dms-worker --help"));
            program.find_subcommand(name).ok_or_else(unknown)?.clone()
        }
    };
    let mut out = stdout().lock();
    Man::new(page).render(&mut out)?;
    Ok(out.flush()?)
}
