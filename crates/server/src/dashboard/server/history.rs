//! [`History`]: the latest minutes and hours of each group, sampled once a second, and the latest overview.
//!
//! One sample reads counters only, in time proportional to the number of groups. Where there are so many that this would take more
//! than a twentieth of the time, samples are rarer. All of it is lost when the process ends.

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio::{
    sync::watch,
    time::{Instant, sleep_until, timeout},
};
use tokio_util::sync::CancellationToken;

use crate::{
    broker::{GroupOverview, QueueOverview},
    dashboard::series::{Range, Series},
    state::AppState,
};
use dms_protocol::queue::GroupId;

/// The time between two samples.
const STEP: Duration = Duration::from_secs(1);
/// How much longer than a sample takes the time until the next one is, at least, and the most steps that it may be.
const RARER: (u32, u32) = (20, 60);
/// The most steps that a sample takes for which other servers of a cluster did not answer in time.
const PARTIAL: u32 = 4;
/// How long before the next sample other servers have to answer.
const MARGIN: Duration = Duration::from_millis(100);
/// The number of samples between two looks at the oldest messages, which may read a message for each group.
const OLDEST_EVERY: u64 = 5;
/// The maximum number of groups with charts, the oldest first. With the state of 1,000 groups they take 18 MB.
const MAX_GROUPS: usize = 165;

/// The numbers of one sample, in the order of [`COLUMNS`].
type Sample = [u32; 8];
/// The names of the numbers of a sample: messages by their state, rates per second, the age of the oldest in seconds, waiting calls.
const COLUMNS: [&str; 8] = ["ready", "leased", "delayed", "dead", "in", "out", "oldest", "polls"];

/// A number of a sample that is read alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(usize)]
pub(crate) enum Column {
    /// Messages that can be consumed.
    Ready = 0,
    /// Messages that are leased.
    Leased = 1,
    /// Dead letters.
    Dead = 3,
    /// Messages per second that entered.
    In = 4,
    /// Messages per second that were settled.
    Out = 5,
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
    /// Whether other servers of the cluster did not answer.
    pub(crate) is_partial: bool,
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
    series: Series<8>,
    /// Whether there is room for its series. The totals count every group.
    is_charted: bool,
    /// The totals of the last sample, from which rates follow.
    before: Option<(u64, u64)>,
    /// When a consumer was seen last: it waited, leased or settled something.
    consumer_seen: Option<Instant>,
    /// The number of the last sample that the group was in. Groups that are gone are dropped by it.
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
    /// Takes samples until the server ends.
    pub(crate) async fn run(&self, app: &AppState, ended: &CancellationToken) {
        let sample = async {
            let mut steps = 1;
            for number in 0_u64.. {
                let began = Instant::now();
                let patience = STEP * steps - MARGIN;
                let mut snapshot = self.look_within(app, patience).await;
                if number % OLDEST_EVERY == 0 {
                    let queues: Vec<_> = snapshot.queues.iter().map(|queue| queue.queue.id.clone()).collect();
                    // Otherwise the ages that were seen last.
                    if let Ok(Ok(oldest)) = timeout(patience, app.broker.oldest_in(&queues)).await {
                        snapshot.oldest = Arc::new(oldest);
                    }
                }
                let is_partial = snapshot.is_partial;
                self.add(snapshot, steps);
                // Other servers that answer nothing cost only time here, or they have so many queues that they need more of it.
                steps = if is_partial { (steps * 2).min(PARTIAL) } else { steps_after(began.elapsed()) };
                sleep_until(began + STEP * steps).await;
            }
        };
        ended.run_until_cancelled(sample).await;
    }

    /// The overview now, of all servers of a cluster. If some of them do not answer, their queues are as they were seen last.
    pub(crate) async fn look(&self, app: &AppState) -> Snapshot {
        self.look_within(app, STEP - MARGIN).await
    }

    async fn look_within(&self, app: &AppState, patience: Duration) -> Snapshot {
        let found = timeout(patience, app.broker.overview_of_all()).await;
        let before = Arc::clone(&self.latest.borrow());
        let (queues, is_partial) = match found {
            Ok(Ok(queues)) => (queues, false),
            _ => {
                let mut queues = app.broker.overview();
                let own: HashSet<_> = queues.iter().map(|queue| queue.queue.id.clone()).collect();
                queues.extend(before.queues.iter().filter(|queue| !own.contains(&queue.queue.id)).cloned());
                (queues, true)
            }
        };
        let at_ms = app.authenticator.clock().now_ms();
        Snapshot { at_ms, queues, oldest: Arc::clone(&before.oldest), is_partial }
    }

    /// Adds the sample of so many steps.
    fn add(&self, snapshot: Snapshot, steps: u32) {
        self.rings.lock().unwrap_or_else(PoisonError::into_inner).add(&snapshot, steps);
        self.latest.send_replace(Arc::new(snapshot));
    }

    /// The latest overview, and news of later ones.
    pub(crate) fn watch(&self) -> watch::Receiver<Arc<Snapshot>> {
        self.latest.subscribe()
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
        history.map(|history| history.series.column(column as usize, range, most)).unwrap_or_default()
    }

    /// The numbers of a group for its charts.
    pub(crate) fn chart(&self, group: &GroupId, range: Range, now_ms: i64) -> String {
        let rings = self.rings.lock().unwrap_or_else(PoisonError::into_inner);
        let empty = Series::default();
        rings.groups.get(group).map_or(&empty, |history| &history.series).chart(COLUMNS, range, now_ms)
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

/// How many steps after its beginning the next sample follows one that took this long.
fn steps_after(took: Duration) -> u32 {
    let steps = (took * RARER.0).div_duration_f64(STEP).ceil().clamp(1.0, f64::from(RARER.1));
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "it is between the bounds")]
    let steps = steps as u32;
    steps
}

impl Rings {
    /// Charts have a value for each step, so a sample of several is in them as often.
    fn add(&mut self, snapshot: &Snapshot, steps: u32) {
        if self.samples == 0 {
            self.began_ms = snapshot.at_ms;
        }
        self.samples += 1;
        let (samples, mut sums) = (self.samples, [0_u64; 8]);
        let mut charted = self.groups.values().filter(|history| history.is_charted).count();
        let groups = snapshot.queues.iter().flat_map(|queue| queue.groups.iter().map(move |group| (queue, group)));
        for (queue, group) in groups {
            let history = self.groups.entry(group.group.id.clone()).or_default();
            let sample = history.sample(queue, group, snapshot, steps);
            if !history.is_charted && charted < MAX_GROUPS {
                (history.is_charted, charted) = (true, charted + 1);
            }
            if history.is_charted {
                (0..steps).for_each(|_| history.series.push(sample));
            }
            history.seen_in = samples;
            sums.iter_mut().zip(sample).for_each(|(sum, value)| *sum += u64::from(value));
        }
        // A message enters a queue once, however many groups it has.
        let entered = snapshot.queues.iter().map(|queue| queue.entered).sum();
        let before = self.totals.before.replace((entered, 0));
        sums[Column::In as usize] = before.map_or(0, |(before, _)| entered.saturating_sub(before) / u64::from(steps));
        let sums = sums.map(|sum| u32::try_from(sum).unwrap_or(u32::MAX));
        (0..steps).for_each(|_| self.totals.series.push(sums));
        self.groups.retain(|_, history| history.seen_in == samples);
    }
}

impl GroupHistory {
    fn sample(&mut self, queue: &QueueOverview, group: &GroupOverview, snapshot: &Snapshot, steps: u32) -> Sample {
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
            of(incoming / u64::from(steps)),
            of(outgoing / u64::from(steps)),
            of(u64::try_from(age).unwrap_or(0) / 1_000),
            of(group.polls),
        ]
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::print_stdout, clippy::unwrap_used)]

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
        Snapshot { at_ms: 1_000, queues: vec![queue], oldest: Arc::default(), is_partial: false }
    }

    #[tokio::test(start_paused = true)]
    async fn rates_and_forecasts_follow_from_the_samples() {
        let (history, group) = (History::default(), GroupId::from("g0"));
        for second in 0..30 {
            history.add(snapshot(1, 1_000 + 10 * second, 30 * second), 1);
        }
        assert_eq!(history.column(Some(&group), Column::In, Range::Minutes, 2), [10, 10]);
        assert_eq!(history.column(Some(&group), Column::Out, Range::Minutes, 2), [30, 30]);
        assert_eq!(history.column(None, Column::In, Range::Minutes, 1), [10]);
        assert_eq!(history.column(Some(&group), Column::Out, Range::Hours, 9).len(), 3);
        assert_eq!(history.forecast(&group, 400), (Forecast::Drains(Duration::from_secs(20)), -20));
        assert_eq!(history.forecast(&group, 0).0, Forecast::Empty);
        history.add(snapshot(1, 2_000, 0), 1);
        assert_eq!(history.forecast(&group, 2_000).0, Forecast::Never);
        history.add(snapshot(0, 2_000, 0), 1);
        assert!(history.column(Some(&group), Column::In, Range::Minutes, 2).is_empty(), "the group was deleted");
    }

    #[tokio::test(start_paused = true)]
    async fn a_rare_sample_stands_for_all_of_its_seconds() {
        assert_eq!([1, 50, 51, 200, 60_000].map(|ms| steps_after(Duration::from_millis(ms))), [1, 1, 2, 4, 60]);
        let (history, group) = (History::default(), GroupId::from("g0"));
        history.add(snapshot(1, 1_000, 0), 1);
        history.add(snapshot(1, 1_400, 80), 4);
        for column in [(Column::In, [0, 100, 100, 100, 100]), (Column::Out, [0, 20, 20, 20, 20])] {
            assert_eq!(history.column(Some(&group), column.0, Range::Minutes, 9), column.1);
        }
        assert_eq!(history.column(None, Column::In, Range::Minutes, 9), [0, 100, 100, 100, 100]);
    }

    #[tokio::test(start_paused = true)]
    async fn totals_count_every_group_and_charts_are_bounded() {
        let history = History::default();
        for second in 0..4 {
            history.add(snapshot(1_000, 1_000 + 10 * second, 3 * second), 1);
        }
        assert_eq!(history.column(None, Column::Out, Range::Minutes, 1), [3_000]);
        assert_eq!(history.column(None, Column::Ready, Range::Minutes, 1), [1_000 * (1_030 - 9)]);
        let charted = |number: usize| {
            let id = GroupId::from(format!("g{number}").as_str());
            !history.column(Some(&id), Column::In, Range::Minutes, 1).is_empty()
        };
        assert!(charted(0) && charted(MAX_GROUPS - 1) && !charted(MAX_GROUPS));
        // A group that is deleted makes room for another one.
        history.add(snapshot(MAX_GROUPS - 1, 2_000, 0), 1);
        history.add(snapshot(1_000, 2_000, 0), 1);
        assert!(charted(MAX_GROUPS - 1) && !charted(MAX_GROUPS));
    }

    /// The structures of 1,000 groups after a day, in bytes: those with charts, those without, the totals, and the two overviews that are
    /// alive while a new one replaces the last.
    #[tokio::test(start_paused = true)]
    async fn the_samples_of_1000_groups_take_18_megabytes_at_most() {
        let history = History::default();
        for _ in 0..3 {
            history.add(snapshot(1_000, 1_000, 0), 1);
        }
        let mut full = Series::<8>::default();
        (0..86_400).for_each(|second| full.push([second; 8]));
        let rings = history.rings.lock().unwrap();
        let charted = rings.groups.values().filter(|group| group.is_charted).count();
        assert_eq!((rings.groups.len(), charted), (1_000, MAX_GROUPS));
        let uncharted = rings.groups.values().filter(|group| !group.is_charted);
        assert_eq!(
            uncharted.map(|group| group.series.bytes()).sum::<usize>(),
            0,
            "a group without charts has no rings"
        );
        // A map keeps at most as many free places as it has entries; an id is shared with the broker.
        let each_group = 2 * size_of::<(GroupId, GroupHistory)>() + 64;
        let overview = size_of::<GroupOverview>() + size_of::<(GroupId, i64)>() * 2 + 128;
        let bytes = (charted + 1) * full.bytes() + 1_000 * (each_group + 2 * overview);
        println!("1,000 groups: {bytes} bytes, {each_group} for the state and {overview} for an overview of each");
        assert!(bytes <= 18_000_000, "{bytes}");
    }

    /// What sampling a broker with 1,000 groups costs. Time is measured, so this runs by hand, and in a release build:
    /// `cargo test --release -p dms-server --features dashboard --lib sampling_costs -- --ignored --nocapture`
    #[tokio::test(start_paused = true)]
    #[ignore = "measures time: run it in a release build on a quiet machine"]
    async fn sampling_costs_one_percent_of_a_core_and_18_megabytes() {
        use crate::broker::{
            Broker,
            embedded::{EmbeddedBroker, EmbeddedConfig},
        };
        use dms_protocol::queue::NewQueue;

        const SAMPLES: u32 = 200;
        let quotas = crate::broker::Quotas { queues: 1_000, groups_per_queue: 10, ..Default::default() };
        let config = EmbeddedConfig { quotas, ..EmbeddedConfig::default() };
        let broker = EmbeddedBroker::in_memory(config, crate::clock::Clock::system()).await;
        let project = "p".into();
        for number in 0..100 {
            let queue = broker.create_queue(&project, NewQueue::new(format!("queue-{number}"))).await.unwrap().id;
            let names: Vec<_> = (0..10).map(|number| format!("group-{number}")).collect();
            broker.create_groups(&project, &queue, &names).await.unwrap();
        }
        let history = History::default();
        let began = std::time::Instant::now();
        for number in 0..u64::from(SAMPLES) {
            let queues = broker.overview_of_all().await.unwrap();
            assert_eq!(queues.iter().map(|queue| queue.groups.len()).sum::<usize>(), 1_000);
            let mut snapshot =
                Snapshot { at_ms: 0, queues, oldest: history.latest.borrow().oldest.clone(), is_partial: false };
            if number % OLDEST_EVERY == 0 {
                snapshot.oldest = Arc::new(broker.oldest_in(&[]).await.unwrap());
            }
            history.add(snapshot, 1);
        }
        let each = began.elapsed() / SAMPLES;
        for second in 0..90_000 {
            let mut rings = history.rings.lock().unwrap_or_else(PoisonError::into_inner);
            rings.totals.series.push([second; 8]);
            rings.groups.values_mut().filter(|group| group.is_charted).for_each(|group| group.series.push([second; 8]));
        }
        let rings = history.rings.lock().unwrap_or_else(PoisonError::into_inner);
        let groups = rings.groups.values().map(|group| group.series.bytes() + size_of::<GroupHistory>() + 64);
        let bytes = rings.totals.series.bytes() + groups.sum::<usize>();
        println!(
            "1,000 groups, a sample a second: {each:?} each ({:.3} % of a core), {bytes} bytes after a day",
            each.as_secs_f64() * 100.0
        );
        assert!(each <= Duration::from_millis(10), "{each:?}");
        assert!(bytes <= 18_000_000, "{bytes}");
    }
}
