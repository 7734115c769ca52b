//! The time budget of a consumed batch: pure arithmetic on the moment the consume answer arrived.
//!
//! A lease ends `ack_wait` after the service handed the batch out and cannot be extended (API reference 5.3.2), so every
//! handler has a hard end, early enough that the acknowledgement of what is finished still arrives.

use std::time::Duration;

use tokio::time::Instant;

/// The least time kept free for the acknowledgement.
pub(crate) const MIN_MARGIN: Duration = Duration::from_secs(1);
/// How long before a handler is stopped it is told so, at most; see [`Lease::notice_at`].
const MAX_NOTICE: Duration = Duration::from_secs(1);

/// How long a batch may be worked on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Lease {
    received: Instant,
    stop_at: Instant,
    ends_at: Instant,
}

impl Lease {
    /// The lease of a batch whose answer arrived at `received`, after a round trip of `round_trip` at most.
    ///
    /// The service counts from before the answer left, so a round trip is taken off the end, and the margin is never less
    /// than a second.
    pub(crate) fn new(received: Instant, ack_wait: Duration, round_trip: Duration) -> Self {
        // A slow network must not eat the whole lease: half of it stays for the handlers whatever was measured.
        let margin = (round_trip * 2).max(MIN_MARGIN).min(ack_wait / 2);
        Self { received, stop_at: received + (ack_wait - margin), ends_at: received + (ack_wait - margin / 2) }
    }

    /// When a running handler is stopped.
    pub(crate) fn stop_at(&self) -> Instant {
        self.stop_at
    }

    /// When a running handler learns that it will be stopped: a twentieth of the budget earlier, at most a second.
    pub(crate) fn notice_at(&self) -> Instant {
        self.stop_at - ((self.stop_at - self.received) / 20).min(MAX_NOTICE)
    }

    /// Until when an acknowledgement is worth repeating.
    pub(crate) fn ends_at(&self) -> Instant {
        self.ends_at
    }
}

/// The budget of a handler under the smallest margin: what a configured timeout has to stay below.
pub(crate) fn handler_budget(ack_wait: Duration) -> Duration {
    ack_wait - MIN_MARGIN
}

#[cfg(test)]
mod tests {
    use super::*;

    const ACK_WAIT: Duration = Duration::from_secs(30);

    #[tokio::test(start_paused = true)]
    async fn the_margin_is_a_second_on_a_fast_network() {
        let now = Instant::now();
        let lease = Lease::new(now, ACK_WAIT, Duration::from_millis(2));
        assert_eq!(lease.stop_at() - now, Duration::from_secs(29));
        assert_eq!(lease.stop_at() - now, handler_budget(ACK_WAIT));
        assert!(lease.notice_at() < lease.stop_at() && lease.stop_at() < lease.ends_at());
        assert!(lease.ends_at() - now < ACK_WAIT);
    }

    #[tokio::test(start_paused = true)]
    async fn a_slow_network_takes_more_but_never_all() {
        let now = Instant::now();
        assert_eq!(Lease::new(now, ACK_WAIT, Duration::from_secs(2)).stop_at() - now, Duration::from_secs(26));
        assert_eq!(Lease::new(now, ACK_WAIT, Duration::from_secs(60)).stop_at() - now, Duration::from_secs(15));
    }
}
