//! [`TimeBar`]: how much of a run's time is over.

use std::time::Duration;

use indicatif::ProgressBar;
use tokio::time::{Instant, interval};

use crate::cli::support::{context::Context, progress::bar};

/// How often the bar is drawn.
const REDRAW_INTERVAL: Duration = Duration::from_millis(200);

/// A bar on a terminal; a line at the start of the run otherwise.
#[derive(Debug)]
pub(super) struct TimeBar {
    bar: ProgressBar,
}

impl TimeBar {
    /// Announces a run of at most this duration.
    pub(super) fn new(context: &Context, run: &'static str, duration: Duration) -> Self {
        if !context.shows_progress() {
            context.say(&format!("{run} …"));
        }
        let length = u64::try_from(duration.as_millis()).ok();
        Self { bar: bar(context, length, "{msg:8} {bar:40} {elapsed}").with_message(run) }
    }

    /// Draws until the work is done.
    pub(super) async fn of<T>(self, work: impl Future<Output = T>) -> T {
        let started = Instant::now();
        let mut ticks = interval(REDRAW_INTERVAL);
        tokio::pin!(work);
        let done = loop {
            tokio::select! {
                done = &mut work => break done,
                _ = ticks.tick() => {
                    self.bar.set_position(u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX));
                }
            }
        };
        self.bar.finish_and_clear();
        done
    }
}
