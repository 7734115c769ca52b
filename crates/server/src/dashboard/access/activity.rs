//! [`Activity`]: an action through the dashboard, for the log and for the page of activities.

use std::{
    collections::VecDeque,
    sync::{Mutex, PoisonError},
};

use crate::{clock::Clock, dashboard::access::visitor::Visitor};
use dms_protocol::internal::text::cut;

/// The number of rows that are kept.
const MAX_ROWS: usize = 500;
/// The maximum length of a text in a row, in bytes.
const MAX_TEXT: usize = 300;
/// The target of the log lines, the same as of the access log.
const TARGET: &str = "dms_worker::access";

/// The latest actions. They are kept in memory; the log has all of them.
#[derive(Debug, Default)]
pub struct Activity(Mutex<VecDeque<ActivityRow>>);

/// One action.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ActivityRow {
    /// When it was done, in Unix milliseconds.
    pub at_ms: i64,
    /// The caller: its token and its session.
    pub who: String,
    /// The address of the caller.
    pub peer: String,
    /// The action, such as `redrive`.
    pub action: &'static str,
    /// To what: the queue, the group and the filter.
    pub target: String,
    /// The result: counts, or the refusal.
    pub outcome: String,
    /// Whether it was done.
    pub done: bool,
}

impl Activity {
    /// Logs an action, and keeps a row of it.
    pub fn record(
        &self,
        clock: &Clock,
        visitor: Option<&Visitor>,
        action: &'static str,
        target: &str,
        outcome: Result<&str, &str>,
    ) {
        let who = match visitor {
            None => "server".to_owned(),
            Some(visitor) => visitor.access.map_or_else(|| "-".to_owned(), |access| access.to_string()),
        };
        let peer = visitor.and_then(|visitor| visitor.peer).map_or_else(|| "-".to_owned(), |peer| peer.to_string());
        let (done, text) = (outcome.is_ok(), cut(outcome.unwrap_or_else(|refused| refused), MAX_TEXT));
        let target = cut(target, MAX_TEXT);
        let outcome = if done { "done" } else { "refused" };
        tracing::info!(target: TARGET, action, listener = "dashboard", who, peer, on = target, outcome, result = text, "access");
        let (target, outcome) = (target.to_owned(), text.to_owned());
        let row = ActivityRow { at_ms: clock.now_ms(), who, peer, action, target, outcome, done };
        let mut rows = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        rows.truncate(MAX_ROWS - 1);
        rows.push_front(row);
    }

    /// The rows, newest first.
    pub fn rows(&self) -> Vec<ActivityRow> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).iter().cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_bounded_and_the_newest_is_first() {
        let activity = Activity::default();
        for number in 0..MAX_ROWS + 10 {
            activity.record(&Clock::system(), None, "purge", &number.to_string(), Ok("1 message"));
        }
        let rows = activity.rows();
        assert_eq!((rows.len(), rows[0].target.as_str()), (MAX_ROWS, "509"));
        activity.record(&Clock::system(), None, "send", &"语".repeat(500), Err("too large"));
        let row = activity.rows().swap_remove(0);
        assert!(row.target.len() <= MAX_TEXT && !row.done, "{row:?}");
    }
}
