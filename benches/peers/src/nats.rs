//! NATS JetStream: a file store and a durable pull consumer, on a few connections.
//!
//! Messages are published ten at a time, and a batch is sent when all ten are confirmed. Reading by a stream of pulls is
//! faster than by single fetches. Acknowledgements are not confirmed: that is how its clients do it.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use async_nats::jetstream::{
    self, Context,
    consumer::{AckPolicy, PullConsumer, pull},
    stream::{Config, RetentionPolicy, StorageType},
};
use async_trait::async_trait;
use bytes::Bytes;
use futures_util::{FutureExt, StreamExt, future::try_join_all};

use crate::{
    Error,
    harness::{Progress, Receiver, Sender, System, receive_with},
};

const CONSUMER: &str = "peers";
const CONNECTIONS: usize = 8;
const BATCH: usize = 10;
const PULL: usize = 200;

pub struct Nats {
    contexts: Vec<Context>,
    next: AtomicUsize,
    stream: String,
}

impl Nats {
    pub async fn new(url: &str, queue: &str) -> Result<Self, Error> {
        let connect = || async { Ok::<_, Error>(jetstream::new(async_nats::connect(url).await?)) };
        let contexts = try_join_all((0..CONNECTIONS).map(|_| connect())).await?;
        Ok(Self { contexts, next: AtomicUsize::new(0), stream: queue.to_owned() })
    }

    fn context(&self) -> Context {
        self.contexts[self.next.fetch_add(1, Relaxed) % CONNECTIONS].clone()
    }

    async fn consumer(&self, context: &Context) -> Result<PullConsumer, Error> {
        let config = pull::Config {
            durable_name: Some(CONSUMER.to_owned()),
            ack_policy: AckPolicy::Explicit,
            max_ack_pending: 100_000,
            ..Default::default()
        };
        Ok(context.get_stream(&self.stream).await?.get_or_create_consumer(CONSUMER, config).await?)
    }
}

#[async_trait]
impl System for Nats {
    async fn prepare(&self) -> Result<(), Error> {
        let config = Config {
            name: self.stream.clone(),
            subjects: vec![self.stream.clone()],
            storage: StorageType::File,
            retention: RetentionPolicy::Limits,
            ..Default::default()
        };
        let context = self.context();
        context.get_or_create_stream(config).await?;
        self.consumer(&context).await?;
        Ok(())
    }

    async fn sender(&self) -> Result<Box<dyn Sender>, Error> {
        Ok(Box::new(Sending { context: self.context(), subject: self.stream.clone() }))
    }

    async fn consume(&self, connections: usize, progress: Arc<Progress>) -> Result<(), Error> {
        let mut receivers = Vec::with_capacity(connections.min(CONNECTIONS));
        for _ in 0..connections.min(CONNECTIONS) {
            let consumer = self.consumer(&self.context()).await?;
            let stream = consumer.stream().max_messages_per_batch(PULL).expires(Duration::from_secs(30));
            receivers.push(Box::new(Receiving(stream.messages().await?)) as Box<dyn Receiver>);
        }
        receive_with(receivers, &progress).await
    }

    async fn drop_queue(&self) -> Result<(), Error> {
        self.context().delete_stream(&self.stream).await?;
        Ok(())
    }
}

struct Sending {
    context: Context,
    subject: String,
}

#[async_trait]
impl Sender for Sending {
    async fn send(&mut self, bodies: &[Bytes]) -> Result<(), Error> {
        let mut confirmations = Vec::with_capacity(bodies.len());
        for body in bodies {
            confirmations.push(self.context.publish(self.subject.clone(), body.clone()).await?.into_future());
        }
        try_join_all(confirmations).await?;
        Ok(())
    }
}

struct Receiving(pull::Stream);

#[async_trait]
impl Receiver for Receiving {
    async fn cycle(&mut self, progress: &Progress) -> Result<u64, Error> {
        let mut next = self.0.next().await;
        let mut acked = 0;
        while let Some(message) = next {
            let message = message?;
            progress.saw(&message.payload);
            message.ack().await?;
            acked += 1;
            if acked == BATCH as u64 {
                break;
            }
            match self.0.next().now_or_never() {
                Some(ready) => next = ready,
                None => break,
            }
        }
        Ok(acked)
    }
}
