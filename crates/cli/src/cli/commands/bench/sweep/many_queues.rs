//! [`ManyQueues`]: load that goes round many queues.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use futures_util::{StreamExt, TryStreamExt, stream};
use tokio::{task::JoinSet, time::Instant};

use super::super::{
    figures::Tally,
    load::{Load, broken, claim, group, message, send},
    new_name,
};
use crate::cli::support::failure::Failure;
use dms_protocol::{
    message::{AckStatus, Message},
    queue::{NewQueue, QueueId, SourcePath},
};
use dms_worker::client::{Client, ConsumeOptions};

/// How long a receive request waits at a queue without messages: the shortest that the service knows.
const POLL_WAIT: Duration = Duration::from_secs(1);

/// Queues with one group each, and the load on them.
#[derive(Clone, Debug)]
pub(super) struct ManyQueues {
    load: Load,
    queues: Arc<[SourcePath]>,
    /// Whose turn it is.
    next: Arc<AtomicUsize>,
}

impl ManyQueues {
    /// Creates this many queues. If one cannot be created, the ones before it are deleted.
    pub(super) async fn create(count: usize, load: &Load) -> Result<Self, Failure> {
        let created: Vec<_> = stream::iter((0..count).map(|_| create(load.client.clone())))
            .buffer_unordered(load.connections)
            .collect()
            .await;
        let (mut queues, mut failed) = (Vec::with_capacity(count), None);
        for one in created {
            match one {
                Ok(source) => queues.push(source),
                Err(error) => failed = Some(error),
            }
        }
        let all = Self { load: load.clone(), queues: queues.into(), next: Arc::default() };
        let Some(error) = failed else { return Ok(all) };
        all.delete().await?;
        Err(error)
    }

    /// Sends to the queues in turn as fast as it goes, until the time or the messages of the load are over.
    pub(super) async fn produce(&self) -> Result<Tally, Failure> {
        let (until, left) = (Instant::now() + self.load.duration, Arc::new(AtomicUsize::new(self.load.messages)));
        let messages: Arc<[Message]> = vec![message(String::new(), self.load.size)?; self.load.batch].into();
        self.together(|all| {
            let (left, messages) = (left.clone(), messages.clone());
            async move {
                let mut tally = Tally::default();
                while Instant::now() < until {
                    let Some(count) = claim(&left, messages.len()) else { break };
                    let started = Instant::now();
                    send(&all.load.client, &all.turn().queue, &messages[..count]).await?;
                    tally.latencies.push(started.elapsed());
                    tally.produced += count;
                }
                Ok(tally)
            }
        })
        .await
    }

    /// Consumes this number of messages from the queues, in the order in which they were sent to them, or until the time is over.
    pub(super) async fn consume(&self, messages: usize) -> Result<Tally, Failure> {
        let (until, left) = (Instant::now() + self.load.duration, Arc::new(AtomicUsize::new(messages)));
        // Each turn finds the batch that was sent at the same turn, so that no request waits at an empty queue.
        self.next.store(0, Relaxed);
        self.together(|all| {
            let left = left.clone();
            async move {
                let mut tally = Tally::default();
                while let Some(count) = claim(&left, all.load.batch) {
                    all.take(count, until, &mut tally).await?;
                }
                Ok(tally)
            }
        })
        .await
    }

    /// Consumes this number of messages from the queue whose turn it is.
    async fn take(&self, count: usize, until: Instant, tally: &mut Tally) -> Result<(), Failure> {
        let (source, mut missing) = (self.turn(), count);
        while missing > 0 && Instant::now() < until {
            let options = ConsumeOptions::new().max_messages(missing).poll_wait(POLL_WAIT);
            let started = Instant::now();
            let batch = self.load.client.consume(source, &options).await?;
            if batch.is_empty() {
                continue;
            }
            tally.latencies.push(started.elapsed());
            let acks: Vec<_> = batch.into_iter().map(|one| (one.handle, AckStatus::Success)).collect();
            let done = self.load.client.acknowledge(source, &acks).await?.success;
            tally.acknowledged += done;
            missing = missing.saturating_sub(done.max(1));
        }
        Ok(())
    }

    /// Deletes the queues.
    pub(super) async fn delete(&self) -> Result<(), Failure> {
        let deletions = self.queues.iter().map(|source| self.load.client.delete_queue(&source.queue));
        stream::iter(deletions).buffer_unordered(self.load.connections).try_collect::<()>().await?;
        Ok(())
    }

    /// Does this work once for each connection, and adds up the results.
    async fn together<F>(&self, work: impl Fn(Self) -> F) -> Result<Tally, Failure>
    where
        F: Future<Output = Result<Tally, Failure>> + Send + 'static,
    {
        let mut tasks: JoinSet<_> = (0..self.load.connections).map(|_| work(self.clone())).collect();
        let mut sum = Tally::default();
        while let Some(ended) = tasks.join_next().await {
            let tally = ended.map_err(broken)??;
            sum.produced += tally.produced;
            sum.acknowledged += tally.acknowledged;
            sum.latencies.extend(tally.latencies);
        }
        Ok(sum)
    }

    fn turn(&self) -> &SourcePath {
        &self.queues[self.next.fetch_add(1, Relaxed) % self.queues.len()]
    }
}

async fn create(client: Client) -> Result<SourcePath, Failure> {
    let queue: QueueId = client.create_queue(NewQueue::new(new_name())).await?.id;
    let created = client.create_groups(&queue, &[&group(0)]).await?;
    let Some((id, _)) = created.into_iter().next() else {
        return Err(Failure::new(format!("the service created no group for queue {queue}")));
    };
    Ok(SourcePath::messages(queue, id))
}
