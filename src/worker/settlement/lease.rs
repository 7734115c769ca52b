//! [`Lease`]: the time budget of a consumed batch. Pure.
//!
//! A lease ends `ack_wait` after the service handed out the batch, and cannot be extended (API reference 5.3.2). So
//! each handler has a hard deadline, early enough for the acknowledgement to arrive. An acknowledgement is sent at
//! least half a second before the lease ends, so that a short stall of the service at that moment does not make it
//! late.
//!
//! The service hands out the batch between the sending of the request and the arrival of the reply, and the reply may
//! have taken long. The budget counts from the earliest possible moment. If the service says how long the request
//! waited for a first message, that is this time after the sending. Otherwise a long poll leaves the moment open; then
//! the reply is assumed to have taken at most twice the p99 of round trips, or one second if that is more.

use std::time::Duration;

use tokio::time::Instant;

/// The least time that is kept for the acknowledgement.
pub const MIN_MARGIN: Duration = Duration::from_secs(1);
/// The longest time between the signal to a handler and its stop; see [`Lease::notice_at`].
const MAX_NOTICE: Duration = Duration::from_secs(1);
/// The least time that a handler starts with.
const MIN_RUN: Duration = Duration::from_millis(100);

/// The time budget of a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Lease {
    received: Instant,
    stop_at: Instant,
    ends_at: Instant,
}

/// The facts about the start of a lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct LeaseBegin {
    /// When the request was sent. The lease started later.
    pub(crate) sent: Instant,
    /// How long the request waited in the service, if the service says so. The lease started at least this much later.
    pub(crate) waited: Option<Duration>,
}

impl LeaseBegin {
    /// The earliest possible start. If the service does not say how long the request waited, the reply is assumed to
    /// have taken `way_back` at most.
    fn earliest(self, received: Instant, way_back: Duration) -> Instant {
        let Self { sent, waited } = self;
        match waited {
            Some(waited) => (sent + waited).min(received),
            None => received.checked_sub(way_back).map_or(sent, |earliest| earliest.max(sent)),
        }
    }
}

impl Lease {
    /// A lease of `ack_wait` for messages that arrived at `received`, if acknowledgements take at most `round_trip`.
    pub(crate) fn new(begin: LeaseBegin, received: Instant, ack_wait: Duration, round_trip: Duration) -> Self {
        // A slow network must not use up the whole lease, so the margin leaves at least half of it. A late reply may use up that half,
        // too; then no handler starts, see `least_run`.
        let margin = (round_trip * 2).max(least_margin(ack_wait)).min(ack_wait / 2);
        let begun = begin.earliest(received, margin);
        Self { received, stop_at: begun + (ack_wait - margin), ends_at: begun + (ack_wait - margin / 2) }
    }

    /// When running handlers are stopped.
    pub(crate) fn stop_at(&self) -> Instant {
        self.stop_at
    }

    /// When running handlers learn that they will be stopped: a twentieth of the budget earlier, at most a second.
    pub(crate) fn notice_at(&self) -> Instant {
        self.stop_at - notice(self.stop_at - self.received)
    }

    /// Until when an acknowledgement is worth retrying.
    pub(crate) fn ends_at(&self) -> Instant {
        self.ends_at
    }
}

/// How long before its stop a handler is notified, if its message arrived with `budget`.
fn notice(budget: Duration) -> Duration {
    (budget / 20).min(MAX_NOTICE)
}

/// The least time with which the handler of a message starts that arrived with `budget`. A handler that starts with less would be
/// notified in the moment of its start or of its stop, so it could only fail, and each failure counts as an attempt.
pub(crate) fn least_run(budget: Duration) -> Duration {
    notice(budget).max(MIN_RUN)
}

/// The longest time that a handler can have, with the least margin. A handler timeout must be below it.
pub(crate) fn handler_budget(ack_wait: Duration) -> Duration {
    ack_wait.saturating_sub(least_margin(ack_wait))
}

/// A lease of a few seconds, which only ROMA Connect MQS grants, has a shorter margin. The margin may be taken off twice, once for a
/// late reply, and handlers need time then, too.
fn least_margin(ack_wait: Duration) -> Duration {
    MIN_MARGIN.min(ack_wait / 4)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ACK_WAIT: Duration = Duration::from_secs(30);
    const SECOND: Duration = Duration::from_secs(1);

    /// A lease whose request took `took` and waited `waited` in the service, and when the reply arrived.
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

    /// After a long poll, even the shortest lease leaves half of its time.
    #[tokio::test(start_paused = true)]
    async fn a_short_lease_leaves_time_for_handlers() {
        let sent = Instant::now();
        tokio::time::advance(SECOND * 15).await;
        let received = Instant::now();
        for seconds in [1, 2, 3] {
            let ack_wait = SECOND * seconds;
            let lease = Lease::new(LeaseBegin { sent, waited: None }, received, ack_wait, Duration::ZERO);
            assert!(lease.stop_at() - received >= ack_wait / 2, "{seconds} s");
            assert!(lease.stop_at() < lease.ends_at() && lease.ends_at() - received < ack_wait, "{seconds} s");
        }
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

    /// The service leased the messages before it sent the reply, so the time of the reply is taken off the lease.
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

    /// If the service does not say how long the request waited, a short poll is bounded by its sending, and a long one
    /// by an assumed way back.
    #[tokio::test(start_paused = true)]
    async fn without_the_time_a_request_waited_the_way_back_is_bounded() {
        let half = Duration::from_millis(500);
        let (short, received) = lease(half, None, Duration::ZERO).await;
        assert_eq!(short.stop_at() - received, SECOND * 29 - half);
        let (long, received) = lease(SECOND * 15, None, Duration::ZERO).await;
        assert_eq!(long.stop_at() - received, SECOND * 28);
    }

    /// A late reply on a slow network may leave a few milliseconds. Otherwise the signal comes before the stop, by more than the
    /// precision of a timer.
    #[tokio::test(start_paused = true)]
    async fn a_handler_starts_only_with_time_for_its_notice() {
        let (lease, received) = lease(Duration::from_millis(14_990), None, SECOND * 60).await;
        let left = lease.stop_at() - received;
        assert!(!left.is_zero() && left < least_run(left), "{left:?}");
        let budgets = [100, 500, 10_000, 29_000, 299_000].map(Duration::from_millis);
        assert!(
            budgets.iter().all(|budget| least_run(*budget) <= *budget && notice(*budget) > Duration::from_millis(2))
        );
        assert_eq!(least_run(SECOND * 29), MAX_NOTICE);
    }

    /// A reply that arrives after its lease leaves no time: no handler starts, and nothing overflows.
    #[tokio::test(start_paused = true)]
    async fn a_lease_can_have_expired_on_arrival() {
        let (lease, received) = lease(SECOND * 40, Some(Duration::ZERO), Duration::ZERO).await;
        assert!(lease.stop_at() < received && lease.notice_at() <= lease.stop_at());
    }
}
