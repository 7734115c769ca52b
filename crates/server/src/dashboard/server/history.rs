//! [`History`]: the latest minutes and hours of each group, sampled once a second, and the latest overview.
//!
//! One sample reads counters only, in time proportional to the number of groups. Rings of a fixed size keep one second for ten
//! minutes, ten seconds for three hours and a minute for a day. All of it is lost when the process ends.

use std::{
    collections::{HashMap, VecDeque},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio::{
    sync::watch,
    time::{Instant, MissedTickBehavior, interval},
};
use tokio_util::sync::CancellationToken;

use crate::{
    broker::{GroupOverview, QueueOverview},
    state::AppState,
};
use dms_protocol::queue::GroupId;

/// The time between two samples.
const STEP: Duration = Duration::from_secs(1);
/// The number of samples between two looks at the oldest messages, which may read a message for each group.
const OLDEST_EVERY: u64 = 5;
/// The maximum number of groups with a history, the oldest first. Together they take 18 MB.
const MAX_GROUPS: usize = 180;

/// The numbers of one sample, in the order of [`Column`].
type Sample = [u32; 8];

/// A number of a sample.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(usize)]
pub(crate) enum Column {
    /// Messages that can be consumed.
    Ready,
    /// Messages that are leased.
    Leased,
    /// Messages whose delay has not ended.
    Delayed,
    /// Dead letters.
    Dead,
    /// Messages per second that entered.
    In,
    /// Messages per second that were settled.
    Out,
    /// The age of the oldest message in seconds.
    Oldest,
    /// Waiting consume calls.
    Polls,
}

/// A range of the charts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Range {
    /// Ten minutes by the second.
    #[default]
    Minutes,
    /// Three hours by ten seconds.
    Hours,
    /// A day by the minute.
    Day,
}

impl Range {
    pub(crate) const ALL: [Self; 3] = [Self::Minutes, Self::Hours, Self::Day];

    /// Its name in URLs.
    pub(crate) fn as_str(self) -> &'static str {
        ["10m", "3h", "24h"][self as usize]
    }

    pub(crate) fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|range| range.as_str() == name)
    }

    /// The number of seconds of one point.
    pub(crate) fn step(self) -> u64 {
        [1, 10, 60][self as usize]
    }

    /// The number of its points.
    fn length(self) -> usize {
        [600, 1_080, 1_440][self as usize]
    }
}

/// The overview at one time.
#[derive(Clone, Debug, Default)]
pub(crate) struct Snapshot {
    /// When it was made, in Unix milliseconds.
    pub(crate) at_ms: i64,
    /// All queues.
    pub(crate) queues: Vec<QueueOverview>,
    /// When the oldest message of each group entered, in Unix milliseconds.
    pub(crate) oldest: Arc<HashMap<GroupId, i64>>,
}

/// The history of a server.
#[derive(Debug)]
pub(crate) struct History {
    rings: Mutex<Rings>,
    latest: watch::Sender<Arc<Snapshot>>,
}

#[derive(Debug, Default)]
struct Rings {
    samples: u64,
    /// When the first sample was taken, in Unix milliseconds.
    began_ms: i64,
    groups: HashMap<GroupId, GroupHistory>,
    totals: GroupHistory,
}

#[derive(Debug, Default)]
struct GroupHistory {
    rings: [VecDeque<Sample>; 3],
    /// The totals of the last sample, from which rates follow.
    before: Option<(u64, u64)>,
    /// When a consumer was seen last: it waited, leased or settled something.
    consumer_seen: Option<Instant>,
    seen_in: u64,
}

/// How a backlog develops.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Forecast {
    /// There is no backlog.
    Empty,
    /// It is too early to tell.
    Unknown,
    /// It is gone after this time.
    Drains(Duration),
    /// It does not shrink.
    Never,
}

impl Default for History {
    fn default() -> Self {
        Self { rings: Mutex::default(), latest: watch::channel(Arc::default()).0 }
    }
}

impl History {
    /// Takes a sample every second until the server ends.
    pub(crate) async fn run(&self, app: &AppState, ended: &CancellationToken) {
        let sample = async {
            let mut ticks = interval(STEP);
            ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
            for number in 0_u64.. {
                ticks.tick().await;
                let oldest = match number % OLDEST_EVERY {
                    0 => Arc::new(app.broker.oldest().await),
                    _ => Arc::clone(&self.latest.borrow().oldest),
                };
                let at_ms = app.authenticator.clock().now_ms();
                self.add(Snapshot { at_ms, queues: app.broker.overview(), oldest });
            }
        };
        ended.run_until_cancelled(sample).await;
    }

    /// Adds a sample.
    fn add(&self, snapshot: Snapshot) {
        self.rings.lock().unwrap_or_else(PoisonError::into_inner).add(&snapshot);
        self.latest.send_replace(Arc::new(snapshot));
    }

    /// The latest overview, and news of later ones.
    pub(crate) fn watch(&self) -> watch::Receiver<Arc<Snapshot>> {
        self.latest.subscribe()
    }

    /// The ages of the oldest messages, as they were seen last.
    pub(crate) fn oldest(&self) -> Arc<HashMap<GroupId, i64>> {
        Arc::clone(&self.latest.borrow().oldest)
    }

    /// When the history begins, in Unix milliseconds; `None` before the first sample.
    pub(crate) fn began_ms(&self) -> Option<i64> {
        let rings = self.rings.lock().unwrap_or_else(PoisonError::into_inner);
        Some(rings.began_ms).filter(|_| rings.samples > 0)
    }

    /// The last `most` values of a group, or of all groups together.
    pub(crate) fn column(&self, group: Option<&GroupId>, column: Column, range: Range, most: usize) -> Vec<u32> {
        let rings = self.rings.lock().unwrap_or_else(PoisonError::into_inner);
        let history = group.map_or(Some(&rings.totals), |group| rings.groups.get(group));
        let ring = history.map(|history| &history.rings[range as usize]);
        let values = ring.into_iter().flatten().map(|sample| sample[column as usize]);
        let skipped = ring.map_or(0, |ring| ring.len().saturating_sub(most));
        values.skip(skipped).collect()
    }

    /// How the backlog of a group develops, by its last minute.
    pub(crate) fn forecast(&self, group: &GroupId, backlog: u64) -> (Forecast, i64) {
        let (ready, leased) = (self.last_minute(group, Column::Ready), self.last_minute(group, Column::Leased));
        let totals: Vec<_> =
            ready.iter().zip(&leased).map(|(ready, leased)| i64::from(*ready) + i64::from(*leased)).collect();
        let seconds = i64::try_from(totals.len()).unwrap_or(0) - 1;
        let (Some(first), Some(last)) = (totals.first(), totals.last()) else { return (Forecast::Unknown, 0) };
        let change = last - first;
        let per_second = if seconds > 0 { change / seconds } else { 0 };
        let forecast = match () {
            () if backlog == 0 => Forecast::Empty,
            () if seconds < 5 => Forecast::Unknown,
            () if change >= 0 => Forecast::Never,
            () => {
                let (backlog, shrunk) = (backlog, change.unsigned_abs());
                Forecast::Drains(Duration::from_secs(backlog.saturating_mul(seconds.unsigned_abs()) / shrunk))
            }
        };
        (forecast, per_second)
    }

    /// How long ago a consumer of a group was seen; `None` if it was never seen in the history, or is there now.
    pub(crate) fn consumer_gone_for(&self, group: &GroupId) -> Option<Duration> {
        let rings = self.rings.lock().unwrap_or_else(PoisonError::into_inner);
        rings.groups.get(group)?.consumer_seen.map(|seen| seen.elapsed())
    }

    fn last_minute(&self, group: &GroupId, column: Column) -> Vec<u32> {
        self.column(Some(group), column, Range::Minutes, 60)
    }
}

impl Rings {
    fn add(&mut self, snapshot: &Snapshot) {
        if self.samples == 0 {
            self.began_ms = snapshot.at_ms;
        }
        self.samples += 1;
        let (samples, mut sums) = (self.samples, [0_u64; 8]);
        let groups = snapshot.queues.iter().flat_map(|queue| queue.groups.iter().map(move |group| (queue, group)));
        for (place, (queue, group)) in groups.enumerate() {
            if place >= MAX_GROUPS && !self.groups.contains_key(&group.group.id) {
                continue;
            }
            let history = self.groups.entry(group.group.id.clone()).or_default();
            let sample = history.sample(queue, group, snapshot);
            history.push(sample, samples);
            history.seen_in = samples;
            sums.iter_mut().zip(sample).for_each(|(sum, value)| *sum += u64::from(value));
        }
        // A message enters a queue once, however many groups it has.
        let entered = snapshot.queues.iter().map(|queue| queue.entered).sum();
        let before = self.totals.before.replace((entered, 0));
        sums[Column::In as usize] = before.map_or(0, |(before, _)| entered.saturating_sub(before));
        self.totals.push(sums.map(|sum| u32::try_from(sum).unwrap_or(u32::MAX)), samples);
        self.groups.retain(|_, history| history.seen_in == samples);
    }
}

impl GroupHistory {
    fn sample(&mut self, queue: &QueueOverview, group: &GroupOverview, snapshot: &Snapshot) -> Sample {
        let of = |count: u64| u32::try_from(count).unwrap_or(u32::MAX);
        let (entered, consumed) = (queue.entered, group.group.consumed_messages);
        let before = self.before.replace((entered, consumed)).unwrap_or((entered, consumed));
        let (incoming, outgoing) = (entered.saturating_sub(before.0), consumed.saturating_sub(before.1));
        if group.polls > 0 || group.in_flight > 0 || outgoing > 0 {
            self.consumer_seen = Some(Instant::now());
        }
        let age = snapshot.oldest.get(&group.group.id).map_or(0, |entered| snapshot.at_ms.saturating_sub(*entered));
        [
            of(group.group.available_messages),
            of(group.in_flight),
            of(queue.delayed),
            of(group.group.available_dead_letters.unwrap_or(0)),
            of(incoming),
            of(outgoing),
            of(u64::try_from(age).unwrap_or(0) / 1_000),
            of(group.polls),
        ]
    }

    /// Adds a sample to the ring of seconds, and the mean of the last ones to the others when it is due.
    fn push(&mut self, sample: Sample, samples: u64) {
        push(&mut self.rings[0], sample, Range::Minutes);
        for range in [Range::Hours, Range::Day] {
            if samples.is_multiple_of(range.step()) {
                let mean = mean(&self.rings[0], usize::try_from(range.step()).unwrap_or(1));
                push(&mut self.rings[range as usize], mean, range);
            }
        }
    }
}

fn push(ring: &mut VecDeque<Sample>, sample: Sample, range: Range) {
    if ring.len() >= range.length() {
        ring.pop_front();
    }
    ring.push_back(sample);
}

/// The mean of the last `count` samples.
fn mean(ring: &VecDeque<Sample>, count: usize) -> Sample {
    let mut sums = [0_u64; 8];
    let last = ring.iter().rev().take(count);
    let taken = u64::try_from(last.len()).unwrap_or(1).max(1);
    last.for_each(|sample| sums.iter_mut().zip(sample).for_each(|(sum, value)| *sum += u64::from(*value)));
    sums.map(|sum| u32::try_from(sum / taken).unwrap_or(u32::MAX))
}

#[cfg(test)]
mod tests {
    use dms_protocol::queue::{ConsumerGroup, Queue, QueueId, QueueMode};

    use super::*;

    fn snapshot(groups: usize, entered: u64, consumed: u64) -> Snapshot {
        let group = |number: usize| {
            let mut group = ConsumerGroup::new(GroupId::from(format!("g{number}").as_str()), "g");
            (group.available_messages, group.consumed_messages) = (entered - consumed, consumed);
            GroupOverview {
                group,
                in_flight: 0,
                leases: 0,
                consumed_per_second: 0.0,
                polls: 0,
                expired_unread: 0,
                expired_dead_letters: 0,
                damaged: 0,
                damaged_dead_letters: 0,
            }
        };
        let queue = QueueOverview {
            project: "p".into(),
            queue: Queue::new(QueueId::from("q"), "q", QueueMode::Normal),
            retention: Duration::ZERO,
            delete_when_settled: false,
            retention_set: crate::broker::RetentionPolicy::default(),
            entered,
            entered_per_second: 0.0,
            delayed: 0,
            damaged_delayed: 0,
            groups: (0..groups).map(group).collect(),
        };
        Snapshot { at_ms: 1_000, queues: vec![queue], oldest: Arc::default() }
    }

    #[tokio::test(start_paused = true)]
    async fn rates_and_forecasts_follow_from_the_samples() {
        let (history, group) = (History::default(), GroupId::from("g0"));
        for second in 0..30 {
            history.add(snapshot(1, 1_000 + 10 * second, 30 * second));
        }
        assert_eq!(history.column(Some(&group), Column::In, Range::Minutes, 2), [10, 10]);
        assert_eq!(history.column(Some(&group), Column::Out, Range::Minutes, 2), [30, 30]);
        assert_eq!(history.column(None, Column::In, Range::Minutes, 1), [10]);
        assert_eq!(history.column(Some(&group), Column::Out, Range::Hours, 9).len(), 3);
        assert_eq!(history.forecast(&group, 400), (Forecast::Drains(Duration::from_secs(20)), -20));
        assert_eq!(history.forecast(&group, 0).0, Forecast::Empty);
        history.add(snapshot(1, 2_000, 0));
        assert_eq!(history.forecast(&group, 2_000).0, Forecast::Never);
        history.add(snapshot(0, 2_000, 0));
        assert!(history.column(Some(&group), Column::In, Range::Minutes, 2).is_empty(), "the group was deleted");
    }

    #[tokio::test(start_paused = true)]
    async fn the_rings_are_bounded() {
        let history = History::default();
        for second in 0..90_000 {
            history.rings.lock().unwrap_or_else(PoisonError::into_inner).add(&snapshot(1, second, 0));
        }
        let group = GroupId::from("g0");
        let lengths = Range::ALL.map(|range| history.column(Some(&group), Column::In, range, usize::MAX).len());
        assert_eq!(lengths, [600, 1_080, 1_440]);
        history.add(snapshot(1_000, 0, 0));
        let rings = history.rings.lock().unwrap_or_else(PoisonError::into_inner);
        assert!(rings.groups.len() <= MAX_GROUPS + 1);
        assert!(MAX_GROUPS * (600 + 1_080 + 1_440) * size_of::<Sample>() <= 18_000_000);
    }
}
