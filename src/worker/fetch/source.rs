//! [`Source`]: where messages come from and where acknowledgements go. A trait, so that tests can script it.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use tokio::time::Instant;

use crate::{
    client::{Acked, Client, ConsumeOptions, Consumed, Error, Extensions, LastUri, PollId},
    message::{AckLine, Message},
    queue::{QueueId, SourcePath, TagFilter},
};

/// The calls of a running worker to the service.
#[async_trait]
pub(crate) trait Source: std::fmt::Debug + Send + Sync + 'static {
    /// Leases up to `want` messages for `ack_wait`. Waits up to `wait` for a first message, or until the poll is ended
    /// by its id.
    async fn receive(&self, want: usize, wait: Duration, ack_wait: Duration, poll: &PollId) -> Result<Consumed, Error>;
    /// Ends waiting polls: the service replies to each with the messages it has. Does nothing if the service does not
    /// support that.
    async fn end_polls(&self, polls: &[PollId]) -> Result<(), Error>;
    /// The extensions of the documented API that the service supports.
    fn extensions(&self) -> Extensions;
    /// Acknowledges a batch. Retries until `until` as long as that can help.
    async fn acknowledge(&self, lines: &[AckLine<'_>], until: Instant) -> Result<Acked, Error>;
    /// Sends a copy of a message to a queue; `None` is the queue that is consumed.
    async fn forward(&self, queue: Option<&QueueId>, message: Message) -> Result<(), Error>;
    /// The id of the queue that has this name now.
    async fn find_queue(&self, name: &str) -> Result<QueueId, Error>;
}

/// The source of a real worker: one stream of a queue, through the client.
#[derive(Clone, Debug)]
pub(crate) struct ClientSource {
    pub(crate) client: Client,
    pub(crate) path: SourcePath,
    pub(crate) filter: TagFilter,
    /// The last URIs of its requests.
    pub(crate) last_uris: Arc<LastUris>,
}

/// The URIs of the last requests of a source.
#[derive(Debug, Default)]
pub(crate) struct LastUris {
    receive: LastUri,
    acknowledge: LastUri,
}

#[async_trait]
impl Source for ClientSource {
    async fn receive(&self, want: usize, wait: Duration, ack_wait: Duration, poll: &PollId) -> Result<Consumed, Error> {
        let options = ConsumeOptions { max_messages: want, poll_wait: wait, ack_wait, filter: self.filter.clone() };
        self.client.consume_batch(&self.path, &options, Some(poll), Some(&self.last_uris.receive)).await
    }

    async fn end_polls(&self, polls: &[PollId]) -> Result<(), Error> {
        self.client.end_polls(polls).await.map(drop)
    }

    fn extensions(&self) -> Extensions {
        self.client.extensions()
    }

    async fn acknowledge(&self, lines: &[AckLine<'_>], until: Instant) -> Result<Acked, Error> {
        self.client.acknowledge_timed(&self.path, lines, until, &self.last_uris.acknowledge).await
    }

    async fn forward(&self, queue: Option<&QueueId>, message: Message) -> Result<(), Error> {
        let queue = queue.unwrap_or(&self.path.queue);
        let outcomes = self.client.send(queue, std::slice::from_ref(&message)).await?;
        outcomes.into_iter().try_for_each(|outcome| outcome.map(drop))
    }

    async fn find_queue(&self, name: &str) -> Result<QueueId, Error> {
        self.client.find_queue(name).await.map(|queue| queue.id)
    }
}
