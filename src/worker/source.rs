//! Where a worker's messages come from and go back to: a group's stream of a queue, behind a trait that tests can script.

use std::time::Duration;

use async_trait::async_trait;
use tokio::time::Instant;

use crate::{
    client::{Acked, Client, ConsumeOptions, Consumed, Error},
    message::{AckLine, Message},
    queue::{QueueId, SourcePath, TagFilter},
};

/// The calls that a running worker makes.
#[async_trait]
pub(crate) trait Source: std::fmt::Debug + Send + Sync + 'static {
    /// Leases up to `want` messages for `ack_wait`, waiting up to `wait` for a first one.
    async fn receive(&self, want: usize, wait: Duration, ack_wait: Duration) -> Result<Consumed, Error>;
    /// Acknowledges a batch, again and again until `until` while that can help.
    async fn acknowledge(&self, lines: &[AckLine<'_>], until: Instant) -> Result<Acked, Error>;
    /// Sends a copy of a message to a queue; `None` is the queue that is consumed.
    async fn forward(&self, queue: Option<&QueueId>, message: Message) -> Result<(), Error>;
}

/// A source on the service.
#[derive(Clone, Debug)]
pub(crate) struct Service {
    pub(crate) client: Client,
    pub(crate) path: SourcePath,
    pub(crate) filter: TagFilter,
}

#[async_trait]
impl Source for Service {
    async fn receive(&self, want: usize, wait: Duration, ack_wait: Duration) -> Result<Consumed, Error> {
        let options = ConsumeOptions { max_messages: want, poll_wait: wait, ack_wait, filter: self.filter.clone() };
        self.client.consume_batch(&self.path, &options, None).await
    }

    async fn acknowledge(&self, lines: &[AckLine<'_>], until: Instant) -> Result<Acked, Error> {
        self.client.acknowledge_timed(&self.path, lines, until).await
    }

    async fn forward(&self, queue: Option<&QueueId>, message: Message) -> Result<(), Error> {
        let queue = queue.unwrap_or(&self.path.queue);
        let outcomes = self.client.send(queue, std::slice::from_ref(&message)).await?;
        outcomes.into_iter().try_for_each(|outcome| outcome.map(drop))
    }
}
