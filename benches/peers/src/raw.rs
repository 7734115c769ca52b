//! What one would write by hand: reqwest in a loop, no framework, against the same server.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::future::try_join_all;
use reqwest::{Client, header::CONTENT_TYPE};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::{
    Error,
    dms::{Dms, GROUP, PROJECT},
    harness::{Progress, Receiver, Sender, System, receive_with},
};

pub struct Raw {
    client: Client,
    base: String,
    url: String,
    queue: String,
    app: Option<String>,
}

impl Raw {
    pub fn new(url: &str, queue: &str, app: Option<String>) -> Self {
        let base = format!("{url}/v2/{PROJECT}/queues");
        Self { client: Client::new(), base, url: url.to_owned(), queue: queue.to_owned(), app }
    }

    /// The queue's URL.
    async fn queue(&self) -> Result<String, Error> {
        let text = self.client.get(&self.base).send().await?.error_for_status()?.bytes().await?;
        let found: Queues = serde_json::from_slice(&text)?;
        let queue = found.queues.into_iter().find(|queue| queue.name == self.queue).ok_or("no such queue")?;
        Ok(format!("{}/{}", self.base, queue.id))
    }

    /// The group's URL.
    async fn group(&self) -> Result<String, Error> {
        let url = format!("{}/groups", self.queue().await?);
        let text = self.client.get(&url).send().await?.error_for_status()?.bytes().await?;
        let found: Groups = serde_json::from_slice(&text)?;
        let group = found.groups.into_iter().find(|group| group.name == GROUP).ok_or("no such group")?;
        Ok(format!("{url}/{}", group.id))
    }
}

#[derive(Deserialize)]
struct Queues {
    queues: Vec<Named>,
}

#[derive(Deserialize)]
struct Groups {
    groups: Vec<Named>,
}

#[derive(Deserialize)]
struct Named {
    id: String,
    name: String,
}

#[async_trait]
impl System for Raw {
    async fn prepare(&self) -> Result<(), Error> {
        Dms::new(&self.url, &self.queue, Default::default(), None)?.prepare().await
    }

    async fn sender(&self) -> Result<Box<dyn Sender>, Error> {
        Ok(Box::new(Sending { client: self.client.clone(), url: format!("{}/messages", self.queue().await?) }))
    }

    async fn consume(&self, connections: usize, progress: Arc<Progress>) -> Result<(), Error> {
        let group = self.group().await?;
        let receiver = || {
            let (poll, ack) =
                (format!("{group}/messages?max_msgs=10&time_wait=20&ack_wait=30"), format!("{group}/ack"));
            Box::new(Receiving { client: self.client.clone(), poll, ack, app: self.app.clone() }) as Box<dyn Receiver>
        };
        receive_with((0..connections).map(|_| receiver()).collect(), &progress).await
    }

    async fn drop_queue(&self) -> Result<(), Error> {
        self.client.delete(self.queue().await?).send().await?.error_for_status()?;
        Ok(())
    }
}

struct Sending {
    client: Client,
    url: String,
}

#[derive(Serialize)]
struct Messages<'a> {
    messages: Vec<Outgoing<'a>>,
}

#[derive(Serialize)]
struct Outgoing<'a> {
    body: &'a RawValue,
}

#[async_trait]
impl Sender for Sending {
    async fn send(&mut self, bodies: &[Bytes]) -> Result<(), Error> {
        let outgoing = |body| serde_json::from_slice(body).map(|body| Outgoing { body });
        let messages = bodies.iter().map(|body| outgoing(body)).collect::<Result<_, _>>()?;
        let request = self.client.post(&self.url).header(CONTENT_TYPE, "application/json");
        let answer = request.body(serde_json::to_vec(&Messages { messages })?).send().await?.error_for_status()?;
        answer.bytes().await?;
        Ok(())
    }
}

struct Receiving {
    client: Client,
    poll: String,
    ack: String,
    app: Option<String>,
}

impl Receiving {
    /// Posts all messages at once, and waits for the answers.
    async fn post(&self, app: &str, incoming: &[Incoming<'_>]) -> Result<(), Error> {
        let posts = incoming.iter().map(|one| {
            let request = self.client.post(app).header(CONTENT_TYPE, "application/json");
            request.body(one.body().to_owned()).send()
        });
        for answer in try_join_all(posts).await? {
            answer.error_for_status()?.bytes().await?;
        }
        Ok(())
    }
}

/// A received message.
#[derive(Deserialize)]
pub struct Incoming<'a> {
    #[serde(borrow)]
    message: Envelope<'a>,
    pub handler: &'a str,
}

#[derive(Deserialize)]
struct Envelope<'a> {
    #[serde(borrow)]
    body: &'a RawValue,
}

impl Incoming<'_> {
    /// The body, as it is in the JSON.
    pub fn body(&self) -> &str {
        self.message.body.get()
    }
}

#[derive(Serialize)]
struct Acks<'a> {
    message: Vec<Ack<'a>>,
}

#[derive(Serialize)]
struct Ack<'a> {
    handler: &'a str,
    status: &'static str,
}

#[derive(Deserialize)]
struct Acked {
    success: u64,
}

#[async_trait]
impl Receiver for Receiving {
    async fn cycle(&mut self, progress: &Progress) -> Result<u64, Error> {
        let text = self.client.get(&self.poll).send().await?.error_for_status()?.bytes().await?;
        let incoming: Vec<Incoming<'_>> = serde_json::from_slice(&text)?;
        if incoming.is_empty() {
            return Ok(0);
        }
        incoming.iter().for_each(|one| progress.saw(one.body().as_bytes()));
        if let Some(app) = &self.app {
            self.post(app, &incoming).await?;
        }
        let message = incoming.iter().map(|one| Ack { handler: one.handler, status: "success" }).collect();
        let request = self.client.post(&self.ack).header(CONTENT_TYPE, "application/json");
        let answer = request.body(serde_json::to_vec(&Acks { message })?).send().await?.error_for_status()?;
        Ok(serde_json::from_slice::<Acked>(&answer.bytes().await?)?.success)
    }
}
