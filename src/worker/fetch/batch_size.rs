//! How many messages a poll asks for when `max_messages` is `auto`: pure.
//!
//! All messages of a batch wait for its one acknowledgement, so a slow one holds the others. Quick and even handlers get full
//! batches; the more the slowest run differs from the usual one, the smaller the batch.

use std::time::Duration;

use crate::{limits::MAX_MESSAGES, worker::observe::latency::Quantiles};

/// Below this p99, waiting for the slowest of a batch costs nobody anything.
const QUICK: Duration = Duration::from_millis(100);
/// The slowest run may take this many times the usual one before batches shrink.
const EVEN: u128 = 4;

/// The size of the next batch for a handler with these durations; full batches before anything is known.
pub(crate) fn batch_size(seen: Option<Quantiles>) -> usize {
    let Some(Quantiles { p50, p99 }) = seen else { return MAX_MESSAGES };
    if p99 <= QUICK {
        return MAX_MESSAGES;
    }
    let allowed = p50.as_micros().max(1) * EVEN;
    let size = MAX_MESSAGES as u128 * allowed / p99.as_micros().max(1);
    usize::try_from(size).unwrap_or(MAX_MESSAGES).clamp(1, MAX_MESSAGES)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn size(p50_ms: u64, p99_ms: u64) -> usize {
        batch_size(Some(Quantiles { p50: Duration::from_millis(p50_ms), p99: Duration::from_millis(p99_ms) }))
    }

    #[test]
    fn even_handlers_get_full_batches_and_uneven_ones_small_ones() {
        assert_eq!(batch_size(None), 10);
        assert_eq!(size(1, 90), 10, "quick");
        assert_eq!(size(1000, 3000), 10, "slow but even");
        assert_eq!(size(100, 800), 5);
        assert_eq!(size(10, 10_000), 1);
        assert_eq!(size(0, 5_000), 1);
    }
}
