//! [`Printer`]: results on standard output.

use std::io::{self, Write, stdout};

use serde::Serialize;

use super::{global::Format, table::Table};

/// Prints results in the format asked for. Every write is flushed, and its errors are the caller's: a closed pipe ends
/// the command.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Printer {
    format: Format,
}

impl Printer {
    /// A printer of this format.
    pub(crate) fn new(format: Format) -> Self {
        Self { format }
    }

    /// Prints `text` for a person, or `json` for a program.
    pub(crate) fn print(self, text: &str, json: &impl Serialize) -> io::Result<()> {
        match self.format {
            Format::Text => self.line(text),
            Format::Json => self.json(json),
        }
    }

    /// Prints a table for a person, or a list of objects for a program.
    pub(crate) fn table(self, table: &Table, json: &[impl Serialize]) -> io::Result<()> {
        self.print(&table.to_string(), &json)
    }

    /// Prints a line in either format.
    pub(crate) fn line(self, text: &str) -> io::Result<()> {
        let mut out = stdout().lock();
        writeln!(out, "{}", text.trim_end_matches('\n'))?;
        out.flush()
    }

    /// Prints JSON in either format.
    pub(crate) fn json(self, value: &impl Serialize) -> io::Result<()> {
        let text = serde_json::to_string_pretty(value).map_err(io::Error::other)?;
        self.line(&text)
    }
}
