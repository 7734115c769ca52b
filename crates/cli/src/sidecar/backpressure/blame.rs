//! [`Blame`]: whether a connection that broke is the fault of the message or of the application. Pure but for the clock.
//!
//! One message alone proves nothing about the application: it may be what ends the process. So a message is judged by what
//! happens when nothing else is in flight, and an application by what several messages meet.
//!
//! * A message whose connection breaks while others go on, and while the application takes connections, has failed.
//! * Messages whose connections break together, or with the application's process, are suspects, and none has failed. Each is
//!   posted again while nothing else is in flight.
//! * One that breaks the connection twice, alone, has failed. Where other messages meet the same meanwhile and none is
//!   answered, it is rather the application that is ill: the message makes room for others, and comes later, until it has broken
//!   the connection six times.
//! * Messages that have broken connections are remembered for a while: after a redelivery, one break is enough.

use std::{
    collections::HashSet,
    hash::{DefaultHasher, Hash, Hasher},
    sync::{
        Arc, OnceLock,
        atomic::{AtomicU32, Ordering::Relaxed},
    },
    time::Duration,
};

use tokio::time::Instant;

use dms_worker::{internal::TtlMap, worker::Delivery};

/// Connections that break within this time of each other broke for one reason.
pub(crate) const SAME_CAUSE_WINDOW: Duration = Duration::from_millis(100);
/// Posts in a row without an answer, of which each was alone, that take an application down.
const MAX_BREAKS_IN_A_ROW: u32 = 3;
/// How often a message may break the connection before it has failed, also where every other message breaks it too.
const MAX_BREAKS: u32 = 6;
/// How many messages are remembered, and for how long.
const MAX_RECORDS: usize = 1_000;
const RECORD_TTL: Duration = Duration::from_secs(600);

/// What tells a message from others. Messages with the same content are alike for the memory of what breaks connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct MessageKey {
    content: u64,
    sequence: Option<u64>,
}

impl MessageKey {
    #[cfg(test)]
    pub(crate) const fn numbered(number: u64) -> Self {
        Self { content: number, sequence: Some(number) }
    }

    /// What messages of the same content have in common.
    pub(crate) fn content(self) -> u64 {
        self.content
    }

    /// The key of a message, or of the messages that share a request.
    fn of(deliveries: &[Delivery]) -> Self {
        let mut hasher = DefaultHasher::new();
        for delivery in deliveries {
            delivery.body().as_bytes().hash(&mut hasher);
            delivery.tags().hash(&mut hasher);
        }
        Self { content: hasher.finish(), sequence: deliveries.first().and_then(Delivery::sequence) }
    }
}

/// The key of messages, made when it is first needed: as long as nothing has broken a connection, no body is hashed.
#[derive(Debug)]
pub(crate) struct LazyKey<'a> {
    deliveries: &'a [Delivery],
    key: OnceLock<MessageKey>,
}

impl<'a> LazyKey<'a> {
    /// The key of a message, or of the messages that share a request.
    pub(crate) fn of(deliveries: &'a [Delivery]) -> Self {
        Self { deliveries, key: OnceLock::new() }
    }

    #[cfg(test)]
    pub(crate) fn numbered(number: u64) -> Self {
        Self { deliveries: &[], key: OnceLock::from(MessageKey::numbered(number)) }
    }

    /// Whether the key was needed.
    #[cfg(test)]
    pub(crate) fn is_made(&self) -> bool {
        self.key.get().is_some()
    }

    /// The key.
    pub(crate) fn get(&self) -> MessageKey {
        *self.key.get_or_init(|| MessageKey::of(self.deliveries))
    }
}

/// What a broken connection says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// The message has failed.
    Message,
    /// Nobody knows, although the message was posted several times: others get their turn before it.
    Later,
    /// Nobody knows: the message is posted again while nothing else is in flight.
    Unclear {
        /// The number of answers so far, where the next answer to another message says that this one was to blame.
        answers: Option<u64>,
    },
}

/// How a connection broke.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Break {
    /// Nothing else was in flight.
    pub(crate) only_post: bool,
    /// Other connections broke at the same time.
    pub(crate) together: bool,
    /// The application takes no connections any more, or says that it is not well.
    pub(crate) crashed: bool,
    /// The application had answered before, and nothing spoke against it since.
    pub(crate) proven: bool,
}

/// Posts in flight, and messages that broke connections.
#[derive(Debug)]
pub(crate) struct Blame {
    in_flight: usize,
    /// The number of posts so far.
    begun: u64,
    /// The number of answers so far.
    answers: u64,
    /// Messages that broke a connection while nothing else was in flight, or got no answer, since the last answer.
    unanswered: HashSet<MessageKey>,
    /// The number of connections that broke since the last answer.
    in_a_row: u32,
    /// When the last connection broke, and how many broke with it.
    last_break: Option<(Instant, Arc<AtomicU32>)>,
    records: TtlMap<u64, Record>,
}

/// The record of a message that broke connections.
#[derive(Clone, Copy, Debug, Default)]
struct Record {
    times: u32,
    /// The application went down with it: it is posted only while nothing else is in flight.
    crashes: bool,
}

/// A post that is in flight.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Flight {
    /// The number of the post.
    number: u64,
    /// Whether no other post was in flight when it began.
    first: bool,
}

impl Default for Blame {
    fn default() -> Self {
        Self {
            in_flight: 0,
            begun: 0,
            answers: 0,
            unanswered: HashSet::new(),
            in_a_row: 0,
            last_break: None,
            records: TtlMap::new(MAX_RECORDS),
        }
    }
}

impl Blame {
    /// A post begins.
    pub(crate) fn begin(&mut self) -> Flight {
        (self.begun, self.in_flight) = (self.begun + 1, self.in_flight + 1);
        Flight { number: self.begun, first: self.in_flight == 1 }
    }

    /// A post has ended.
    pub(crate) fn end(&mut self) {
        self.in_flight = self.in_flight.saturating_sub(1);
    }

    /// Whether no other post was in flight at any time of this one.
    pub(crate) fn was_only_post(&self, flight: Flight) -> bool {
        flight.first && flight.number == self.begun
    }

    /// Whether any message is remembered: otherwise no key is needed to ask about one.
    pub(crate) fn remembers(&self) -> bool {
        !self.records.is_empty()
    }

    /// Whether a message is to be posted only while nothing else is in flight.
    pub(crate) fn needs_exclusive_post(&self, key: MessageKey) -> bool {
        self.record(key).crashes
    }

    /// How many posts were answered.
    pub(crate) fn answers(&self) -> u64 {
        self.answers
    }

    /// The application answered this message; its key may be left out while no message is remembered.
    pub(crate) fn answered(&mut self, key: Option<MessageKey>) {
        self.answers += 1;
        self.unanswered.clear();
        self.in_a_row = 0;
        let Some(key) = key else { return };
        if self.record(key).times > 0 || self.record(key).crashes {
            self.records.insert(key.content, Record::default(), RECORD_TTL);
        }
    }

    /// A message got no answer in time. Says whether others got none either: then it is the application.
    pub(crate) fn silent(&mut self, key: MessageKey) -> bool {
        self.unanswered.insert(key);
        self.unanswered.len() > 1
    }

    /// A connection broke. The count says, a moment later, how many broke with it.
    pub(crate) fn broke(&mut self, now: Instant) -> Arc<AtomicU32> {
        let group = self.last_break.take().filter(|(last, _)| now - *last <= SAME_CAUSE_WINDOW);
        let count = group.map_or_else(Arc::default, |(_, count)| count);
        count.fetch_add(1, Relaxed);
        self.last_break = Some((now, Arc::clone(&count)));
        count
    }

    /// Judges a break: whose fault it is, and whether the application is taken for down.
    pub(crate) fn judge(&mut self, key: MessageKey, how: Break) -> (Fault, bool) {
        let mut record = self.record(key);
        record.crashes |= how.crashed || how.together;
        if !how.only_post && (how.crashed || how.together) {
            // The end of the application's process is a sign against each that was in flight, a weak one.
            record.times += u32::from(how.crashed && record.times == 0);
            self.records.insert(key.content, record, RECORD_TTL);
            return (Fault::Unclear { answers: None }, how.crashed);
        }
        record.times = record.times.saturating_add(1);
        self.records.insert(key.content, record, RECORD_TTL);
        self.unanswered.insert(key);
        self.in_a_row = self.in_a_row.saturating_add(1);
        let down = how.crashed || self.in_a_row >= MAX_BREAKS_IN_A_ROW;
        let unanswered = self.unanswered.len();
        let answers = (!how.crashed).then_some(self.answers);
        let fault = match (unanswered, record.times) {
            (0 | 1, 1) if how.proven && !how.crashed => Fault::Message,
            (0 | 1, 2..) => Fault::Message,
            (_, MAX_BREAKS..) => {
                self.records.insert(key.content, Record { times: 0, ..record }, RECORD_TTL);
                Fault::Message
            }
            (2.., 3..) => Fault::Later,
            _ => Fault::Unclear { answers },
        };
        (fault, down)
    }

    fn record(&self, key: MessageKey) -> Record {
        self.records.get(&key.content).copied().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LONE: Break = Break { only_post: true, together: false, crashed: false, proven: false };
    const UNCLEAR: Fault = Fault::Unclear { answers: Some(0) };

    fn key(number: u64) -> MessageKey {
        MessageKey::numbered(number)
    }

    #[test]
    fn a_message_that_breaks_the_connection_to_an_application_that_works_has_failed() {
        let mut blame = Blame::default();
        let how = Break { only_post: false, proven: true, ..LONE };
        assert_eq!(blame.judge(key(1), how), (Fault::Message, false));
        assert!(!blame.needs_exclusive_post(key(1)), "it harms nobody else");
        let (fault, down) = blame.judge(key(2), how);
        assert!(matches!(fault, Fault::Unclear { .. }) && !down, "two of them in a row: it may be the application");
        assert_eq!(blame.judge(key(3), how), (UNCLEAR, true));
        blame.answered(Some(key(4)));
        assert_eq!(blame.judge(key(3), how).0, Fault::Message);
    }

    #[test]
    fn alone_it_has_to_break_the_connection_twice_and_then_once_each_time_it_is_redelivered() {
        let mut blame = Blame::default();
        assert_eq!(blame.judge(key(1), LONE), (UNCLEAR, false));
        assert_eq!(blame.judge(key(1), LONE), (Fault::Message, false));
        assert_eq!(blame.judge(key(1), LONE), (Fault::Message, true));
    }

    #[test]
    fn those_that_were_in_flight_when_the_application_crashed_have_not_failed() {
        let mut blame = Blame::default();
        let crash = Break { only_post: false, together: true, crashed: true, proven: true };
        for number in 1..=30 {
            assert_eq!(blame.judge(key(number), crash), (Fault::Unclear { answers: None }, true));
            assert!(blame.needs_exclusive_post(key(number)));
        }
        blame.answered(Some(key(7)));
        assert!(!blame.needs_exclusive_post(key(7)), "it was not the one");
        assert_eq!(
            blame.judge(key(8), Break { crashed: true, ..LONE }),
            (Fault::Message, true),
            "the second time, alone"
        );
    }

    #[test]
    fn where_nothing_is_answered_nobody_is_blamed_at_first() {
        let mut blame = Blame::default();
        for number in 1..=20 {
            let (fault, down) = blame.judge(key(number), LONE);
            assert_eq!((fault, down), (UNCLEAR, number >= 3));
        }
        assert_eq!(blame.judge(key(1), LONE).0, UNCLEAR);
        let ends: Vec<Fault> = (0..5).map(|_| blame.judge(key(1), LONE).0).collect();
        assert_eq!(ends[..4], [Fault::Later, Fault::Later, Fault::Later, Fault::Message], "but not without end");
        assert_eq!(ends[4], UNCLEAR);
        blame.answered(Some(key(2)));
        blame.judge(key(1), LONE);
        assert_eq!(blame.judge(key(1), LONE).0, Fault::Message, "it is answered again");
    }

    #[tokio::test(start_paused = true)]
    async fn breaks_at_the_same_time_are_counted_together() {
        let mut blame = Blame::default();
        let (first, second) = (blame.broke(Instant::now()), blame.broke(Instant::now()));
        tokio::time::advance(SAME_CAUSE_WINDOW * 2).await;
        let third = blame.broke(Instant::now());
        assert_eq!([first, second, third].map(|count| count.load(Relaxed)), [2, 2, 1]);
    }

    #[test]
    fn a_post_is_alone_when_no_other_is_in_flight_at_any_time_of_it() {
        let mut blame = Blame::default();
        let first = blame.begin();
        assert!(blame.was_only_post(first));
        let second = blame.begin();
        assert!(!blame.was_only_post(first) && !blame.was_only_post(second));
        blame.end();
        blame.end();
        let third = blame.begin();
        assert!(blame.was_only_post(third));
    }
}
