//! Where a worker's messages come from and go back to: a group's stream of a queue, behind a trait that tests can script.

use std::time::Duration;

use async_trait::async_trait;
use tokio::time::Instant;

use crate::{
    client::{Acked, Client, ConsumeOptions, Consumed, Error, Extensions, PollId},
    message::{AckLine, Message},
    queue::{QueueId, SourcePath, TagFilter},
};

/// The calls that a running worker makes.
#[async_trait]
pub(crate) trait Source: std::fmt::Debug + Send + Sync + 'static {
    /// Leases up to `want` messages for `ack_wait`, waiting up to `wait` for a first one, or until the poll is ended by its id.
    async fn receive(&self, want: usize, wait: Duration, ack_wait: Duration, poll: &PollId) -> Result<Consumed, Error>;
    /// Ends polls that wait: each is answered with what it has. Where the service cannot do that, nothing happens.
    async fn end_polls(&self, polls: &[PollId]) -> Result<(), Error>;
    /// What the service can do beyond the documented API.
    fn extensions(&self) -> Extensions;
    /// Acknowledges a batch, again and again until `until` while that can help.
    async fn acknowledge(&self, lines: &[AckLine<'_>], until: Instant) -> Result<Acked, Error>;
    /// Sends a copy of a message to a queue; `None` is the queue that is consumed.
    async fn forward(&self, queue: Option<&QueueId>, message: Message) -> Result<(), Error>;
    /// The queue that has this name now.
    async fn find_queue(&self, name: &str) -> Result<QueueId, Error>;
}

/// A source on the service.
#[derive(Clone, Debug)]
pub(crate) struct ClientSource {
    pub(crate) client: Client,
    pub(crate) path: SourcePath,
    pub(crate) filter: TagFilter,
}

#[async_trait]
impl Source for ClientSource {
    async fn receive(&self, want: usize, wait: Duration, ack_wait: Duration, poll: &PollId) -> Result<Consumed, Error> {
        let options = ConsumeOptions { max_messages: want, poll_wait: wait, ack_wait, filter: self.filter.clone() };
        self.client.consume_batch(&self.path, &options, Some(poll)).await
    }

    async fn end_polls(&self, polls: &[PollId]) -> Result<(), Error> {
        self.client.end_polls(polls).await.map(drop)
    }

    fn extensions(&self) -> Extensions {
        self.client.extensions()
    }

    async fn acknowledge(&self, lines: &[AckLine<'_>], until: Instant) -> Result<Acked, Error> {
        self.client.acknowledge_timed(&self.path, lines, until).await
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
