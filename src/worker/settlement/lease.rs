//! The time budget of a consumed batch: pure arithmetic on when its lease can have begun.
//!
//! A lease ends `ack_wait` after the service handed the batch out and cannot be extended (API reference 5.3.2), so every
//! handler has a hard end, early enough that the acknowledgement of what is finished still arrives.
//!
//! The service hands the batch out between the sending of the request and the arrival of the answer, and an answer may have been
//! long on its way. The budget counts from the earliest moment that is possible: the sending, and where the service says how long
//! the request waited for a first message, that much later. Where it does not, a long poll leaves that moment open; then the way
//! back is taken to be no longer than the slowest of a hundred round trips, twice, and a second at least.

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

/// What is known of when a lease began.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct LeaseBegin {
    /// When the request was sent: not before that.
    pub(crate) sent: Instant,
    /// How long the request waited at the service, where it says so: not before that long after the sending.
    pub(crate) waited: Option<Duration>,
}

impl LeaseBegin {
    /// The earliest moment; where the service does not tell, the answer is taken to have been `way_back` on its way at most.
    fn earliest(self, received: Instant, way_back: Duration) -> Instant {
        let Self { sent, waited } = self;
        match waited {
            Some(waited) => (sent + waited).min(received),
            None => received.checked_sub(way_back).map_or(sent, |earliest| earliest.max(sent)),
        }
    }
}

impl Lease {
    /// A lease of `ack_wait` over what arrived at `received`, where acknowledgements take `round_trip` at most.
    pub(crate) fn new(begin: LeaseBegin, received: Instant, ack_wait: Duration, round_trip: Duration) -> Self {
        // A slow network must not eat the whole lease: half of it stays for the handlers whatever was measured.
        let margin = (round_trip * 2).max(MIN_MARGIN).min(ack_wait / 2);
        let begun = begin.earliest(received, margin);
        Self { received, stop_at: begun + (ack_wait - margin), ends_at: begun + (ack_wait - margin / 2) }
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
    const SECOND: Duration = Duration::from_secs(1);

    /// A lease whose request took so long, and the service's word on its waiting; with when the answer arrived.
    async fn lease(took: Duration, waited: Option<Duration>, round_trip: Duration) -> (Lease, Instant) {
        let sent = Instant::now();
        tokio::time::advance(took).await;
        let received = Instant::now();
        (Lease::new(LeaseBegin { sent, waited }, received, ACK_WAIT, round_trip), received)
    }

    #[tokio::test(start_paused = true)]
    async fn the_margin_is_a_second_on_a_fast_network() {
        let (lease, now) = lease(Duration::ZERO, None, Duration::from_millis(2)).await;
        assert_eq!(lease.stop_at() - now, SECOND * 29);
        assert_eq!(lease.stop_at() - now, handler_budget(ACK_WAIT));
        assert!(lease.notice_at() < lease.stop_at() && lease.stop_at() < lease.ends_at());
        assert!(lease.ends_at() - now < ACK_WAIT);
    }

    #[tokio::test(start_paused = true)]
    async fn a_slow_network_takes_more_but_never_all() {
        let stops_after = async |round_trip| {
            let (lease, received) = lease(Duration::ZERO, Some(Duration::ZERO), round_trip).await;
            lease.stop_at() - received
        };
        assert_eq!(stops_after(SECOND * 2).await, SECOND * 26);
        assert_eq!(stops_after(SECOND * 60).await, SECOND * 15);
    }

    /// The service leased the messages before their answer was under way: what that took is off the lease.
    #[tokio::test(start_paused = true)]
    async fn a_late_answer_takes_from_the_budget() {
        let stops_after = async |took, waited| {
            let (lease, received) = lease(took, waited, Duration::ZERO).await;
            lease.stop_at() - received
        };
        assert_eq!(stops_after(SECOND * 5, Some(Duration::ZERO)).await, SECOND * 24, "five seconds on the way");
        assert_eq!(stops_after(SECOND * 20, Some(SECOND * 18)).await, SECOND * 27, "two of twenty on the way");
        assert_eq!(stops_after(SECOND, Some(SECOND * 9)).await, SECOND * 29, "no word is believed that cannot be true");
    }

    /// A service that does not tell: the sending bounds a short poll, and a second the way back of a long one.
    #[tokio::test(start_paused = true)]
    async fn without_a_word_from_the_service_the_way_back_is_bounded() {
        let half = Duration::from_millis(500);
        let (short, received) = lease(half, None, Duration::ZERO).await;
        assert_eq!(short.stop_at() - received, SECOND * 29 - half);
        let (long, received) = lease(SECOND * 15, None, Duration::ZERO).await;
        assert_eq!(long.stop_at() - received, SECOND * 28);
    }

    /// An answer that comes after its lease leaves nothing: no handler begins, and nothing overflows.
    #[tokio::test(start_paused = true)]
    async fn a_lease_can_be_over_on_arrival() {
        let (lease, received) = lease(SECOND * 40, Some(Duration::ZERO), Duration::ZERO).await;
        assert!(lease.stop_at() < received && lease.notice_at() <= lease.stop_at());
    }
}
