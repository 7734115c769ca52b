//! [`SweepBar`]: a bar on a terminal, JSON lines on standard error otherwise.

use std::time::Duration;

use indicatif::ProgressBar;
use serde_json::json;
use tokio::time::Instant;

use crate::cli::support::{context::Context, progress::bar, terminal};
use dms_worker::redrive::SweepReport;

/// How often a line is written.
const LINE_INTERVAL: Duration = Duration::from_secs(1);

/// Shows how far a sweep is.
#[derive(Clone, Debug)]
pub(crate) struct SweepBar {
    bar: ProgressBar,
    /// When the next line is due, where lines are written.
    due: Option<Instant>,
}

impl SweepBar {
    pub(crate) fn new(context: &Context) -> Self {
        let lines = !context.shows_progress() && !context.global.quiet;
        let bar = bar(context, None, "{bar:40} {pos}/{len}  {per_sec}  {elapsed}  {eta} left");
        Self { bar, due: lines.then(|| Instant::now() + LINE_INTERVAL) }
    }

    /// The sweep is so far.
    pub(crate) fn show(&mut self, report: &SweepReport) {
        let seen = report.taken + report.passed_over;
        let expected = Some(report.expected).filter(|expected| *expected < u64::MAX);
        self.bar.set_length(expected.unwrap_or(seen));
        self.bar.set_position(seen);
        let now = Instant::now();
        if self.due.is_some_and(|due| due <= now) {
            self.due = Some(now + LINE_INTERVAL);
            let line = json!({
                "expected": expected,
                "taken": report.taken,
                "passed_over": report.passed_over,
                "doubled": report.doubled,
            });
            terminal::tell_json(&line.to_string());
        }
    }

    /// Ends the drawing.
    pub(crate) fn clear(&self) {
        self.bar.finish_and_clear();
    }
}
