//! [`Printer`]: results on standard output.

use std::io;

use serde::Serialize;

use crate::cli::support::{global_options::Format, table::Table, terminal};

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
            Format::Text => self.text(text),
            Format::Json => self.json(json),
        }
    }

    /// Prints a table for a person, or a list of objects for a program.
    pub(crate) fn table(self, table: &Table, json: &[impl Serialize]) -> io::Result<()> {
        self.print(&table.to_string(), &json)
    }

    /// Prints text in either format.
    pub(crate) fn text(self, text: &str) -> io::Result<()> {
        terminal::print(text)
    }

    /// Prints a line that is JSON in either format.
    pub(crate) fn json_line(self, json: &str) -> io::Result<()> {
        terminal::print_json(json)
    }

    /// Prints JSON in either format.
    pub(crate) fn json(self, value: &impl Serialize) -> io::Result<()> {
        let text = serde_json::to_string_pretty(value).map_err(io::Error::other)?;
        self.json_line(&text)
    }
}
