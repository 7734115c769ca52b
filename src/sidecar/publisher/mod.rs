//! A publisher: an endpoint that takes messages over HTTP and answers when the service has them.
//!
//! | answer | when |
//! |---|---|
//! | 200 | every message is sent |
//! | 207 | some are, some are not: each message has its own result |
//! | 400, 413 | none could be sent: malformed, or above a limit, which is named |
//! | 503 with `Retry-After` | none was taken: too many are waiting, or the service is not there |

mod events;
mod results;

use std::{
    collections::HashMap,
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use axum::{
    Router,
    body::Bytes,
    extract::{DefaultBodyLimit, State},
    response::Response,
    routing::post,
};
use http::HeaderMap;
use serde_json::value::RawValue;
use tokio::{net::TcpListener, sync::OnceCell, time::Instant};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use self::results::{Answer, Outcome};
use super::{line, listen::limits};
use crate::{
    client::{Client, Error},
    config,
    message::{Body, Message},
    producer::{Producer, SendError, TrySendError},
    server::listener,
};

/// The largest request, in bytes: sixteen full messages.
const MAX_REQUEST: usize = 16 * crate::limits::MAX_BYTES;
/// How long an answer is remembered under its `Idempotency-Key`.
const REMEMBERED: Duration = Duration::from_secs(600);
/// How many answers are remembered.
const MAX_REMEMBERED: usize = 10_000;

/// A publisher that listens.
#[derive(Debug)]
pub(crate) struct Publisher {
    listener: TcpListener,
    intake: Arc<Intake>,
}

/// What turns requests into messages.
#[derive(Debug)]
struct Intake {
    client: Client,
    settings: config::Publisher,
    /// Made with the first message: the service need not be there when the process starts.
    producer: OnceCell<Producer>,
    /// Answers by idempotency key, and since when they are remembered.
    answered: Mutex<HashMap<String, (Instant, Remembered)>>,
}

/// An answer that is there, or on its way.
type Remembered = Arc<OnceCell<Answer>>;

/// What is left of a publisher that runs: the end of its producer.
#[derive(Debug)]
pub(crate) struct Ending(Arc<Intake>);

impl Publisher {
    /// A publisher that answers on `listener`.
    pub(crate) fn new(settings: &config::Publisher, listener: TcpListener, client: Client) -> Self {
        let intake =
            Intake { client, settings: settings.clone(), producer: OnceCell::new(), answered: Mutex::default() };
        Self { listener, intake: Arc::new(intake) }
    }

    /// Where it listens.
    pub(crate) fn local_addr(&self) -> Option<SocketAddr> {
        self.listener.local_addr().ok()
    }

    /// Answers requests until `stopping`, as one of `tasks`.
    pub(crate) fn spawn(self, tasks: &TaskTracker, stopping: &CancellationToken) -> Ending {
        let router = Router::new()
            .route("/", post(publish))
            .layer(DefaultBodyLimit::max(MAX_REQUEST))
            .with_state(self.intake.clone());
        let limits = limits(1024, Duration::from_secs(10));
        tasks.spawn(listener::run(self.listener, router, limits, stopping.clone()));
        Ending(self.intake)
    }
}

impl Ending {
    /// Sends what was taken, for no longer than `grace`. Says how many messages could not be sent.
    pub(crate) async fn close(self, grace: Duration) -> u64 {
        match self.0.producer.get() {
            Some(producer) => producer.close(grace).await.unsent,
            None => 0,
        }
    }
}

async fn publish(State(intake): State<Arc<Intake>>, headers: HeaderMap, body: Bytes) -> Response {
    let Some(key) = headers.get("idempotency-key").and_then(|key| key.to_str().ok()) else {
        return intake.take(&headers, &body).await.into();
    };
    let cell = intake.remembered(key);
    // Two requests with one key: the second waits for the first one's answer. An answer that asks to come again is not
    // remembered.
    let answer = cell.get_or_try_init(async || {
        let answer = intake.take(&headers, &body).await;
        if answer.is_final() { Ok(answer) } else { Err(answer) }
    });
    match answer.await {
        Ok(answer) => answer.clone().into(),
        Err(answer) => answer.into(),
    }
}

impl Intake {
    async fn take(&self, headers: &HeaderMap, body: &Bytes) -> Answer {
        let (messages, single) = match read(headers, body) {
            Ok(read) => read,
            Err(reason) => return Answer::malformed(reason),
        };
        let producer = match self.producer.get_or_try_init(|| self.connect()).await {
            Ok(producer) => producer,
            Err(error) => return Answer::unavailable(&error.to_string()),
        };
        let mut receipts = Vec::with_capacity(messages.len());
        for message in messages {
            receipts.push(match message.map(|message| producer.try_send(message)) {
                Ok(Ok(receipt)) => Ok(receipt),
                Ok(Err(TrySendError::Limit(error))) => Err(Outcome::refused(error.to_string())),
                Ok(Err(error)) => Err(Outcome::Busy(error.to_string())),
                Err(reason) => Err(Outcome::refused(reason)),
            });
        }
        let mut outcomes = Vec::with_capacity(receipts.len());
        for receipt in receipts {
            outcomes.push(match receipt {
                Ok(receipt) => settled(receipt.await),
                Err(outcome) => outcome,
            });
        }
        Answer::new(&outcomes, single)
    }

    async fn connect(&self) -> Result<Producer, Error> {
        let queue = self.client.find_queue(&self.settings.queue).await?;
        let ordered = queue.mode == crate::queue::QueueMode::Fifo;
        let producer = Producer::builder(self.client.clone(), queue.id)
            .linger(self.settings.linger.get())
            .max_pending(self.settings.max_pending, 64 * 1024 * 1024)
            .return_ids(true)
            .ordered(ordered);
        producer.build().map_err(|error| Error::limit("publish", error))
    }

    fn remembered(&self, key: &str) -> Remembered {
        let now = Instant::now();
        let mut answered = self.answered.lock().unwrap_or_else(PoisonError::into_inner);
        if answered.len() >= MAX_REMEMBERED {
            answered.retain(|_, (since, _)| now - *since < REMEMBERED);
        }
        if answered.len() >= MAX_REMEMBERED
            && let Some(oldest) = answered.iter().min_by_key(|(_, (since, _))| *since).map(|(key, _)| key.clone())
        {
            answered.remove(&oldest);
        }
        let fresh = || (now, Arc::default());
        let entry = answered.entry(key.to_owned()).or_insert_with(fresh);
        if now - entry.0 >= REMEMBERED {
            *entry = fresh();
        }
        entry.1.clone()
    }
}

/// The messages of a request, each by itself, and whether it was a single one rather than a list.
type Read = (Vec<Result<Message, String>>, bool);

fn read(headers: &HeaderMap, body: &Bytes) -> Result<Read, String> {
    if let Some(read) = events::read(headers, body) {
        return read;
    }
    let common = Message::new(Body::trusted("null".into()));
    let parse = |json: &[u8]| line::parse(json, &common).and_then(|message| line::check(&message).map(|()| message));
    if body.trim_ascii_start().starts_with(b"[") {
        let items: Vec<&RawValue> =
            serde_json::from_slice(body).map_err(|error| format!("the body is not JSON: {error}"))?;
        return match items.is_empty() {
            true => Err("the list is empty: at least one message is needed".to_owned()),
            false => Ok((items.iter().map(|item| parse(item.get().as_bytes())).collect(), false)),
        };
    }
    Ok((vec![parse(body)], true))
}

fn settled(result: Result<Option<crate::message::MessageId>, SendError>) -> Outcome {
    match result {
        Ok(id) => Outcome::Sent(id.map(|id| id.to_string())),
        Err(error) if error.is_unsure() => Outcome::Unsure(error.to_string()),
        Err(error) if error.is_retryable() => Outcome::Busy(error.to_string()),
        Err(error) => Outcome::refused(error.to_string()),
    }
}
