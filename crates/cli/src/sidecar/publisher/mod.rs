//! The requests to a publisher, an endpoint that accepts messages over HTTP and answers when the service has stored them.
//!
//! | answer | when |
//! |---|---|
//! | 200 | every message is sent |
//! | 207 | some messages are sent and some are not; each message has its own result |
//! | 400, 413 | no message can be sent, because the request is malformed or above a limit, which is named |
//! | 401 | without the token |
//! | 403, 421 | without a token configured: a web page, a foreign `Host` |
//! | 404, 405 | no queue of this publisher has this path; another method than POST |
//! | 422 | the `Idempotency-Key` was used for a different request |
//! | 503 with `Retry-After` | no message was accepted, because too many are waiting or the service cannot be reached |
//! | 504 | it is unknown whether the service has stored the messages |

mod body;
mod events;
pub(crate) mod idempotency;
mod list;
mod parse;
pub(crate) mod producers;
mod results;

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use axum::{
    Extension, Router,
    body::Body,
    extract::{Path, State},
    response::{IntoResponse, Response},
    routing::post,
};
use futures_util::future::join_all;
use http::{HeaderMap, HeaderValue, Uri, header};
use tokio::sync::OnceCell;

use self::{
    idempotency::{IdempotencyMemories, IdempotencyMemory, PublishOutcomes},
    parse::read,
    producers::Producers,
    results::{PublishAnswer, PublishOutcome},
};
use crate::config;
use dms_protocol::{
    message::Message,
    queue::QueueMode,
    trace_context::{TRACEPARENT, TRACESTATE, TraceContext},
};
use dms_server::internal::{body::BodyMemory, connection_state::ConnectionState};
use dms_worker::{
    Dialect,
    client::{Client, Error, SentMessage},
    producer::{Producer, ProducerBuilder, ProducerMetrics, SendError, TrySendError},
    runtime::RuntimeHandle,
};

/// How long a stopped publisher may take to answer its open requests, and again to send their messages.
pub(crate) const REQUESTS_GRACE: Duration = Duration::from_secs(10);
/// Numbers the producers, for their names.
static PRODUCERS: AtomicU64 = AtomicU64::new(1);
/// The longest `Idempotency-Key`, in characters.
const MAX_KEY: usize = 255;

/// The parts of the process that all intakes of a publisher use.
#[derive(Debug)]
pub(crate) struct IntakeService {
    /// The client of the service.
    pub(crate) client: Client,
    /// Counts the results of all producers.
    pub(crate) metrics: ProducerMetrics,
    /// Closes the producers when the process ends.
    pub(crate) runtime: RuntimeHandle,
    /// The producers of the publisher.
    pub(crate) producers: Arc<Producers>,
    /// The results by idempotency key.
    pub(crate) memories: IdempotencyMemories,
}

/// The intakes of a publisher.
#[derive(Debug)]
pub(crate) struct Intakes {
    /// For `POST /`.
    first: Option<Arc<Intake>>,
    /// For `POST /QUEUE`, by queue.
    by_queue: BTreeMap<String, Arc<Intake>>,
}

/// Turns requests into messages of one queue.
#[derive(Debug)]
struct Intake {
    client: Client,
    queue: String,
    settings: config::Publisher,
    metrics: ProducerMetrics,
    /// The name of the producer in the runtime.
    producer_name: String,
    /// Created with the first message, so that the service need not be reachable when the process starts.
    producer: OnceCell<Producer>,
    /// Closes the producer when the process ends.
    runtime: RuntimeHandle,
    /// Shared by all queues of the publisher.
    room: Arc<BodyMemory>,
    /// Shared by all queues of the publisher.
    producers: Arc<Producers>,
    memory: Arc<IdempotencyMemory>,
}

impl Intakes {
    /// An intake for each queue of a publisher.
    pub(crate) fn new(settings: &config::Publisher, service: &IntakeService) -> Self {
        let room = Arc::new(body::room());
        // A stopped publisher of the same address may still have its producers.
        let number = PRODUCERS.fetch_add(1, Relaxed);
        let intake = |queue: &String| {
            let intake = Intake {
                client: service.client.clone(),
                queue: queue.clone(),
                settings: settings.clone(),
                metrics: service.metrics.clone(),
                producer: OnceCell::new(),
                producer_name: format!("publisher {number} of {queue}"),
                runtime: service.runtime.clone(),
                room: Arc::clone(&room),
                producers: Arc::clone(&service.producers),
                memory: service.memories.of(queue),
            };
            (queue.clone(), Arc::new(intake))
        };
        let by_queue: BTreeMap<_, _> = settings.queues().map(intake).collect();
        Self { first: by_queue.get(&settings.queue).cloned(), by_queue }
    }

    /// Closes the producers of a publisher that was removed or replaced, after they have sent their messages.
    pub(crate) async fn close(&self) {
        join_all(self.by_queue.values().map(|intake| intake.close())).await;
    }
}

/// The paths of a publisher.
pub(crate) fn router(intakes: &Arc<Intakes>) -> Router {
    Router::new()
        .route("/", post(publish_first))
        .route("/{queue}", post(publish_to))
        .fallback(no_queue)
        .method_not_allowed_fallback(not_posted)
        .with_state(Arc::clone(intakes))
}

async fn publish_first(
    State(intakes): State<Arc<Intakes>>,
    Extension(connection): Extension<Arc<ConnectionState>>,
    headers: HeaderMap,
    body: Body,
) -> Response {
    match &intakes.first {
        Some(intake) => publish(Arc::clone(intake), connection, headers, body).await,
        None => unknown(&intakes, "/"),
    }
}

async fn publish_to(
    State(intakes): State<Arc<Intakes>>,
    Path(queue): Path<String>,
    Extension(connection): Extension<Arc<ConnectionState>>,
    headers: HeaderMap,
    body: Body,
) -> Response {
    match intakes.by_queue.get(&queue) {
        Some(intake) => publish(Arc::clone(intake), connection, headers, body).await,
        None => unknown(&intakes, &format!("/{queue}")),
    }
}

async fn no_queue(State(intakes): State<Arc<Intakes>>, uri: Uri) -> Response {
    unknown(&intakes, uri.path())
}

async fn not_posted() -> Response {
    let mut response = Response::from(PublishAnswer::not_posted());
    response.headers_mut().insert(header::ALLOW, HeaderValue::from_static("POST"));
    response.into_response()
}

/// The paths of this publisher are named: a caller that may send knows the queues anyway.
fn unknown(intakes: &Intakes, path: &str) -> Response {
    let first = intakes.first.iter().map(|_| "/".to_owned());
    let paths: Vec<_> = first.chain(intakes.by_queue.keys().map(|queue| format!("/{queue}"))).collect();
    PublishAnswer::unknown_path(path, &paths).into()
}

async fn publish(intake: Arc<Intake>, connection: Arc<ConnectionState>, headers: HeaderMap, body: Body) -> Response {
    let request = match body::read(body, &intake.room, Some(connection.peer())).await {
        Ok(request) => request,
        Err(answer) => return answer.into(),
    };
    let (messages, single) = match read(&headers, &request.bytes) {
        // ROMA Connect MQS has no attributes for a trace context.
        Ok(read) if intake.client.dialect() == Dialect::Mqs => read,
        Ok((messages, single)) => (traced(&headers, messages), single),
        Err(reason) => return PublishAnswer::malformed(reason).into(),
    };
    let outcomes = match key(&headers) {
        Ok(None) => PublishOutcomes::default(),
        Ok(Some(key)) => match intake.memory.recall(key, &request.bytes, messages.len()) {
            Some(outcomes) => outcomes,
            None => return PublishAnswer::reused_key().into(),
        },
        Err(reason) => return PublishAnswer::malformed(reason).into(),
    };
    // In a separate task, because a caller that disconnects must not cancel accepted messages. It learns their outcome when it
    // repeats the request with the same key.
    let work = tokio::spawn(async move {
        let mut outcomes = outcomes.lock().await;
        intake.send(messages, &mut outcomes).await;
        drop(request);
        PublishAnswer::new(&outcomes, single)
    });
    work.await.unwrap_or_else(|panic| PublishAnswer::unknown(&panic.to_string())).into()
}

/// The key under which a request is remembered.
fn key(headers: &HeaderMap) -> Result<Option<&str>, String> {
    let Some(key) = headers.get("idempotency-key") else { return Ok(None) };
    match key.to_str() {
        Ok(key) if (1..=MAX_KEY).contains(&key.len()) => Ok(Some(key)),
        _ => Err(format!("the Idempotency-Key is not 1 to {MAX_KEY} visible ASCII characters")),
    }
}

impl Intake {
    /// Sends the messages and records the outcome of each. With `outcomes` of an earlier try, sends only the messages that were not
    /// accepted then, or whose outcome is unknown. After a message that is not accepted, no later one is sent, so that a repetition
    /// keeps their order.
    async fn send(&self, messages: Vec<Result<Message, String>>, outcomes: &mut Vec<PublishOutcome>) {
        let producer = match self.producer.get_or_try_init(|| self.connect()).await {
            Ok(producer) => producer,
            Err(error) => {
                outcomes.resize_with(messages.len(), || PublishOutcome::Busy(error.to_string()));
                return;
            }
        };
        outcomes.resize_with(messages.len(), || PublishOutcome::Busy("it was not tried".to_owned()));
        let mut receipts = Vec::new();
        let mut full = None;
        for (message, outcome) in messages.into_iter().zip(outcomes.iter_mut()) {
            if outcome.is_final() {
                continue;
            }
            if let (Some(reason), Ok(_)) = (&full, &message) {
                *outcome = PublishOutcome::Busy(String::clone(reason));
                continue;
            }
            let room = self.producers.room();
            if room.is_none() && message.is_ok() {
                let reason = format!("{} messages are waiting to be sent (max_pending)", self.settings.max_pending);
                *outcome = PublishOutcome::Busy(reason.clone());
                full = Some(reason);
                continue;
            }
            match message.map(|message| producer.try_send(message)) {
                // An accepted message counts as unsure until its receipt arrives.
                Ok(Ok(receipt)) => {
                    *outcome = PublishOutcome::Unsure("it was on its way".to_owned());
                    receipts.push((outcome, receipt, room));
                }
                Ok(Err(TrySendError::Limit(error))) => *outcome = PublishOutcome::refused(error.to_string()),
                Ok(Err(error)) => {
                    let reason = error.to_string();
                    *outcome = PublishOutcome::Busy(reason.clone());
                    full = Some(reason);
                }
                Err(reason) => *outcome = PublishOutcome::refused(reason),
            }
        }
        for (outcome, receipt, room) in receipts {
            *outcome = settled(receipt.await);
            drop(room);
        }
    }

    async fn connect(&self) -> Result<Producer, Error> {
        let queue = self.client.find_queue(&self.queue).await?;
        let (id, name) = (queue.id.clone(), queue.name.clone());
        self.producers.of((&id, &name), || {
            let ordered = self.settings.ordered || queue.mode == QueueMode::Fifo;
            let producer = ProducerBuilder::of(self.client.clone(), queue)
                .metrics(&self.metrics)
                .linger(self.settings.linger.get())
                .max_pending(self.settings.max_pending, 64 * 1024 * 1024)
                .ordered(ordered)
                .return_ids(self.client.dialect() == Dialect::Dms);
            let producer = producer.build().map_err(|error| Error::limit("publish", error))?;
            self.runtime.add_producer(self.producer_name.clone(), producer.clone());
            Ok(producer)
        })
    }

    /// Closes the producer, if there was a message for it.
    async fn close(&self) {
        if let Some(producer) = self.runtime.remove_producer(&self.producer_name) {
            let unsent = producer.close(REQUESTS_GRACE).await.unsent;
            if unsent > 0 {
                tracing::error!(queue = self.queue, unsent, "a publisher ended before all of its messages were sent");
            }
        }
    }
}

/// Puts messages without a trace context into the trace of the caller.
fn traced(headers: &HeaderMap, messages: Vec<Result<Message, String>>) -> Vec<Result<Message, String>> {
    let text = |name| headers.get(name).and_then(|value| value.to_str().ok());
    let caller = text(TRACEPARENT).and_then(|parent| TraceContext::parse(parent, text(TRACESTATE)).ok());
    match caller {
        Some(caller) => messages.into_iter().map(|message| Ok(message?.trace_context(&caller))).collect(),
        None => messages,
    }
}

/// Whether the service refuses the sidecar and not the message, so that the application cannot do anything about it.
fn is_about_service(error: &SendError) -> bool {
    matches!(error, SendError::Call(error) if error.is_auth() || error.is_forbidden())
}

fn settled(result: Result<SentMessage, SendError>) -> PublishOutcome {
    match result {
        Ok(sent) => PublishOutcome::Sent { id: sent.id.map(|id| id.to_string()), duplicate: sent.duplicate },
        Err(error) if error.is_unsure() => PublishOutcome::Unsure(error.to_string()),
        Err(error) if error.is_retryable() || is_about_service(&error) => PublishOutcome::Busy(error.to_string()),
        Err(error) => PublishOutcome::refused(error.to_string()),
    }
}
