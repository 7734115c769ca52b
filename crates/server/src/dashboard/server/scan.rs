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
        let (began, mut scan) = (Instant::now(), Self { looked: 0, next: Some(from) });
        while let Some(from) = scan.next {
            let page = broker.peek(path, stream, from, PAGE).await?;
            // A read ends early where messages are large, so a short page does not mean that there are no more.
            let Some(last) = page.iter().map(|message| message.sequence).max() else {
                scan.next = None;
                break;
            };
            for message in page {
                scan.looked += 1;
                let next = message.sequence.saturating_add(1);
                if filter.admits(&message) && see(message) == Seen::Enough {
                    scan.next = Some(next);
                    return Ok(scan);
                }
            }
            scan.next = Some(last.saturating_add(1));
            if scan.looked >= MAX_LOOKED || began.elapsed() >= MAX_TIME {
                break;
            }
        }
        Ok(scan)
    }
}
