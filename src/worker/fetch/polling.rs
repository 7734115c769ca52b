//! [`Polling`]: the polls of a worker, and how many there may be.

use tokio::sync::watch;

use super::{
    concurrency::{self, PollConcurrency},
    pollers::PollerCount,
    polls::InFlightPolls,
};

/// The polls of a worker, and how many there may be.
#[derive(Debug)]
pub(crate) struct Polling {
    /// How many polls are worth keeping in flight now. Shared by the pollers, which leave or are added when it changes.
    pub(crate) concurrency: watch::Sender<PollConcurrency>,
    pub(crate) pollers: PollerCount,
    pub(crate) in_flight: InFlightPolls,
    /// The limit that is set, where one is.
    max: Option<usize>,
}

impl Polling {
    /// At most `max` polls at a time; without a limit, as many as the messages in flight make useful.
    pub(crate) fn new(max: Option<usize>) -> Self {
        Self {
            concurrency: watch::Sender::new(PollConcurrency::new(1)),
            pollers: PollerCount::default(),
            in_flight: InFlightPolls::default(),
            max,
        }
    }

    /// The most polls that may be in flight while `max_messages` messages may be.
    pub(crate) fn max(&self, max_messages: usize) -> usize {
        self.max.unwrap_or_else(|| concurrency::max_polls(max_messages))
    }

    /// Changes the number of polls that are worth keeping in flight, and wakes the supervisor only if it is another one.
    pub(crate) fn adjust(&self, adjust: impl FnOnce(&mut PollConcurrency)) {
        self.concurrency.send_if_modified(|concurrency| {
            let before = *concurrency;
            adjust(concurrency);
            *concurrency != before
        });
    }
}
