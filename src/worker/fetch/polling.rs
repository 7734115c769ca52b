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
    /// The number of polls worth keeping in flight now. Pollers are added or leave when it changes.
    pub(crate) concurrency: watch::Sender<PollConcurrency>,
    pub(crate) pollers: PollerCount,
    pub(crate) in_flight: InFlightPolls,
    /// The configured limit, if any.
    max: Option<usize>,
}

impl Polling {
    /// Without a `max`, the number of polls follows the number of messages that may be in flight.
    pub(crate) fn new(max: Option<usize>) -> Self {
        Self {
            concurrency: watch::Sender::new(PollConcurrency::new(1)),
            pollers: PollerCount::default(),
            in_flight: InFlightPolls::default(),
            max,
        }
    }

    /// The maximum number of polls while `max_messages` messages may be in flight.
    pub(crate) fn max(&self, max_messages: usize) -> usize {
        self.max.unwrap_or_else(|| concurrency::max_polls(max_messages))
    }

    /// Adapts the number of polls, and wakes the supervisor only if it has changed.
    pub(crate) fn adjust(&self, adjust: impl FnOnce(&mut PollConcurrency)) {
        self.concurrency.send_if_modified(|concurrency| {
            let before = *concurrency;
            adjust(concurrency);
            *concurrency != before
        });
    }
}
