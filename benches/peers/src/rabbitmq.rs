//! RabbitMQ: a quorum queue, publisher confirms, and acknowledgements of ten deliveries at a time.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering::Relaxed},
};

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::{FutureExt, StreamExt, future::try_join_all};
use lapin::{
    BasicProperties, Channel, Connection, ConnectionProperties, Consumer,
    options::{
        BasicAckOptions, BasicConsumeOptions, BasicPublishOptions, BasicQosOptions, ConfirmSelectOptions,
        QueueDeclareOptions, QueueDeleteOptions,
    },
    types::{AMQPValue, FieldTable},
};

use crate::{
    Error,
    harness::{Progress, Receiver, Sender, System, receive_with},
};

const CONNECTIONS: usize = 8;
const BATCH: usize = 10;
const PREFETCH: u16 = 200;
const PERSISTENT: u8 = 2;

pub struct Rabbitmq {
    connections: Vec<Connection>,
    next: AtomicUsize,
    queue: String,
}

impl Rabbitmq {
    pub async fn new(url: &str, queue: &str) -> Result<Self, Error> {
        let connect = || Connection::connect(url, ConnectionProperties::default());
        let connections = try_join_all((0..CONNECTIONS).map(|_| connect())).await?;
        Ok(Self { connections, next: AtomicUsize::new(0), queue: queue.to_owned() })
    }

    async fn channel(&self) -> Result<Channel, Error> {
        Ok(self.connections[self.next.fetch_add(1, Relaxed) % CONNECTIONS].create_channel().await?)
    }
}

#[async_trait]
impl System for Rabbitmq {
    async fn prepare(&self) -> Result<(), Error> {
        let mut arguments = FieldTable::default();
        arguments.insert("x-queue-type".into(), AMQPValue::LongString("quorum".into()));
        let options = QueueDeclareOptions { durable: true, ..Default::default() };
        self.channel().await?.queue_declare(self.queue.as_str().into(), options, arguments).await?;
        Ok(())
    }

    async fn sender(&self) -> Result<Box<dyn Sender>, Error> {
        let channel = self.channel().await?;
        channel.confirm_select(ConfirmSelectOptions::default()).await?;
        Ok(Box::new(Sending { channel, queue: self.queue.clone() }))
    }

    async fn consume(&self, connections: usize, progress: Arc<Progress>) -> Result<(), Error> {
        let mut receivers = Vec::with_capacity(connections.min(CONNECTIONS));
        for index in 0..connections.min(CONNECTIONS) {
            let channel = self.channel().await?;
            channel.basic_qos(PREFETCH, BasicQosOptions::default()).await?;
            let (queue, tag) = (self.queue.as_str().into(), format!("c{index}").as_str().into());
            let consumer =
                channel.basic_consume(queue, tag, BasicConsumeOptions::default(), FieldTable::default()).await?;
            receivers.push(Box::new(Receiving { channel, consumer }) as Box<dyn Receiver>);
        }
        receive_with(receivers, &progress).await
    }

    async fn drop_queue(&self) -> Result<(), Error> {
        self.channel().await?.queue_delete(self.queue.as_str().into(), QueueDeleteOptions::default()).await?;
        Ok(())
    }
}

struct Sending {
    channel: Channel,
    queue: String,
}

#[async_trait]
impl Sender for Sending {
    async fn send(&mut self, bodies: &[Bytes]) -> Result<(), Error> {
        let mut confirmations = Vec::with_capacity(bodies.len());
        for body in bodies {
            let properties = BasicProperties::default().with_delivery_mode(PERSISTENT);
            let (exchange, queue) = ("".into(), self.queue.as_str().into());
            let publish = self.channel.basic_publish(exchange, queue, BasicPublishOptions::default(), body, properties);
            confirmations.push(publish.await?);
        }
        for confirmed in try_join_all(confirmations).await? {
            if !confirmed.is_ack() {
                return Err("the broker refused a message".into());
            }
        }
        Ok(())
    }
}

struct Receiving {
    channel: Channel,
    consumer: Consumer,
}

#[async_trait]
impl Receiver for Receiving {
    async fn cycle(&mut self, progress: &Progress) -> Result<u64, Error> {
        let mut next = self.consumer.next().await;
        let (mut count, mut last) = (0, None);
        while let Some(delivery) = next {
            let delivery = delivery?;
            progress.saw(&delivery.data);
            (count, last) = (count + 1, Some(delivery.delivery_tag));
            if count == BATCH as u64 {
                break;
            }
            match self.consumer.next().now_or_never() {
                Some(ready) => next = ready,
                None => break,
            }
        }
        if let Some(tag) = last {
            self.channel.basic_ack(tag, BasicAckOptions { multiple: true }).await?;
        }
        Ok(count)
    }
}
