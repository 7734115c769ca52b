//! Redis Streams with a consumer group, on a connection for each sender and receiver.
//!
//! Each request is one pipeline: ten XADD, or the XACK of the last batch with the XREADGROUP of the next. With few connections
//! there are few requests for one fsync to cover, so their number decides the result.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering::Relaxed},
};

use async_trait::async_trait;
use bytes::Bytes;
use redis::{
    Client, Pipeline, Value,
    aio::MultiplexedConnection,
    streams::{StreamReadOptions, StreamReadReply},
};

use crate::{
    Error,
    harness::{Progress, Receiver, Sender, System, receive_with},
};

const GROUP: &str = "peers";
const FIELD: &str = "b";
const BATCH: usize = 10;
/// How long a read waits for a message, in milliseconds.
const BLOCK: usize = 1_000;

pub struct RedisStreams {
    client: Client,
    stream: String,
    consumers: AtomicUsize,
}

impl RedisStreams {
    pub fn new(url: &str, queue: &str) -> Result<Self, Error> {
        Ok(Self { client: Client::open(url)?, stream: queue.to_owned(), consumers: AtomicUsize::new(0) })
    }

    async fn connect(&self) -> Result<MultiplexedConnection, Error> {
        let mut connection = self.client.get_multiplexed_async_connection().await?;
        connection.set_response_timeout(std::time::Duration::from_secs(30));
        Ok(connection)
    }
}

#[async_trait]
impl System for RedisStreams {
    async fn prepare(&self) -> Result<(), Error> {
        let mut command = redis::cmd("XGROUP");
        command.arg("CREATE").arg(&self.stream).arg(GROUP).arg("0").arg("MKSTREAM");
        match command.query_async::<()>(&mut self.connect().await?).await {
            Err(error) if error.code() != Some("BUSYGROUP") => Err(error.into()),
            _ => Ok(()),
        }
    }

    async fn sender(&self) -> Result<Box<dyn Sender>, Error> {
        Ok(Box::new(Sending { connection: self.connect().await?, stream: self.stream.clone() }))
    }

    async fn consume(&self, connections: usize, progress: Arc<Progress>) -> Result<(), Error> {
        let mut receivers = Vec::with_capacity(connections);
        for _ in 0..connections {
            let name = format!("c{}", self.consumers.fetch_add(1, Relaxed));
            let (connection, stream) = (self.connect().await?, self.stream.clone());
            let options = StreamReadOptions::default().group(GROUP, name).count(BATCH).block(BLOCK);
            receivers.push(Box::new(Receiving { connection, stream, options, done: Vec::new() }) as Box<dyn Receiver>);
        }
        receive_with(receivers, &progress).await
    }

    async fn drop_queue(&self) -> Result<(), Error> {
        Ok(redis::cmd("DEL").arg(&self.stream).query_async(&mut self.connect().await?).await?)
    }
}

struct Sending {
    connection: MultiplexedConnection,
    stream: String,
}

#[async_trait]
impl Sender for Sending {
    async fn send(&mut self, bodies: &[Bytes]) -> Result<(), Error> {
        let mut pipeline = Pipeline::with_capacity(bodies.len());
        for body in bodies {
            pipeline.xadd(&self.stream, "*", &[(FIELD, &body[..])]).ignore();
        }
        Ok(pipeline.query_async(&mut self.connection).await?)
    }
}

struct Receiving {
    connection: MultiplexedConnection,
    stream: String,
    options: StreamReadOptions,
    /// Received, to be acknowledged with the next read.
    done: Vec<String>,
}

#[async_trait]
impl Receiver for Receiving {
    async fn cycle(&mut self, progress: &Progress) -> Result<u64, Error> {
        let mut pipeline = Pipeline::with_capacity(2);
        let acked = std::mem::take(&mut self.done);
        if !acked.is_empty() {
            pipeline.xack(&self.stream, GROUP, &acked).ignore();
        }
        pipeline.xread_options(&[&self.stream], &[">"], &self.options);
        let (reply,): (Option<StreamReadReply>,) = pipeline.query_async(&mut self.connection).await?;
        for message in reply.into_iter().flat_map(|reply| reply.keys).flat_map(|key| key.ids) {
            if let Some(Value::BulkString(body)) = message.map.get(FIELD) {
                progress.saw(body);
            }
            self.done.push(message.id);
        }
        Ok(acked.len() as u64)
    }
}
