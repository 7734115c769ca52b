//! `man`: the manual page.

use std::io::{Write, stdout};

use clap::{Args, CommandFactory};
use clap_mangen::Man;

use super::{
    args::Cli,
    failure::{Failure, Kind},
};

/// Options of `man`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  dms-worker man | man -l -                                read it
  dms-worker man > /usr/local/share/man/man1/dms-worker.1  install it
  dms-worker man send > dms-worker-send.1                  the page of one command")]
pub(crate) struct ManArgs {
    /// The command whose page is printed; the whole program's by default
    command: Option<String>,
}

/// Prints the page.
pub(crate) fn run(args: &ManArgs) -> Result<(), Failure> {
    let mut root = Cli::command();
    root.build();
    let page = match &args.command {
        None => root,
        Some(name) => {
            let unknown = || Failure::of(Kind::Usage, format!("there is no command `{name}`: see dms-worker --help"));
            root.find_subcommand(name).ok_or_else(unknown)?.clone()
        }
    };
    let mut out = stdout().lock();
    Man::new(page).render(&mut out)?;
    Ok(out.flush()?)
}
