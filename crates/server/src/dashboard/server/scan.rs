//! [`Scan`]: looks through the messages of a group in bounded steps, without leasing them.

use std::time::Duration;

use tokio::time::Instant;

use crate::{
    broker::{Broker, BrokerError, GroupPath, Peeked, Stream},
    dashboard::server::filter::Filter,
};

/// The number of messages of one read.
const PAGE: usize = 100;
/// The maximum number of messages of one step.
pub(super) const MAX_LOOKED: usize = 50_000;
/// The maximum time of one step.
pub(super) const MAX_TIME: Duration = Duration::from_millis(200);

/// The sequence numbers of delayed messages are counted from here.
pub(super) const DELAYED: u64 = 1 << 40;
/// How far the clock of the server may be set back and every message of a time is found, in milliseconds.
const CLOCK_STEP: i64 = 60_000;

/// One step through the messages of a group.
#[derive(Debug, Default)]
pub(super) struct Scan {
    /// The number of messages that were looked at.
    pub(super) looked: usize,
    /// The sequence number at which the next step begins; `None` after the last message.
    pub(super) next: Option<u64>,
}

/// Where a scan stops early.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Seen {
    /// It looks at further messages.
    More,
    /// It has enough.
    Enough,
}

impl Scan {
    /// Shows the messages from `from` on that a filter admits, until `see` has enough or the step is long enough.
    ///
    /// # Errors
    /// The broker's error.
    pub(super) async fn step(
        broker: &dyn Broker,
        path: &GroupPath,
        stream: Stream,
        from: u64,
        filter: &Filter,
        mut see: impl FnMut(Peeked) -> Seen + Send,
    ) -> Result<Self, BrokerError> {
        let (began, window) = (Instant::now(), filter.window());
        let mut scan = Self { looked: 0, next: Some(from).filter(|_| !window.is_empty()) };
        if from == 0 && window.since > i64::MIN && scan.next.is_some() {
            scan.next = Some(first_since(broker, path, stream, window.since.saturating_sub(CLOCK_STEP)).await?);
        }
        while let Some(from) = scan.next {
            let page = broker.peek(path, stream, from, PAGE).await?;
            // A read ends early where messages are large, so a short page does not mean that there are no more.
            let Some(last) = page.iter().map(|message| message.sequence).max() else {
                scan.next = None;
                break;
            };
            let mut is_over = false;
            for message in page {
                scan.looked += 1;
                let next = message.sequence.saturating_add(1);
                is_over |= message.entered_ms > window.until.saturating_add(CLOCK_STEP);
                let is_admitted = window.admits(message.entered_ms) && filter.admits(&message);
                if is_admitted && see(message) == Seen::Enough {
                    scan.next = Some(next);
                    return Ok(scan);
                }
            }
            let next = last.saturating_add(1);
            // All further messages entered later. Delayed ones have an order of their own.
            scan.next = Some(if is_over { next.max(DELAYED) } else { next });
            if scan.looked >= MAX_LOOKED || began.elapsed() >= MAX_TIME {
                break;
            }
        }
        Ok(scan)
    }
}

/// A sequence number before which every message entered before `time`. Messages enter in the order of their numbers, so a backlog of
/// millions takes some forty reads of one message.
async fn first_since(broker: &dyn Broker, path: &GroupPath, stream: Stream, time: i64) -> Result<u64, BrokerError> {
    let (began, mut low, mut high) = (Instant::now(), 0, DELAYED);
    while low < high && began.elapsed() < MAX_TIME / 2 {
        let middle = low + (high - low) / 2;
        match broker.peek(path, stream, middle, 1).await?.first() {
            Some(message) if message.sequence < DELAYED && message.entered_ms < time => low = message.sequence + 1,
            _ => high = middle,
        }
    }
    Ok(low)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::time::UNIX_EPOCH;

    use dms_protocol::queue::NewQueue;
    use tokio::time::advance;

    use super::*;
    use crate::{
        broker::{
            NewMessage,
            embedded::{EmbeddedBroker, EmbeddedConfig},
        },
        clock::Clock,
        dashboard::form::Form,
    };

    /// A backlog of an hour, a message a second, from which one minute is wanted: the search begins there and ends there.
    #[tokio::test(start_paused = true)]
    async fn a_search_by_time_looks_at_that_time_alone() {
        let clock = Clock::following_tokio(UNIX_EPOCH + Duration::from_secs(1_795_946_400));
        let broker = EmbeddedBroker::in_memory(EmbeddedConfig::default(), clock).await;
        let project = "p".into();
        let queue = broker.create_queue(&project, NewQueue::new("orders")).await.unwrap().id;
        let group = broker.create_groups(&project, &queue, &["billing".to_owned()]).await.unwrap().remove(0);
        let path = GroupPath { project, queue, group };
        let message = |delay| NewMessage {
            json: r#"{"body":1,"attributes":{}}"#.into(),
            body_bytes: 1,
            tags: vec![],
            delay,
            origin: None,
            deduplication: None,
        };
        broker.append(&path.project, &path.queue, vec![message(Duration::from_secs(90 * 60))]).await.unwrap();
        for _ in 0..3_600 {
            broker.append(&path.project, &path.queue, vec![message(Duration::ZERO)]).await.unwrap();
            advance(Duration::from_secs(1)).await;
        }
        let found = async |query: &str| {
            let (mut seen, filter) = (Vec::new(), Filter::of(&Form::parse(query.as_bytes())));
            let see = |message: Peeked| {
                seen.push(message.sequence % DELAYED);
                Seen::More
            };
            let scan = Scan::step(&broker, &path, Stream::Messages, 0, &filter, see).await.unwrap();
            assert_eq!(scan.next, None);
            (seen, scan.looked)
        };
        let (seen, looked) = found("since=2026-11-29T10:30&until=2026-11-29T10:30:59").await;
        assert_eq!((seen.len(), seen[0], seen[59]), (60, 1_801, 1_860));
        assert!(looked < 400, "{looked}");
        assert_eq!(found("since=2026-11-29T10:59:58").await.0.len(), 3, "two messages, and the delayed one");
        assert_eq!(found("until=2026-11-29T09:59").await.0.len(), 0);
        assert_eq!(found("since=2026-11-29T11:30&until=2026-11-29T11:30").await.0.len(), 1, "when its delay ends");
        assert_eq!(found("since=soon").await, (vec![], 0));
    }
}
