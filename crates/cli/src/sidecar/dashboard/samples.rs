//! [`Charts`]: the numbers of the last day of each worker, sampled once a second.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio::time::{MissedTickBehavior, interval};

use crate::sidecar::{
    dashboard::published_rates::PublishedRates,
    running::parts::{Parts, RunningWorker},
};
use dms_protocol::internal::clock;
use dms_server::internal::dashboard::{Range, Series};
use dms_worker::worker::Status;

/// The time between two samples.
const STEP: Duration = Duration::from_secs(1);
/// The maximum number of workers with charts. Together they take 14 MB.
const MAX_WORKERS: usize = 180;
/// The names of the numbers of a sample.
const COLUMNS: [&str; 6] = ["running", "limit", "handled", "failed", "p50", "p99"];

/// The numbers of the workers.
#[derive(Debug)]
pub(super) struct Charts {
    pub(super) began_ms: i64,
    workers: Mutex<HashMap<String, Sampled>>,
    pub(super) published: PublishedRates,
}

#[derive(Debug, Default)]
struct Sampled {
    series: Series<6>,
    /// The totals of the last sample, from which rates follow.
    before: Option<(u64, u64)>,
}

impl Charts {
    /// Samples these workers for as long as the charts are kept.
    pub(super) fn of(parts: Parts) -> Arc<Self> {
        let charts = Arc::new(Self {
            began_ms: clock::now().as_millisecond(),
            workers: Mutex::default(),
            published: PublishedRates::default(),
        });
        let kept = Arc::downgrade(&charts);
        tokio::spawn(async move {
            let mut ticks = interval(STEP);
            ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
            loop {
                ticks.tick().await;
                let Some(charts) = kept.upgrade() else { return };
                charts.sample(&parts.workers());
                charts.published.sample(&parts);
            }
        });
        charts
    }

    fn sample(&self, running: &[Arc<RunningWorker>]) {
        let mut workers = self.workers.lock().unwrap_or_else(PoisonError::into_inner);
        workers.retain(|name, _| running.iter().any(|watch| watch.name == *name));
        for watch in running {
            if workers.len() < MAX_WORKERS || workers.contains_key(&watch.name) {
                let sampled = workers.entry(watch.name.clone()).or_default();
                sampled.add(watch.recorder.running(), &watch.throttle.worker().status());
            }
        }
    }

    /// The values of a worker's charts, in JSON.
    pub(super) fn chart(&self, name: &str, range: Range) -> String {
        let workers = self.workers.lock().unwrap_or_else(PoisonError::into_inner);
        let empty = Series::default();
        let series = workers.get(name).map_or(&empty, |sampled| &sampled.series);
        series.chart(COLUMNS, range, clock::now().as_millisecond())
    }
}

impl Sampled {
    fn add(&mut self, running: usize, status: &Status) {
        let counts = &status.counts;
        let failed = counts.failed + counts.panicked + counts.timed_out;
        let handled = counts.done + counts.rejected + counts.deferred + failed;
        let before = self.before.replace((handled, failed)).unwrap_or((handled, failed));
        let millis = |duration: Duration| u32::try_from(duration.as_millis()).unwrap_or(u32::MAX);
        let durations = status.durations;
        self.series.push([
            u32::try_from(running).unwrap_or(u32::MAX),
            u32::try_from(status.concurrency).unwrap_or(u32::MAX),
            // A worker that a reload replaced counts from zero.
            u32::try_from(handled.saturating_sub(before.0)).unwrap_or(u32::MAX),
            u32::try_from(failed.saturating_sub(before.1)).unwrap_or(u32::MAX),
            durations.map_or(0, |seen| millis(seen.p50)),
            durations.map_or(0, |seen| millis(seen.p99)),
        ]);
    }
}
