//! What became of each order: sent when, handled when, how often.

use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use serde::Serialize;
use tokio::time::Instant;

use crate::cli::support::quantiles::quantile;

/// The books of the tour.
#[derive(Debug)]
pub(super) struct Ledger {
    state: Mutex<Orders>,
}

#[derive(Debug)]
struct Orders {
    sent: Vec<Option<Instant>>,
    handled: Vec<u32>,
    /// From send to handled, of orders that succeeded before the first pass was over.
    latencies: Vec<Duration>,
    /// When the first pass was over.
    over: Option<Instant>,
}

impl Ledger {
    pub(super) fn new(orders: usize) -> Self {
        let state = Orders { sent: vec![None; orders], handled: vec![0; orders], latencies: Vec::new(), over: None };
        Self { state: Mutex::new(state) }
    }

    /// An order is about to be sent.
    pub(super) fn record_sent(&self, id: usize) {
        if let Some(sent) = self.lock().sent.get_mut(id) {
            *sent = Some(Instant::now());
        }
    }

    /// An order was handled.
    pub(super) fn record_handled(&self, id: usize) {
        let mut state = self.lock();
        if let (None, Some(Some(sent))) = (state.over, state.sent.get(id).copied()) {
            state.latencies.push(sent.elapsed());
        }
        if let Some(count) = state.handled.get_mut(id) {
            *count += 1;
        }
    }

    /// All but the dead letters are handled.
    pub(super) fn first_pass_over(&self) {
        self.lock().over.get_or_insert_with(Instant::now);
    }

    /// How many different orders were sent.
    pub(super) fn sent(&self) -> usize {
        self.lock().sent.iter().flatten().count()
    }

    /// How many different orders were handled.
    pub(super) fn handled(&self) -> usize {
        self.lock().handled.iter().filter(|count| **count > 0).count()
    }

    /// The closing figures. `failures`: failed runs of the first pass; `received`: messages it consumed.
    pub(super) fn summary(&self, failures: u64, redriven: u64, received: u64) -> Summary {
        let state = self.lock();
        let sent = state.sent.iter().flatten().count();
        let handled = state.handled.iter().filter(|count| **count > 0).count();
        let first = state.sent.iter().flatten().min();
        let seconds = match (first, state.over) {
            (Some(first), Some(over)) => (over - *first).as_secs_f64(),
            _ => 0.0,
        };
        let mut latencies = state.latencies.clone();
        latencies.sort_unstable();
        Summary {
            sent,
            handled,
            handled_twice: state.handled.iter().filter(|count| **count > 1).count(),
            failures,
            redelivered: received.saturating_sub(sent as u64),
            dead_lettered: redriven,
            redriven,
            lost: sent - handled,
            seconds,
            messages_per_second: if seconds > 0.0 { latencies.len() as f64 / seconds } else { 0.0 },
            p50_ms: quantile(&latencies, 50),
            p99_ms: quantile(&latencies, 99),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Orders> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The closing figures.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(super) struct Summary {
    /// Orders sent.
    pub(super) sent: usize,
    /// Different orders handled.
    pub(super) handled: usize,
    /// Orders handled more than once, which at-least-once delivery permits.
    pub(super) handled_twice: usize,
    /// Runs of the handler that failed.
    pub(super) failures: u64,
    /// Deliveries beyond the first of each order.
    pub(super) redelivered: u64,
    /// Orders that became dead letters.
    pub(super) dead_lettered: u64,
    /// Dead letters sent again.
    pub(super) redriven: u64,
    /// Orders sent and never handled.
    pub(super) lost: usize,
    /// From the first send to the last order of the first pass.
    pub(super) seconds: f64,
    /// Orders of the first pass in a second.
    pub(super) messages_per_second: f64,
    /// Half of the orders were handled within this time after they were sent.
    pub(super) p50_ms: f64,
    /// 99 of 100 were.
    pub(super) p99_ms: f64,
}

impl Summary {
    /// Whether every message is accounted for.
    pub(super) fn is_complete(&self) -> bool {
        self.lost == 0 && self.handled == self.sent && self.dead_lettered == self.redriven
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn an_order_that_was_never_handled_is_lost() {
        let ledger = Ledger::new(4);
        (0..4).for_each(|id| ledger.record_sent(id));
        tokio::time::advance(Duration::from_millis(500)).await;
        [0, 1, 1].into_iter().for_each(|id| ledger.record_handled(id));
        ledger.first_pass_over();
        ledger.record_handled(2);
        let summary = ledger.summary(3, 1, 7);
        assert_eq!((summary.sent, summary.handled, summary.handled_twice, summary.lost), (4, 3, 1, 1));
        assert_eq!((summary.redelivered, summary.p50_ms, summary.messages_per_second), (3, 500.0, 6.0));
        assert!(!summary.is_complete());
        ledger.record_handled(3);
        assert!(ledger.summary(3, 1, 7).is_complete());
    }
}
