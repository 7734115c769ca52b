//! This project's client and worker.

use std::{
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

use async_trait::async_trait;
use bytes::Bytes;
use dms_worker::{
    Client,
    message::{Body, Message},
    queue::{NewQueue, QueueId},
    worker::{AckResult, Delivery, Event, Observer, Origin, Worker, handler_fn},
};
use tokio::time::sleep;

use crate::{
    Error,
    harness::{Progress, Sender, System},
};

/// The consumer group of every queue.
pub const GROUP: &str = "peers";
/// The project that a server without configuration has.
pub const PROJECT: &str = "local";

pub struct Dms {
    client: Client,
    queue: String,
    work: Duration,
}

impl Dms {
    pub fn new(url: &str, queue: &str, work: Duration, ca: Option<PathBuf>) -> Result<Self, Error> {
        let client = Client::builder(url, PROJECT);
        let client = match ca {
            Some(file) => client.ca_file(file),
            None => client,
        };
        Ok(Self { client: client.build()?, queue: queue.to_owned(), work })
    }

    pub fn client(&self) -> Client {
        self.client.clone()
    }

    pub async fn queue_id(&self) -> Result<QueueId, Error> {
        Ok(self.client.find_queue(&self.queue).await?.id)
    }
}

#[async_trait]
impl System for Dms {
    async fn prepare(&self) -> Result<(), Error> {
        if self.client.find_queue(&self.queue).await.is_err() {
            let queue = self.client.create_queue(NewQueue::new(&self.queue)).await?.id;
            self.client.create_groups(&queue, &[GROUP]).await?;
        }
        Ok(())
    }

    async fn sender(&self) -> Result<Box<dyn Sender>, Error> {
        Ok(Box::new(Sending { client: self.client(), queue: self.queue_id().await? }))
    }

    async fn consume(&self, connections: usize, progress: Arc<Progress>) -> Result<(), Error> {
        let (seen, work) = (progress.clone(), self.work);
        let handler = handler_fn(move |delivery: Delivery| {
            seen.saw(delivery.body().as_bytes());
            let seen = (!work.is_zero()).then(|| seen.clone());
            async move {
                if let Some(seen) = seen {
                    let started = Instant::now();
                    sleep(work).await;
                    seen.worked(started.elapsed());
                }
                Ok(())
            }
        });
        Worker::builder(self.client.clone())
            .queue(self.queue.as_str())
            .group(GROUP)
            .handler(handler)
            .concurrency(connections * 10)
            .observer(Arc::new(Acknowledged(progress.clone())))
            .build()?
            .run(async move { progress.completed().await })
            .await?;
        Ok(())
    }

    async fn drop_queue(&self) -> Result<(), Error> {
        Ok(self.client.delete_queue(&self.queue_id().await?).await?)
    }
}

/// Counts what the service settled.
struct Acknowledged(Arc<Progress>);

impl Observer for Acknowledged {
    fn observe(&self, _: &Origin, event: &Event<'_>) {
        if let Event::Settled { result: AckResult::Answered { success, .. }, .. } = event {
            self.0.acked(*success as u64);
        }
    }
}

struct Sending {
    client: Client,
    queue: QueueId,
}

#[async_trait]
impl Sender for Sending {
    async fn send(&mut self, bodies: &[Bytes]) -> Result<(), Error> {
        let messages: Vec<Message> =
            bodies.iter().map(|body| Body::raw(body.clone()).map(Message::new)).collect::<Result<_, _>>()?;
        for sent in self.client.send(&self.queue, &messages).await? {
            sent?;
        }
        Ok(())
    }
}
