//! What became of the lines: progress, ids, refusals, and the closing count.

use std::process::ExitCode;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde_json::json;

use crate::{
    cli::{context::Context, failure::Failure, global::Format},
    message::MessageId,
};

/// Counts what was sent and what was refused, and shows it on the way.
pub(super) struct Report<'a> {
    context: &'a Context,
    bar: ProgressBar,
    sent: u64,
    refused: Vec<(u64, String)>,
    ids: Vec<String>,
}

impl<'a> Report<'a> {
    /// Begins, with a bar on a terminal where the size of the input is known.
    pub(super) fn new(context: &'a Context, size: Option<u64>) -> Self {
        let bar = match size {
            Some(size) if context.shows_progress() => {
                ProgressBar::with_draw_target(Some(size), ProgressDrawTarget::stderr())
            }
            _ => ProgressBar::hidden(),
        };
        let style = ProgressStyle::with_template("{bar:40} {percent:>3} %  {msg}  {elapsed}");
        bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
        Self { context, bar, sent: 0, refused: Vec::new(), ids: Vec::new() }
    }

    /// So many bytes were read.
    pub(super) fn read(&self, bytes: u64) {
        self.bar.inc(bytes);
    }

    /// A line was sent.
    ///
    /// # Errors
    /// When its id cannot be printed.
    pub(super) fn sent(&mut self, id: Option<&MessageId>) -> Result<(), Failure> {
        self.sent += 1;
        self.bar.set_message(format!("{} sent", self.sent));
        match (self.context.global.output, id) {
            (Format::Text, Some(id)) => self.bar.suspend(|| self.context.printer().line(id.as_str()))?,
            (Format::Json, Some(id)) => self.ids.push(id.to_string()),
            (_, None) => {}
        }
        Ok(())
    }

    /// A line was refused.
    pub(super) fn refused(&mut self, number: u64, reason: String) {
        if self.context.global.output == Format::Text {
            self.bar.suspend(|| eprintln!("line {number}: {reason}"));
        }
        self.refused.push((number, reason));
    }

    /// The command ends before these lines were sent.
    pub(super) fn stopped(&self, numbers: &[u64]) {
        self.bar.finish_and_clear();
        if let Some(first) = numbers.first() {
            self.context.say(&format!("{} messages were sent; stopped at line {first}", self.sent));
        }
    }

    /// The closing count, and the exit code.
    ///
    /// # Errors
    /// When it cannot be printed.
    pub(super) fn finish(self, queue: &str) -> Result<ExitCode, Failure> {
        self.bar.finish_and_clear();
        if self.context.global.output == Format::Json {
            let refused: Vec<_> =
                self.refused.iter().map(|(line, reason)| json!({ "line": line, "reason": reason })).collect();
            let summary = json!({ "queue": queue, "sent": self.sent, "refused": refused, "ids": self.ids });
            self.context.printer().print("", &summary)?;
        }
        let refused = match self.refused.len() {
            0 => String::new(),
            count => format!(", {count} refused"),
        };
        self.context.say(&format!("{} sent to {queue}{refused}", self.sent));
        Ok(ExitCode::from(u8::from(!self.refused.is_empty())))
    }
}
