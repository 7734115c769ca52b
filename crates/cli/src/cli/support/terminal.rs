//! Writes everything that the command prints to standard output and standard error.
//!
//! The text may come from a service, a message or a file, so terminal control characters are escaped here and no command can forget it
//! (clippy refuses the other ways to write in `cli`). JSON is written unchanged to a program; on a terminal its control characters are
//! written as JSON escapes.

#![allow(clippy::disallowed_methods, clippy::disallowed_macros, reason = "this is the one place")]

use std::{
    borrow::Cow,
    io::{self, IsTerminal, Write, stderr, stdout},
};

use crate::cli::support::drawing::undisturbed;
use dms_protocol::internal::visible::{visible_json, visible_lines};

/// Whether standard error is a terminal.
pub(crate) fn is_watched() -> bool {
    stderr().is_terminal()
}

/// Whether standard error may be written with colours.
pub(crate) fn has_colors() -> bool {
    !matches!(anstream::AutoStream::choice(&stderr()), anstream::ColorChoice::Never)
}

/// Standard output as a file, for its properties only: all text goes through the functions below.
///
/// # Errors
/// When it is closed.
#[cfg(unix)]
pub(crate) fn output() -> io::Result<std::fs::File> {
    use std::os::fd::AsFd;
    stdout().as_fd().try_clone_to_owned().map(std::fs::File::from)
}

/// Writes text of one or several lines to standard output.
///
/// # Errors
/// When it cannot be written; every write is flushed.
pub(crate) fn print(text: &str) -> io::Result<()> {
    write_line(&visible_lines(text))
}

/// Writes a piece of JSON to standard output.
///
/// # Errors
/// When it cannot be written; every write is flushed.
pub(crate) fn print_json(json: &str) -> io::Result<()> {
    write_line(&json_for(json, stdout().is_terminal()))
}

/// Writes text that only this program produced, such as a script, to standard output without escapes.
///
/// # Errors
/// When it cannot be written; every write is flushed.
pub(crate) fn print_own(text: &str) -> io::Result<()> {
    let mut out = stdout().lock();
    out.write_all(text.as_bytes())?;
    out.flush()
}

/// Switches to the alternate screen, without a cursor.
///
/// # Errors
/// When it cannot be written.
pub(crate) fn enter_screen() -> io::Result<()> {
    print_own("\u{1b}[?1049h\u{1b}[?25l")
}

/// Draws lines over the alternate screen. The whole frame is one write, so that it does not flicker.
///
/// # Errors
/// When it cannot be written.
pub(crate) fn draw_screen(lines: &[String]) -> io::Result<()> {
    let lines: Vec<String> = lines.iter().map(|line| format!("{}\u{1b}[K", visible_lines(line))).collect();
    // No newline after the last line, because it would scroll a full screen.
    print_own(&format!("\u{1b}[H{}\u{1b}[J", lines.join("\r\n")))
}

/// Leaves the alternate screen.
///
/// # Errors
/// When it cannot be written.
pub(crate) fn leave_screen() -> io::Result<()> {
    print_own("\u{1b}[?25h\u{1b}[?1049l")
}

fn write_line(text: &str) -> io::Result<()> {
    let write = || {
        let mut out = stdout().lock();
        writeln!(out, "{}", text.trim_end_matches('\n'))?;
        out.flush()
    };
    // A file or a pipe does not disturb the progress bar.
    if stdout().is_terminal() { undisturbed(write) } else { write() }
}

/// Writes text of one or several lines to standard error.
pub(crate) fn tell(text: &str) {
    undisturbed(|| anstream::eprintln!("{}", visible_lines(text)));
}

/// Writes a coloured heading of this program and then text to standard error.
pub(crate) fn tell_styled(head: &str, text: &str) {
    undisturbed(|| anstream::eprintln!("{head}{}", visible_lines(text)));
}

/// Writes text to standard error without a newline.
pub(crate) fn ask(question: &str) {
    anstream::eprint!("{}", visible_lines(question));
}

/// Writes a piece of JSON to standard error.
pub(crate) fn tell_json(json: &str) {
    undisturbed(|| eprintln!("{}", json_for(json, is_watched())));
}

fn json_for(json: &str, terminal: bool) -> Cow<'_, str> {
    if terminal { visible_json(json) } else { Cow::Borrowed(json) }
}

/// Standard error for the log's lines of text, whose fields are escaped where they are written.
pub(crate) fn log_text() -> impl Write {
    LogLines(stderr())
}

/// Lines of the log, each written at once.
struct LogLines<W>(W);

impl<W: Write> Write for LogLines<W> {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        undisturbed(|| self.0.write(line))
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

/// Standard error for the log's lines of JSON, each written at once.
pub(crate) fn log_json() -> impl Write {
    JsonLines { out: stderr(), terminal: is_watched() }
}

struct JsonLines<W> {
    out: W,
    terminal: bool,
}

impl<W: Write> Write for JsonLines<W> {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let text = String::from_utf8_lossy(line);
        self.out.write_all(json_for(&text, self.terminal).as_bytes())?;
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn json_is_escaped_for_a_terminal_alone() {
        let line = "{\"message\":\"\u{9b}2J\u{202e}\"}\n";
        let written = |terminal| {
            let mut lines = JsonLines { out: Vec::new(), terminal };
            lines.write_all(line.as_bytes()).unwrap();
            String::from_utf8(lines.out).unwrap()
        };
        assert_eq!(written(true), "{\"message\":\"\\u009b2J\\u202e\"}\n");
        assert_eq!(written(false), line);
    }
}
