//! The numbers of groups as the pages show them, and the problems that follow from them.

use std::{
    hash::{DefaultHasher, Hash, Hasher},
    time::Duration,
};

use maud::{Markup, html};

use crate::{
    broker::{GroupOverview, QueueOverview},
    dashboard::{
        html::{
            format::{number, rate, span},
            frame::Ui,
            live::{Live, points},
        },
        series::Range,
        server::{
            Pages,
            find::{group_url, queue_urls},
            history::{Column, Forecast, Snapshot},
            schedule_watch::{ScheduleTrouble, TroubledSchedule},
        },
        text::{Texts, fill},
    },
};
use dms_protocol::queue::GroupId;

/// The number of points of a small line: a minute.
const SPARK_POINTS: usize = 60;
/// The age of the oldest message from which a growing backlog is a problem.
const OLD: Duration = Duration::from_secs(5 * 60);

impl Pages {
    /// The overview now.
    pub(super) async fn snapshot(&self) -> Snapshot {
        self.dashboard.history.look(&self.app).await
    }

    /// All queues now, also those of the other servers of a cluster.
    pub(super) async fn queues(&self) -> Vec<QueueOverview> {
        self.snapshot().await.queues
    }

    /// The numbers of the overview page.
    pub(super) fn overview_live(&self, snapshot: &Snapshot, findings: &[Finding], t: &Texts) -> Live {
        let mut live = Live::default();
        let history = &self.dashboard.history;
        let total = |column| history.column(None, column, Range::Minutes, SPARK_POINTS);
        for (name, column) in
            [("in", Column::In), ("out", Column::Out), ("ready", Column::Ready), ("dead", Column::Dead)]
        {
            live.set(format!("{name}.line"), points(&total(column)));
        }
        let groups = || snapshot.queues.iter().flat_map(|queue| &queue.groups);
        let sum = |of: fn(&GroupOverview) -> u64| groups().map(of).sum::<u64>();
        live.set("in", rate(snapshot.queues.iter().map(|queue| queue.entered_per_second).sum()));
        live.set("out", rate(groups().map(|group| group.consumed_per_second).sum()));
        live.set("ready", number(sum(|group| group.group.available_messages)));
        live.set("leased", number(sum(|group| group.in_flight)));
        live.set("delayed", number(snapshot.queues.iter().map(|queue| queue.delayed).sum()));
        live.set("dead", number(sum(|group| group.group.available_dead_letters.unwrap_or(0))));
        live.set("redelivered", number(self.app.broker.stats().redeliveries));
        for queue in &snapshot.queues {
            for group in &queue.groups {
                self.group_live(queue, group, snapshot, t, &mut live);
            }
        }
        live.set("version", version(snapshot, findings));
        live
    }

    /// The numbers of one group.
    pub(super) fn group_live(
        &self,
        queue: &QueueOverview,
        group: &GroupOverview,
        snapshot: &Snapshot,
        t: &Texts,
        live: &mut Live,
    ) {
        let id = &group.group.id;
        let history = &self.dashboard.history;
        let mut set = |name: &str, text: String| live.set(format!("{id}.{name}"), text);
        let backlog = group.group.available_messages + group.in_flight;
        set("ready", number(group.group.available_messages));
        set("leased", number(group.in_flight));
        set("delayed", number(queue.delayed));
        set("dead", number(group.group.available_dead_letters.unwrap_or(0)));
        set("polls", number(group.polls));
        set("in", rate(queue.entered_per_second));
        set("out", rate(group.consumed_per_second));
        set("oldest", oldest(id, snapshot).map_or_else(|| "–".to_owned(), |age| span(age, t)));
        set("line", points(&history.column(Some(id), Column::Ready, Range::Minutes, SPARK_POINTS)));
        let (forecast, change) = history.forecast(id, backlog);
        let trend = if change == 0 { "±0".to_owned() } else { format!("{change:+}") };
        set(
            "trend",
            match forecast {
                Forecast::Empty => "–".to_owned(),
                Forecast::Unknown => t.too_early.to_owned(),
                Forecast::Drains(left) => fill(t.drains, &[&trend, &span(left, t)]),
                Forecast::Never => fill(t.never_drains, &[&trend]),
            },
        );
    }
}

/// Changes when rows or problems come or go. The page then offers to be loaded again, because a page never moves on its own.
fn version(snapshot: &Snapshot, findings: &[Finding]) -> String {
    let mut hash = DefaultHasher::new();
    for queue in &snapshot.queues {
        let groups: Vec<_> = queue.groups.iter().map(|group| group.group.id.as_str()).collect();
        (queue.queue.id.as_str(), groups).hash(&mut hash);
    }
    findings.iter().for_each(|finding| finding.kind().hash(&mut hash));
    format!("{:016x}", hash.finish())
}

/// The age of the oldest message of a group that it has not settled.
pub(super) fn oldest(group: &GroupId, snapshot: &Snapshot) -> Option<Duration> {
    let entered = snapshot.oldest.get(group)?;
    Some(Duration::from_millis(u64::try_from(snapshot.at_ms.saturating_sub(*entered)).unwrap_or(0)))
}

/// Something that an operator should look at.
#[derive(Clone, Debug)]
pub(super) enum Finding {
    /// The server does not serve now, because of this.
    NotServing(String),
    /// A part of the store fails.
    Storage(crate::broker::StorageTrouble),
    /// Faults are injected on purpose.
    Faults,
    /// Damaged messages are set aside.
    Damaged(u64),
    /// Other servers of the cluster do not answer.
    Incomplete,
    /// A group with a backlog has no consumer.
    NoConsumer { label: String, url: String, backlog: u64, gone: Option<Duration> },
    /// A backlog is old and grows.
    Growing { label: String, url: String, age: Duration, change: i64 },
    /// A schedule is not in force, is late, or missed ticks.
    Schedule(TroubledSchedule),
    /// A group has dead letters.
    DeadLetters { label: String, url: String, count: u64 },
}

impl Pages {
    /// The findings of an overview, the worst first.
    pub(super) fn findings(&self, snapshot: &Snapshot) -> Vec<Finding> {
        let mut findings: Vec<_> = self.app.broker.storage_troubles().into_iter().map(Finding::Storage).collect();
        if self.app.faults.is_active() {
            findings.push(Finding::Faults);
        }
        if snapshot.is_partial {
            findings.push(Finding::Incomplete);
        }
        let damaged = self.app.broker.damaged().len();
        if damaged > 0 {
            findings.push(Finding::Damaged(u64::try_from(damaged).unwrap_or(u64::MAX)));
        }
        let (mut stuck, mut growing, mut dead) = (Vec::new(), Vec::new(), Vec::new());
        for (queue, page) in queue_urls(&snapshot.queues) {
            for group in &queue.groups {
                let (label, url) = (format!("{} / {}", queue.queue.name, group.group.name), group_url(&page, group));
                let ready = group.group.available_messages;
                let (forecast, change) = self.dashboard.history.forecast(&group.group.id, ready + group.in_flight);
                let age = oldest(&group.group.id, snapshot).filter(|age| *age >= OLD && forecast == Forecast::Never);
                if ready > 0 && group.polls == 0 && group.in_flight == 0 && group.consumed_per_second < 0.05 {
                    let gone = self.dashboard.history.consumer_gone_for(&group.group.id);
                    stuck.push(Finding::NoConsumer { label: label.clone(), url: url.clone(), backlog: ready, gone });
                } else if let Some(age) = age {
                    growing.push(Finding::Growing { label: label.clone(), url: url.clone(), age, change });
                }
                let count = group.group.available_dead_letters.unwrap_or(0);
                if count > 0 {
                    dead.push(Finding::DeadLetters { label, url: format!("{url}/dead"), count });
                }
            }
        }
        let schedules = self.dashboard.schedules.findings().into_iter().map(Finding::Schedule);
        findings.into_iter().chain(stuck).chain(growing).chain(schedules).chain(dead).collect()
    }

    /// Why the server does not serve now, if it does not.
    pub(super) async fn not_serving(&self) -> Option<Finding> {
        let ready = self.app.broker.ready().await;
        ready.err().map(|error| Finding::NotServing(error.to_string()))
    }
}

impl Finding {
    /// Names the finding without numbers.
    fn kind(&self) -> String {
        match self {
            Self::NotServing(_) => "not serving".to_owned(),
            Self::Storage(trouble) => trouble.part.as_str().to_owned(),
            Self::Faults => "faults".to_owned(),
            Self::Damaged(_) => "damaged".to_owned(),
            Self::Incomplete => "incomplete".to_owned(),
            Self::NoConsumer { label, .. } => format!("no consumer {label}"),
            Self::Growing { label, .. } => format!("growing {label}"),
            Self::Schedule(TroubledSchedule { label, .. }) => format!("schedule {label}"),
            Self::DeadLetters { label, .. } => format!("dead {label}"),
        }
    }

    fn class(&self) -> &'static str {
        match self {
            Self::NotServing(_) | Self::Storage(_) => "bad",
            Self::Damaged(_)
            | Self::Incomplete
            | Self::NoConsumer { .. }
            | Self::Growing { .. }
            | Self::Schedule(_)
            | Self::Faults => "warn",
            Self::DeadLetters { .. } => "note",
        }
    }

    /// A problem and its remedy.
    fn texts(&self, t: &Texts) -> (String, String) {
        match self {
            Self::NotServing(error) => (fill(t.not_serving, &[error]), t.not_serving_remedy.to_owned()),
            Self::Storage(trouble) => {
                let refused = number(trouble.refused);
                let text = fill(t.storage_failing, &[trouble.part.as_str(), &trouble.reason, &refused]);
                (text, trouble.remedy.to_owned())
            }
            Self::Faults => (t.faults.to_owned(), t.faults_remedy.to_owned()),
            Self::Damaged(count) => (fill(t.damaged, &[&number(*count)]), t.damaged_remedy.to_owned()),
            Self::Incomplete => (t.incomplete.to_owned(), t.incomplete_remedy.to_owned()),
            Self::NoConsumer { label, backlog, gone, .. } => {
                let text = match gone {
                    Some(gone) => fill(t.no_consumer_since, &[label, &number(*backlog), &span(*gone, t)]),
                    None => fill(t.no_consumer, &[label, &number(*backlog)]),
                };
                (text, t.no_consumer_remedy.to_owned())
            }
            Self::Growing { label, age, change, .. } => {
                (fill(t.growing, &[label, &span(*age, t), &format!("{change:+}")]), t.growing_remedy.to_owned())
            }
            Self::Schedule(TroubledSchedule { label, trouble, .. }) => match trouble {
                ScheduleTrouble::Waits(reason) => {
                    (fill(t.schedule_waits, &[label, reason]), t.schedule_waits_remedy.to_owned())
                }
                ScheduleTrouble::NeverDue => (fill(t.schedule_never_due, &[label]), t.never_due_remedy.to_owned()),
                ScheduleTrouble::Overdue(since) => {
                    (fill(t.schedule_overdue, &[label, &span(*since, t)]), t.schedule_overdue_remedy.to_owned())
                }
                ScheduleTrouble::Late(late) => {
                    (fill(t.schedule_late, &[label, &span(*late, t)]), t.schedule_late_remedy.to_owned())
                }
                ScheduleTrouble::Missed(count) => {
                    (fill(t.schedule_missed, &[label, &number(*count)]), t.schedule_missed_remedy.to_owned())
                }
            },
            Self::DeadLetters { label, count, .. } => {
                (fill(t.has_dead_letters, &[label, &number(*count)]), t.dead_letters_remedy.to_owned())
            }
        }
    }

    fn url(&self) -> Option<&str> {
        match self {
            Self::NoConsumer { url, .. }
            | Self::Growing { url, .. }
            | Self::Schedule(TroubledSchedule { url, .. })
            | Self::DeadLetters { url, .. } => Some(url),
            Self::Damaged(_) | Self::Storage(_) => Some("/storage"),
            Self::Incomplete => Some("/cluster"),
            Self::NotServing(_) | Self::Faults => None,
        }
    }
}

/// The list of findings at the top of a page.
pub(super) fn findings(ui: &Ui<'_>, findings: &[Finding]) -> Markup {
    const MAX_SHOWN: usize = 8;
    html! {
        @if findings.is_empty() { p.alert.good { (ui.t.all_is_well) } }
        @else {
            ul.findings {
                @for finding in findings.iter().take(MAX_SHOWN) {
                    @let (text, remedy) = finding.texts(ui.t);
                    li.alert.(finding.class()) {
                        strong { @match finding.url() { Some(url) => { a href=(ui.url(url)) { (text) } }, None => { (text) } } }
                        " " span.remedy { (remedy) }
                    }
                }
                @if findings.len() > MAX_SHOWN {
                    li.muted { (fill(ui.t.further_findings, &[&(findings.len() - MAX_SHOWN).to_string()])) }
                }
            }
        }
    }
}
