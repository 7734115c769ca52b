//! [`PublishedRates`]: the messages that publishers sent in the last minute.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{Mutex, PoisonError},
};

use crate::sidecar::running::{parts::Parts, publisher::RunningPublisher};
use dms_protocol::queue::QueueId;

/// The number of samples, one a second, from which a rate follows.
const MINUTE: usize = 60;

/// The messages that publishers sent in the last minute, by the address and the queue.
#[derive(Debug, Default)]
pub(super) struct PublishedRates(Mutex<BTreeMap<(String, QueueId), VecDeque<u64>>>);

impl PublishedRates {
    /// Takes a sample. It is called once a second.
    pub(super) fn sample(&self, parts: &Parts) {
        let mut samples = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let publishers = parts.publishers();
        let now: BTreeMap<_, _> = publishers
            .iter()
            .flat_map(|publisher| {
                let address = address(publisher);
                publisher
                    .producers
                    .reports()
                    .into_iter()
                    .map(move |(queue, _, report)| ((address.clone(), queue), report.sent))
            })
            .collect();
        samples.retain(|key, _| now.contains_key(key));
        for (key, sent) in now {
            let totals = samples.entry(key).or_default();
            if totals.len() > MINUTE {
                totals.pop_front();
            }
            totals.push_back(sent);
        }
    }

    /// Messages per second in the last minute.
    pub(super) fn rate(&self, address: &str, queue: &QueueId) -> f64 {
        let samples = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(totals) = samples.get(&(address.to_owned(), queue.clone())) else { return 0.0 };
        per_second(totals)
    }
}

/// The rate of totals that were taken once a second. A replaced publisher counts from zero.
fn per_second(totals: &VecDeque<u64>) -> f64 {
    let (Some(first), Some(last)) = (totals.front(), totals.back()) else { return 0.0 };
    let seconds = u32::try_from(totals.len().saturating_sub(1)).unwrap_or(1).max(1);
    f64::from(u32::try_from(last.saturating_sub(*first)).unwrap_or(u32::MAX)) / f64::from(seconds)
}

/// The address by which a publisher is shown.
pub(super) fn address(publisher: &RunningPublisher) -> String {
    publisher.listener.local_addr().map_or_else(|| "–".to_owned(), |address| address.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_are_of_the_samples_that_there_are() {
        let of = |totals: &[u64]| per_second(&totals.iter().copied().collect());
        assert_eq!((of(&[]), of(&[7]), of(&[0, 10]), of(&[10, 20, 40]), of(&[9, 0])), (0.0, 0.0, 10.0, 15.0, 0.0));
    }
}
