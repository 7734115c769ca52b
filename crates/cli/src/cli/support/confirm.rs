//! Confirmation before something is deleted.

use std::io::{BufRead, IsTerminal, stdin};

use crate::cli::support::{
    failure::{ExitKind, Failure},
    terminal,
};

/// Asks on a terminal whether to go on; elsewhere `--yes` is needed.
///
/// # Errors
/// When the answer is not yes, or there is nobody to ask.
pub(crate) fn confirm(yes: bool, what: &str) -> Result<(), Failure> {
    if yes {
        return Ok(());
    }
    if !stdin().is_terminal() || !terminal::is_watched() {
        return Err(Failure::of(
            ExitKind::Usage,
            format!("{what}: add --yes to confirm, as there is no terminal to ask on"),
        ));
    }
    terminal::ask(&format!("{what}. Go on? [y/N] "));
    let mut answer = String::new();
    // An answer that cannot be read is no.
    let _ = stdin().lock().read_line(&mut answer);
    match answer.trim().to_lowercase().as_str() {
        "y" | "yes" => Ok(()),
        _ => Err(Failure::new("nothing was done")),
    }
}

/// A number of things, in words.
pub(crate) fn counted<N: Copy + PartialEq + From<u8> + std::fmt::Display>(count: N, thing: &str) -> String {
    let plural = if count == N::from(1) { "" } else { "s" };
    format!("{count} {thing}{plural}")
}
