//! This project's batching producer: each sender is a task that sends one message at a time.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use dms_worker::{
    Producer,
    message::{Body, Message},
};
use tokio::sync::OnceCell;

use crate::{
    Error,
    dms::Dms,
    harness::{Progress, Sender, System},
};

pub struct Batching {
    dms: Dms,
    /// Shared by all senders, as the tasks of an application share one.
    producer: OnceCell<Producer>,
    /// How many requests it sends at a time.
    requests: usize,
}

impl Batching {
    pub fn new(dms: Dms, requests: usize) -> Self {
        Self { dms, producer: OnceCell::new(), requests }
    }
}

#[async_trait]
impl System for Batching {
    async fn prepare(&self) -> Result<(), Error> {
        self.dms.prepare().await
    }

    async fn sender(&self) -> Result<Box<dyn Sender>, Error> {
        let make = || async {
            Ok::<_, Error>(
                Producer::builder(self.dms.client(), self.dms.queue_id().await?)
                    .max_in_flight(self.requests)
                    .build()?,
            )
        };
        Ok(Box::new(Single(self.producer.get_or_try_init(make).await?.clone())))
    }

    async fn consume(&self, connections: usize, progress: Arc<Progress>) -> Result<(), Error> {
        self.dms.consume(connections, progress).await
    }

    async fn drop_queue(&self) -> Result<(), Error> {
        self.dms.drop_queue().await
    }
}

struct Single(Producer);

#[async_trait]
impl Sender for Single {
    async fn send(&mut self, bodies: &[Bytes]) -> Result<(), Error> {
        for body in bodies {
            self.0.send(Message::new(Body::raw(body.clone())?)).await?;
        }
        Ok(())
    }
}
