//! [`Circuit`]: the state machine of a circuit breaker. Pure: receives the time.

use std::time::Duration;

use tokio::time::Instant;

use crate::later::after;

/// The state of a circuit breaker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum CircuitState {
    /// All calls pass.
    Closed,
    /// No call passes, because too many have failed in a row.
    Open,
    /// One call passes, as a probe.
    HalfOpen,
}

/// Counts consecutive failures and opens at a threshold.
#[derive(Debug)]
pub(crate) struct Circuit {
    /// The number of failures in a row at which it opens.
    threshold: u32,
    open_for: Duration,
    state: Phase,
    /// Counts the openings. Calls from before the last one no longer count.
    openings: u64,
}

#[derive(Clone, Copy, Debug)]
enum Phase {
    Closed { failures: u32 },
    Open { until: Instant },
    HalfOpen { probing: bool },
}

/// Whether a call may start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Admission {
    /// It may start. Report its end with this ticket.
    Go(Ticket),
    /// It may not start before this time.
    NotBefore(Instant),
    /// It may not start before the probe has ended.
    AfterProbe,
}

/// A call that was admitted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Ticket {
    /// The number of openings when it was admitted.
    openings: u64,
    /// Whether it is the probe of a half-open circuit.
    pub(crate) probe: bool,
}

/// The result of a call, for the circuit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum CallResult {
    Succeeded,
    Failed,
    /// The result says nothing about the resource that the circuit protects.
    Neither,
}

impl Circuit {
    /// A circuit that opens after `threshold` consecutive failures, for `open_for`.
    pub(crate) fn new(threshold: u32, open_for: Duration) -> Self {
        Self { threshold: threshold.max(1), open_for, state: Phase::Closed { failures: 0 }, openings: 0 }
    }

    /// How long it stays open.
    pub(crate) fn open_for(&self) -> Duration {
        self.open_for
    }

    pub(crate) fn state(&self) -> CircuitState {
        match self.state {
            Phase::Closed { .. } => CircuitState::Closed,
            Phase::Open { .. } => CircuitState::Open,
            Phase::HalfOpen { .. } => CircuitState::HalfOpen,
        }
    }

    /// Asks to start a call. If the circuit is half-open and has no probe, this call is the probe.
    pub(crate) fn admit(&mut self, now: Instant) -> Admission {
        self.advance(now);
        let probe = match &mut self.state {
            Phase::Open { until } => return Admission::NotBefore(*until),
            Phase::HalfOpen { probing: true } => return Admission::AfterProbe,
            Phase::HalfOpen { probing } => {
                *probing = true;
                true
            }
            Phase::Closed { .. } => false,
        };
        Admission::Go(Ticket { openings: self.openings, probe })
    }

    /// Makes an open circuit half-open if its time is over.
    pub(crate) fn advance(&mut self, now: Instant) {
        if matches!(self.state, Phase::Open { until } if until <= now) {
            self.state = Phase::HalfOpen { probing: false };
        }
    }

    /// Records the end of a call. If this opened the circuit, returns until when it is open.
    pub(crate) fn ended(&mut self, ticket: Ticket, verdict: CallResult, now: Instant) -> Option<Instant> {
        if ticket.openings != self.openings {
            return None;
        }
        let failures = match (self.state, verdict) {
            (Phase::HalfOpen { .. }, CallResult::Neither) => {
                self.state = Phase::HalfOpen { probing: false };
                return None;
            }
            (_, CallResult::Neither) | (Phase::Open { .. }, _) => return None,
            (_, CallResult::Succeeded) => 0,
            (Phase::Closed { failures }, CallResult::Failed) => failures + 1,
            (Phase::HalfOpen { .. }, CallResult::Failed) => self.threshold,
        };
        if failures < self.threshold {
            self.state = Phase::Closed { failures };
            return None;
        }
        let until = after(now, self.open_for);
        self.state = Phase::Open { until };
        self.openings += 1;
        Some(until)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OPEN_FOR: Duration = Duration::from_secs(10);

    fn go(circuit: &mut Circuit, now: Instant) -> Ticket {
        match circuit.admit(now) {
            Admission::Go(ticket) => ticket,
            other => panic!("{other:?}"),
        }
    }

    #[tokio::test(start_paused = true)]
    async fn it_opens_after_failures_in_a_row_and_closes_after_one_probe() {
        let (mut circuit, now) = (Circuit::new(3, OPEN_FOR), Instant::now());
        for verdict in
            [CallResult::Failed, CallResult::Failed, CallResult::Succeeded, CallResult::Failed, CallResult::Neither]
        {
            let ticket = go(&mut circuit, now);
            assert_eq!(circuit.ended(ticket, verdict, now), None);
        }
        let (late, ticket) = (go(&mut circuit, now), go(&mut circuit, now));
        circuit.ended(ticket, CallResult::Failed, now);
        let ticket = go(&mut circuit, now);
        assert_eq!(circuit.ended(ticket, CallResult::Failed, now), Some(now + OPEN_FOR));
        assert_eq!(circuit.admit(now), Admission::NotBefore(now + OPEN_FOR));
        let later = now + OPEN_FOR;
        let probe = go(&mut circuit, later);
        assert!(probe.probe && !late.probe);
        assert_eq!((circuit.state(), circuit.admit(later)), (CircuitState::HalfOpen, Admission::AfterProbe));
        assert_eq!(circuit.ended(late, CallResult::Succeeded, later), None);
        assert_eq!(circuit.state(), CircuitState::HalfOpen, "a call from before says nothing");
        circuit.ended(probe, CallResult::Succeeded, later);
        assert_eq!(circuit.state(), CircuitState::Closed);
    }

    #[tokio::test(start_paused = true)]
    async fn a_probe_that_fails_opens_it_again_and_one_that_says_nothing_is_repeated() {
        let (mut circuit, now) = (Circuit::new(1, OPEN_FOR), Instant::now());
        let ticket = go(&mut circuit, now);
        circuit.ended(ticket, CallResult::Failed, now);
        let later = now + OPEN_FOR;
        let probe = go(&mut circuit, later);
        assert_eq!(circuit.ended(probe, CallResult::Neither, later), None);
        let probe = go(&mut circuit, later);
        assert_eq!(circuit.ended(probe, CallResult::Failed, later), Some(later + OPEN_FOR));
    }
}
