//! All queues and groups at a glance, and messages that are shown without leasing them.

use std::time::Duration;

use futures_util::{StreamExt, TryStreamExt, stream};
use http::{Method, StatusCode};

use super::{Client, call::Call, error::Error, tries::Repeat};
use crate::{
    queue::{Queue, QueueId, SourcePath, Stream},
    wire::{
        self,
        overview::{GroupOverview, PeekedMessage, QueueOverview},
    },
};

/// The groups of this many queues are asked for at a time where the service has no overview.
const CONCURRENT_LISTS: usize = 8;
/// An overview of several pages is begun this many times at most.
const MAX_STARTS: usize = 3;

impl Client {
    /// All queues of the project that the caller may see, with their groups and counters. This project's server answers with
    /// one call for 1,000 queues, after a first call by which the client learns that it has this extension. Of other services the queues and
    /// the groups of each queue are listed; their overview has no more than the documented counters.
    ///
    /// # Errors
    /// When a call fails.
    ///
    /// # Cancel safety
    /// Dropping the future has no effect, because the call changes nothing.
    pub async fn overview(&self) -> Result<Vec<QueueOverview>, Error> {
        if self.extensions().overview() {
            return self.announced_overview().await;
        }
        let queues = self.queues().await?;
        if self.extensions().overview() {
            return self.announced_overview().await;
        }
        let listed = stream::iter(queues).map(|queue| self.documented(queue)).buffered(CONCURRENT_LISTS);
        listed.try_filter_map(async |overview| Ok(overview)).try_collect().await
    }

    async fn announced_overview(&self) -> Result<Vec<QueueOverview>, Error> {
        let (mut queues, mut marker, mut starts) = (Vec::new(), None::<QueueId>, 1);
        loop {
            let query = marker.as_ref().map(|marker| format!("marker={marker}")).unwrap_or_default();
            let call = Call::new("overview", Method::GET, &["overview"], Repeat::Harmless).query(query);
            match self.fetch(call, |answer| Ok(wire::overview::decode_overview(answer)?)).await {
                Ok((page, next)) => {
                    queues.extend(page);
                    marker = next;
                }
                // The last queue of a page was deleted before the next one was asked for.
                Err(error)
                    if marker.is_some() && starts < MAX_STARTS && error.status() == Some(StatusCode::BAD_REQUEST) =>
                {
                    (queues, marker, starts) = (Vec::new(), None, starts + 1);
                    continue;
                }
                Err(error) => return Err(error),
            }
            if marker.is_none() {
                return Ok(queues);
            }
        }
    }

    /// The overview of a queue as the documented API gives it; `None` if the queue was deleted meanwhile.
    async fn documented(&self, queue: Queue) -> Result<Option<QueueOverview>, Error> {
        let groups = match self.groups(&queue.id).await {
            Err(error) if error.is_not_found() => return Ok(None),
            groups => groups?,
        };
        Ok(Some(QueueOverview {
            retention: Some(Duration::from_secs(queue.reservation_minutes.saturating_mul(60))),
            delete_when_settled: None,
            delayed: None,
            total_produced: None,
            produced_per_second: None,
            groups: groups.into_iter().map(GroupOverview::documented).collect(),
            queue,
        }))
    }

    /// Shows messages of a group without leasing them: leased and available ones from the sequence number `from` on, then
    /// delayed ones. `max`: 1 to 1,000; an answer may have fewer, because it is limited to 4 MiB. An empty page is the end.
    ///
    /// Returns `None`, without a request, if the service has not announced this extension. The client learns the extensions
    /// from the first answer to any call.
    ///
    /// # Errors
    /// When there is no such queue or group, or the call fails.
    ///
    /// # Cancel safety
    /// Dropping the future has no effect, because the call changes nothing.
    pub async fn peek(&self, source: &SourcePath, from: u64, max: usize) -> Result<Option<Vec<PeekedMessage>>, Error> {
        if !self.extensions().peek() {
            return Ok(None);
        }
        let stream = match source.stream {
            Stream::Messages => "messages",
            Stream::DeadLetters => "deadletters",
        };
        let path = ["queues", source.queue.as_str(), "groups", source.group.as_str(), "peek"];
        let query = format!("stream={stream}&from={from}&max={max}");
        let call = Call::new("peek", Method::GET, &path, Repeat::Harmless).query(query);
        self.fetch(call, |answer| Ok(wire::overview::decode_peeked(answer)?)).await.map(Some)
    }
}
