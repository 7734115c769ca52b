//! Random histories on the broker and on a small model written apart from it, compared after every step.
//!
//! Steps happen at whole multiples of ten seconds; leases, delays and retentions end in between, so that both sides
//! agree about which of them have ended.

use std::{sync::Arc, time::Duration};

use dms_protocol::queue::{NewQueue, QueueMode, TagFilter, TagMode};
use dms_server::{
    broker::{
        Ack, AckCounts, AckStatus, Broker, BrokerError, FailureCause, GroupPath, LeaseRequest, LeasedMessage,
        PeekState, Stream,
        embedded::{EmbeddedBroker, EmbeddedConfig, FailureCounting},
    },
    clock::Clock,
};
use proptest::prelude::*;

use self::reference::{Death, Judged, Model, Standing};
use super::stage::{Home, epoch, message, texts};

mod reference;

const STEP: Duration = Duration::from_secs(10);
const ACK_WAIT: Duration = Duration::from_secs(33);
const RETENTION: Duration = Duration::from_secs(307);
/// How long a broker may wait for its beats.
const PATIENCE: Duration = Duration::from_secs(30);
const DEAD_LETTER_RETENTION: Duration = Duration::from_secs(208);

/// One step of a history.
#[derive(Clone, Debug)]
enum Step {
    /// Sends messages, each with labels and a delay in steps (and four seconds), 0 for none.
    Send(Vec<(Labels, u64)>),
    /// Consumes for a group.
    Take { group: usize, dead: bool, max: usize },
    /// Acknowledges one of the batches of a group, including old ones, with a status for each message; `None` leaves it out.
    Ack { batch: prop::sample::Index, said: Vec<Option<Said>> },
    /// Purges the backlog of a group, or the queue.
    Purge(Option<usize>),
    /// Time passes.
    Wait(u32),
    /// The broker ends, in order or by a crash, and opens again (on disk alone).
    Restart { crash: bool },
}

/// The status of a message; with a number, its reason and its error are sent too.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Said {
    Done,
    Fail(Option<u8>),
    Release,
    Reject(Option<u8>),
}

impl Said {
    fn status(self) -> AckStatus {
        let cause = |number: Option<u8>| {
            let told = |what: &str, number| Some(format!("{what}-{number}"));
            number.map(|n| {
                Arc::new(FailureCause { reason: told("reason", n), error: told("error", n), ..FailureCause::default() })
            })
        };
        match self {
            Self::Done => AckStatus::Success,
            Self::Fail(number) => AckStatus::Fail(cause(number)),
            Self::Release => AckStatus::Release,
            Self::Reject(number) => AckStatus::Reject(cause(number)),
        }
    }
}

/// Which of the labels x and y a message carries.
type Labels = [bool; 2];

/// The system that a history is played on.
#[derive(Clone, Debug)]
struct Setting {
    mode: QueueMode,
    max_consume_count: Option<u32>,
    counting: FailureCounting,
    /// The rule of the second group; the first has none.
    rule: TagFilter,
}

fn labels(labels: Labels) -> Vec<&'static str> {
    ["x", "y"].into_iter().zip(labels).filter_map(|(label, carried)| carried.then_some(label)).collect()
}

fn step() -> impl Strategy<Value = Step> {
    let sent = (any::<Labels>(), prop_oneof![3 => Just(0), 1 => 1u64..8]);
    let cause = || prop::option::of(0u8..3);
    let said = prop_oneof![
        12 => Just(Some(Said::Done)),
        4 => cause().prop_map(|cause| Some(Said::Fail(cause))),
        1 => Just(Some(Said::Release)),
        1 => cause().prop_map(|cause| Some(Said::Reject(cause))),
        2 => Just(None),
    ];
    prop_oneof![
        4 => prop::collection::vec(sent, 1..6).prop_map(Step::Send),
        6 => (0usize..2, prop::bool::weighted(0.2), 1usize..6)
            .prop_map(|(group, dead, max)| Step::Take { group, dead, max }),
        6 => (any::<prop::sample::Index>(), prop::collection::vec(said, 1..6))
            .prop_map(|(batch, said)| Step::Ack { batch, said }),
        2 => (1u32..12).prop_map(Step::Wait),
        1 => prop::option::weighted(0.7, 0usize..2).prop_map(Step::Purge),
        1 => any::<bool>().prop_map(|crash| Step::Restart { crash }),
    ]
}

fn setting() -> impl Strategy<Value = Setting> {
    let mode = prop_oneof![Just(QueueMode::Normal), Just(QueueMode::Fifo)];
    let counting = prop_oneof![Just(FailureCounting::Culprit), Just(FailureCounting::Batch)];
    let rule = (any::<Labels>(), any::<bool>()).prop_map(|(carried, and)| TagFilter {
        tags: labels(carried).into_iter().map(str::to_owned).collect(),
        mode: if and { TagMode::And } else { TagMode::Or },
    });
    (mode, prop::option::of(1u32..4), counting, rule).prop_map(|(mode, max_consume_count, counting, rule)| Setting {
        mode,
        max_consume_count,
        counting,
        rule,
    })
}

/// The number of histories, unless `PROPTEST_CASES` sets it.
fn config(cases: u32) -> ProptestConfig {
    let wanted = std::env::var("PROPTEST_CASES").ok().and_then(|cases| cases.parse().ok());
    ProptestConfig { cases: wanted.unwrap_or(cases), failure_persistence: None, ..ProptestConfig::default() }
}

proptest! {
    #![proptest_config(config(400))]

    #[test]
    fn histories_in_memory_follow_the_model(setting in setting(), steps in prop::collection::vec(step(), 1..60)) {
        play(setting, steps, &Home::Memory);
    }
}

proptest! {
    #![proptest_config(config(40))]

    #[test]
    fn histories_on_disk_follow_the_model(setting in setting(), steps in prop::collection::vec(step(), 1..60)) {
        play(setting, steps, &Home::Dir(Arc::new(tempfile::tempdir().unwrap())));
    }
}

#[cfg(feature = "postgres")]
proptest! {
    #![proptest_config(config(15))]

    #[test]
    fn histories_on_postgres_follow_the_model(setting in setting(), steps in prop::collection::vec(step(), 1..60)) {
        let Some(home) = Home::postgres() else { return Ok(()) };
        play(setting, steps, &home);
    }
}

/// Plays a history from beginning to end.
fn play(setting: Setting, steps: Vec<Step>, home: &Home) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    runtime.block_on(async {
        let mut play = Play::begin(setting, home.clone()).await;
        for step in steps {
            play.step(step).await;
            play.compare().await;
        }
    });
}

/// Calls the broker until it may serve. On a busy machine, PostgreSQL answers a beat too late for the short period of ownership that the
/// tests have; the broker then refuses calls, before they change anything, until the next beat.
async fn served<T>(mut call: impl AsyncFnMut() -> Result<T, BrokerError>) -> Result<T, BrokerError> {
    let began = std::time::Instant::now();
    loop {
        match call().await {
            Err(BrokerError::Unavailable) if began.elapsed() < PATIENCE => {
                // The beats have a clock and a thread of their own, and the paused clock stands still meanwhile.
                tokio::task::spawn_blocking(|| std::thread::sleep(Duration::from_millis(20))).await.unwrap();
            }
            answer => return answer,
        }
    }
}

/// A history being played.
struct Play {
    broker: EmbeddedBroker,
    home: Home,
    config: EmbeddedConfig,
    clock: Clock,
    setting: Setting,
    paths: Vec<GroupPath>,
    model: Model,
    sent: usize,
    /// Every batch that was handed out.
    batches: Vec<(usize, Stream, Vec<LeasedMessage>)>,
}

impl Play {
    async fn begin(setting: Setting, home: Home) -> Self {
        let config = EmbeddedConfig::default()
            .failure_counting(setting.counting)
            .retention(RETENTION)
            .dead_letter_retention(DEAD_LETTER_RETENTION);
        let clock = Clock::following_tokio(epoch());
        let broker = home.open(&config, clock).await;
        let mut queue = NewQueue::new("q").mode(setting.mode);
        queue.max_consume_count = setting.max_consume_count;
        let project = "p".into();
        let queue = served(async || broker.create_queue(&project, queue.clone()).await).await.unwrap().id;
        let groups =
            served(async || broker.create_groups(&project, &queue, &["a".into(), "b".into()]).await).await.unwrap();
        let path = |group| GroupPath { project: project.clone(), queue: queue.clone(), group };
        let paths = groups.into_iter().map(path).collect();
        let model = Model::new(&setting);
        let mut play = Self { broker, home, config, clock, setting, paths, model, sent: 0, batches: Vec::new() };
        // The first consume of each group fixes its rule.
        play.take(0, false, 1).await;
        play.take(1, false, 1).await;
        play
    }

    async fn step(&mut self, step: Step) {
        match step {
            Step::Send(messages) => self.send(messages).await,
            Step::Take { group, dead, max } => self.take(group, dead, max).await,
            Step::Ack { batch, said } => self.ack(batch, &said).await,
            Step::Purge(group) => self.purge(group).await,
            Step::Wait(steps) => {
                tokio::time::sleep(STEP * steps).await;
                self.model.pass(STEP * steps);
            }
            Step::Restart { crash } => self.restart(crash).await,
        }
    }

    async fn send(&mut self, messages: Vec<(Labels, u64)>) {
        let mut all = Vec::new();
        for (carried, steps) in messages {
            let delay =
                if steps == 0 { Duration::ZERO } else { STEP * u32::try_from(steps).unwrap() + Duration::from_secs(4) };
            let text = self.sent.to_string();
            self.sent += 1;
            all.push(message(&text, &labels(carried), delay));
            self.model.send(text, labels(carried), delay);
        }
        let path = &self.paths[0];
        served(async || self.broker.append(&path.project, &path.queue, all.clone()).await).await.unwrap();
    }

    async fn take(&mut self, group: usize, dead: bool, max: usize) {
        let stream = if dead { Stream::DeadLetters } else { Stream::Messages };
        let filter = if dead || group == 0 { TagFilter::default() } else { self.setting.rule.clone() };
        let request =
            LeaseRequest { max_messages: max, max_bytes: 524_288, wait: Duration::ZERO, ack_wait: ACK_WAIT, filter };
        let taken = served(async || self.broker.lease(&self.paths[group], stream, request.clone()).await).await;
        if dead && self.setting.max_consume_count.is_none() {
            assert!(matches!(taken, Err(BrokerError::NoDeadLetters)));
            return;
        }
        let taken = taken.unwrap();
        assert_eq!(texts(&taken), self.model.take(group, dead, max, ACK_WAIT));
        if !taken.is_empty() {
            self.batches.push((group, stream, taken));
        }
    }

    async fn ack(&mut self, batch: prop::sample::Index, said: &[Option<Said>]) {
        if self.batches.is_empty() {
            return;
        }
        let number = batch.index(self.batches.len());
        let (group, stream, messages) = &self.batches[number];
        let said = &said[..said.len().min(messages.len())];
        let mentioned = messages.iter().zip(said).filter_map(|(message, said)| Some((message, (*said)?)));
        let list: Vec<_> =
            mentioned.map(|(message, said)| Ack { receipt: message.receipt.clone(), status: said.status() }).collect();
        if list.is_empty() {
            return;
        }
        let settled = served(async || self.broker.ack(&self.paths[*group], *stream, list.clone()).await).await;
        match (settled, self.model.ack(number, said)) {
            (Ok(AckCounts { success, fail }), Judged::Settled(expected)) => assert_eq!((success, fail), expected),
            (Err(BrokerError::UnknownReceipt(_)), Judged::Over)
            | (Err(BrokerError::NotRejectable(_)), Judged::Refused) => {}
            (settled, expected) => panic!("{settled:?} where the model has {expected:?}"),
        }
    }

    async fn purge(&mut self, group: Option<usize>) {
        let path = &self.paths[group.unwrap_or(0)];
        let only = group.map(|_| &path.group);
        let purged = served(async || self.broker.purge(&path.project, &path.queue, only).await).await.unwrap();
        let expected = self.model.purge(group);
        // Of a group with a label rule the broker has not looked at all messages.
        if group != Some(1) {
            assert_eq!((purged.messages, purged.delayed), expected);
        }
    }

    async fn restart(&mut self, crash: bool) {
        if matches!(self.home, Home::Memory) {
            return;
        }
        if crash {
            self.broker.abort().await;
        } else {
            self.broker.close().await;
        }
        self.broker = self.home.open(&self.config, self.clock).await;
        self.model.restart(!crash && self.home.hands_leases_over());
    }

    /// Both sides show the same messages in the same standing, and the same counters.
    async fn compare(&self) {
        let path = &self.paths[0];
        let groups = served(async || self.broker.groups(&path.project, &path.queue).await).await.unwrap().groups;
        for (number, (path, shown)) in self.paths.iter().zip(groups).enumerate() {
            let expected = self.model.counters(number);
            assert_eq!(shown.produced_messages, expected.produced, "produced");
            assert_eq!(shown.consumed_messages, expected.consumed, "consumed");
            assert_eq!(shown.produced_dead_letters, Some(expected.produced_dead), "produced dead letters");
            assert_eq!(shown.available_dead_letters, Some(expected.available_dead), "available dead letters");
            if number == 0 {
                assert_eq!(shown.available_messages, expected.available, "available");
            }
            for stream in [Stream::Messages, Stream::DeadLetters] {
                if stream == Stream::Messages || self.setting.max_consume_count.is_some() {
                    let seen = served(async || self.broker.peek(path, stream, 0, 1_000).await).await.unwrap();
                    let seen: Vec<_> = seen.iter().map(standing).collect();
                    assert_eq!(seen, self.model.standings(number, stream == Stream::DeadLetters), "{stream:?}");
                }
            }
        }
    }
}

fn standing(peeked: &dms_server::broker::Peeked) -> (String, Standing, u32, Option<Death>) {
    let body: serde_json::Value = serde_json::from_slice(&peeked.json).unwrap();
    let standing = match peeked.state {
        PeekState::Available => Standing::Available,
        PeekState::Leased(_) => Standing::Leased,
        PeekState::Delayed(_) => Standing::Delayed,
    };
    let begun = i64::try_from(epoch().duration_since(std::time::UNIX_EPOCH).unwrap().as_millis()).unwrap();
    let seconds = |ms: i64| u64::try_from((ms - begun) / 1000).unwrap();
    let death = peeked.dead_letter.as_ref().map(|info| Death {
        reason: info.reason.clone(),
        error: info.error.clone(),
        attempts: info.attempts,
        first: info.first_failure_ms.map(seconds),
        last: seconds(info.last_failure_ms.unwrap()),
    });
    (body["body"].as_str().unwrap().to_owned(), standing, peeked.failures, death)
}
