//! [`Redeliveries`]: why messages of a worker were redelivered, in the last minutes and since the start, and the last cases.

use std::collections::VecDeque;

use jiff::Timestamp;

use crate::sidecar::observe::minutes::Minutes;
use dms_protocol::internal::clock;
use dms_worker::worker::{Delivery, Redelivery};

/// The number of remembered cases.
const MAX_CASES: usize = 20;
/// The number of reasons.
const REASONS: usize = Redelivery::ALL.len();

/// Counts of redeliveries by reason, in the order of [`Redelivery::ALL`].
#[derive(Debug)]
pub(crate) struct Redeliveries {
    totals: [u64; REASONS],
    minutes: [Minutes<60>; REASONS],
    cases: VecDeque<(Redelivery, SeenMessage)>,
}

/// A message that something happened to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct SeenMessage {
    pub(crate) at: Timestamp,
    /// Its place in the queue, if the service tells it.
    pub(crate) place: Option<u64>,
    /// Its id, if the service gives it one.
    pub(crate) id: Option<String>,
    pub(crate) attempt: u32,
}

impl SeenMessage {
    /// A message now.
    pub(crate) fn now(delivery: &Delivery) -> Self {
        let id = delivery.id().map(|id| id.to_string());
        Self { at: clock::now(), place: delivery.sequence(), id, attempt: delivery.attempt() }
    }
}

/// A time that redeliveries are counted over.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum TimeWindow {
    /// Ten minutes.
    TenMinutes,
    /// An hour.
    #[default]
    Hour,
    /// Since the start of the worker.
    Start,
}

impl TimeWindow {
    pub(crate) const ALL: [Self; 3] = [Self::TenMinutes, Self::Hour, Self::Start];

    /// Its name in URLs.
    pub(crate) fn as_str(self) -> &'static str {
        ["10m", "1h", "start"][self as usize]
    }

    /// The window of this name.
    pub(crate) fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|window| window.as_str() == name)
    }
}

impl Default for Redeliveries {
    fn default() -> Self {
        let minutes = std::array::from_fn(|_| Minutes::default());
        Self { totals: [0; REASONS], minutes, cases: VecDeque::new() }
    }
}

impl Redeliveries {
    /// Counts a redelivery.
    pub(crate) fn count(&mut self, reason: Redelivery, message: SeenMessage) {
        let Some(place) = Redelivery::ALL.into_iter().position(|known| known == reason) else { return };
        self.totals[place] += 1;
        self.minutes[place].count();
        self.cases.truncate(MAX_CASES - 1);
        self.cases.push_front((reason, message));
    }

    /// The reasons that occurred in a window, with their numbers.
    pub(crate) fn counts(&self, window: TimeWindow) -> Vec<(Redelivery, u64)> {
        let of = |place: usize| match window {
            TimeWindow::TenMinutes => self.minutes[place].sum(10),
            TimeWindow::Hour => self.minutes[place].sum(60),
            TimeWindow::Start => self.totals[place],
        };
        let all = Redelivery::ALL.into_iter().enumerate().map(|(place, reason)| (reason, of(place)));
        all.filter(|(_, count)| *count > 0).collect()
    }

    /// The last cases, the newest first.
    pub(crate) fn cases(&self) -> Vec<(Redelivery, SeenMessage)> {
        self.cases.iter().cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::advance;

    use super::*;

    fn message(place: u64) -> SeenMessage {
        SeenMessage { at: Timestamp::UNIX_EPOCH, place: Some(place), id: None, attempt: 2 }
    }

    #[tokio::test(start_paused = true)]
    async fn reasons_are_counted_by_window_and_the_last_cases_are_kept() {
        let mut seen = Redeliveries::default();
        seen.count(Redelivery::LateAck, message(1));
        advance(Duration::from_secs(30 * 60)).await;
        (0..30).for_each(|place| seen.count(Redelivery::Failed, message(place)));
        seen.count(Redelivery::LateAck, message(99));
        let counts = TimeWindow::ALL.map(|window| seen.counts(window));
        let of = |late| vec![(Redelivery::Failed, 30), (Redelivery::LateAck, late)];
        assert_eq!(counts, [of(1), of(2), of(2)]);
        advance(Duration::from_secs(50 * 60)).await;
        assert_eq!((seen.counts(TimeWindow::TenMinutes), seen.counts(TimeWindow::Hour)), (vec![], of(1)));
        let cases = seen.cases();
        assert_eq!((cases.len(), cases[0].clone()), (MAX_CASES, (Redelivery::LateAck, message(99))));
        assert_eq!(TimeWindow::ALL.map(|window| TimeWindow::parse(window.as_str())), TimeWindow::ALL.map(Some));
    }
}
