//! What became of the lines: progress, ids, refusals, and the closing count.

use std::{
    path::{Path, PathBuf},
    process::ExitCode,
};

use indicatif::ProgressBar;
use serde_json::{Value, json};

use crate::cli::{
    commands::send::journal::JournalState,
    support::{context::Context, failure::Failure, global_options::Format, progress::bar, terminal},
};
use dms_worker::client::SentMessage;

/// Counts sent and refused lines, and shows progress.
pub(crate) struct Report<'a> {
    context: &'a Context,
    bar: ProgressBar,
    counts: LineCounts,
    /// What earlier runs did.
    before: LineCounts,
    /// Lines that may be stored twice, because they may have been sent by a run that was killed.
    doubled: u64,
    /// Lines of this run that were not stored, because of their deduplication keys.
    duplicates: u64,
    refusals: Vec<Value>,
    /// Where the refused lines are.
    pub(crate) rejected: Option<PathBuf>,
    ids: Vec<String>,
}

/// How many lines fared how.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct LineCounts {
    pub(crate) sent: u64,
    pub(crate) skipped: u64,
    pub(crate) refused: u64,
    /// Those of the refused ones that may be stored all the same.
    pub(crate) unsure: u64,
}

impl<'a> Report<'a> {
    /// Begins, with a bar on a terminal where the size of the input is known.
    pub(crate) fn new(context: &'a Context, size: Option<u64>) -> Self {
        let drawn = |size| bar(context, Some(size), "{bar:40} {percent:>3} %  {msg}  {elapsed}  {eta} left");
        let bar = size.map_or_else(ProgressBar::hidden, drawn);
        let (counts, before) = (LineCounts::default(), LineCounts::default());
        Self {
            context,
            bar,
            counts,
            before,
            doubled: 0,
            duplicates: 0,
            refusals: Vec::new(),
            rejected: None,
            ids: Vec::new(),
        }
    }

    /// Goes on where an earlier run ended.
    pub(crate) fn resume(&mut self, progress: &JournalState) {
        let JournalState { sent, skipped, refused, .. } = *progress;
        self.before = LineCounts { sent, skipped, refused, unsure: 0 };
        self.doubled = progress.doubled;
        self.bar.set_position(progress.offset);
        self.context.say(&format!(
            "going on after line {}: {sent} sent and {refused} refused so far; at most {} lines may be there twice",
            progress.line, self.doubled
        ));
    }

    /// Counts bytes that were read.
    pub(crate) fn read(&self, bytes: u64) {
        self.bar.inc(bytes);
    }

    /// A line was sent.
    ///
    /// # Errors
    /// When its id cannot be printed.
    pub(crate) fn sent(&mut self, sent: &SentMessage) -> Result<(), Failure> {
        self.counts.sent += 1;
        self.duplicates += u64::from(sent.duplicate);
        self.bar.set_message(format!("{} sent", self.before.sent + self.counts.sent));
        match (self.context.global.output, &sent.id) {
            (Format::Text, Some(id)) => self.context.printer().text(id.as_str())?,
            (Format::Json, Some(id)) => self.ids.push(id.to_string()),
            (_, None) => {}
        }
        Ok(())
    }

    /// A line was left out.
    pub(crate) fn skipped(&mut self) {
        self.counts.skipped += 1;
    }

    /// A line was refused, or, if that is `unsure`, may be.
    pub(crate) fn refused(&mut self, number: u64, reason: &str, unsure: bool) {
        self.counts.refused += 1;
        self.counts.unsure += u64::from(unsure);
        match self.context.global.output {
            Format::Text => terminal::tell(&format!("line {number}: {reason}")),
            Format::Json if unsure => {
                self.refusals.push(json!({ "line": number, "reason": reason, "unsure": true }));
            }
            Format::Json => self.refusals.push(json!({ "line": number, "reason": reason })),
        }
    }

    /// Reports that the run ended early; the journal, if there is one, has its position.
    pub(crate) fn stopped(&self, journal: Option<&Path>) {
        self.bar.finish_and_clear();
        let place = match journal {
            Some(_) => "; the journal has the place, and --resume goes on there",
            None => "",
        };
        self.context.say(&format!("stopped early: {}{place}", self.summary()));
    }

    /// The counts of all runs.
    pub(crate) fn total(&self) -> LineCounts {
        let (counts, before) = (self.counts, self.before);
        LineCounts {
            sent: before.sent + counts.sent,
            skipped: before.skipped + counts.skipped,
            refused: before.refused + counts.refused,
            unsure: before.unsure + counts.unsure,
        }
    }

    /// Lines that may be stored twice.
    pub(crate) fn doubled(&self) -> u64 {
        self.doubled
    }

    /// Ends the drawing of progress.
    pub(crate) fn clear(&self) {
        self.bar.finish_and_clear();
    }

    fn summary(&self) -> String {
        let total = self.total();
        let mut text = format!("{} sent", total.sent);
        if self.duplicates > 0 {
            text.push_str(&format!(", {} of them not stored again (same deduplication key)", self.duplicates));
        }
        if total.refused > 0 {
            text.push_str(&format!(", {} refused", total.refused));
        }
        if let Some(rejected) = &self.rejected {
            text.push_str(&format!(" (the lines are in {})", rejected.display()));
        }
        if total.unsure > 0 {
            text.push_str(&format!(" (of {} of them it is not known whether they are stored)", total.unsure));
        }
        if self.doubled > 0 {
            text.push_str(&format!(", at most {} of them twice", self.doubled));
        }
        text
    }

    /// The closing count, and the exit code.
    ///
    /// # Errors
    /// When it cannot be printed.
    pub(crate) fn finish(self, queue: &str) -> Result<ExitCode, Failure> {
        self.clear();
        let total = self.total();
        if self.context.global.output == Format::Json {
            let summary = json!({
                "queue": queue,
                "sent": total.sent,
                "duplicates": self.duplicates,
                "refused": self.refusals,
                "rejected_file": self.rejected,
                "refused_before": self.before.refused,
                "doubled": self.doubled,
                "ids": self.ids,
            });
            self.context.printer().print("", &summary)?;
        }
        let text = self.summary().replacen(" sent", &format!(" sent to {queue}"), 1);
        self.context.say(&text);
        Ok(ExitCode::from(u8::from(total.refused > 0)))
    }
}
