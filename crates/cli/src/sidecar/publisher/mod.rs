//! A publisher: an endpoint that takes messages over HTTP and answers when the service has them.
//!
//! | answer | when |
//! |---|---|
//! | 200 | every message is sent |
//! | 207 | some are, some are not: each message has its own result |
//! | 400, 413 | none could be sent: malformed, or above a limit, which is named |
//! | 401 | without the token |
//! | 403, 421 | without a token configured: a web page, a foreign `Host` |
//! | 404, 405 | no queue of this publisher has this path; another method than POST |
//! | 422 | the `Idempotency-Key` stood on another request |
//! | 503 with `Retry-After` | none was taken: too many are waiting, or the service is not there |
//! | 504 | nobody knows whether the service has them |

mod body;
mod events;
mod idempotency;
mod list;
mod parse;
mod results;

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use axum::{
    Extension, Router,
    body::Body,
    extract::{Path, State},
    middleware,
    response::{IntoResponse, Response},
    routing::post,
};
use http::{HeaderMap, HeaderValue, Uri, header};
use tokio::sync::OnceCell;

use self::{
    idempotency::{IdempotencyMemory, PublishOutcomes},
    parse::read,
    results::{PublishAnswer, PublishOutcome},
};
use crate::{
    config,
    sidecar::assemble::listener::{host_check, limits},
};
use dms_protocol::{
    message::Message,
    queue::QueueMode,
    trace_context::{TRACEPARENT, TRACESTATE, TraceContext},
};
use dms_server::internal::{
    bearer::{self, BearerAuth},
    body::BodyMemory,
    connection_state::ConnectionState,
    host_check::{self, Remedy},
    listener::Listener,
};
use dms_worker::{
    client::{Client, Error},
    producer::{Producer, ProducerBuilder, ProducerMetrics, SendError, TrySendError},
    runtime::RuntimeHandle,
};

/// The keys that a refusal of a caller names.
const KEYS: Remedy = Remedy { hosts: "publishers[].hosts", credentials: "publishers[].token" };
/// The longest `Idempotency-Key`, in characters.
const MAX_KEY: usize = 255;

/// A publisher that listens.
#[derive(Debug)]
pub(crate) struct PublisherEndpoint {
    listener: Listener,
    client: Client,
    settings: config::Publisher,
    metrics: ProducerMetrics,
    guard: BearerAuth,
}

/// The intakes of a publisher.
#[derive(Debug)]
struct Intakes {
    /// That of `POST /`.
    first: Option<Arc<Intake>>,
    /// Those of `POST /QUEUE`.
    by_queue: BTreeMap<String, Arc<Intake>>,
}

/// What turns requests into messages of one queue.
#[derive(Debug)]
struct Intake {
    client: Client,
    queue: String,
    settings: config::Publisher,
    metrics: ProducerMetrics,
    /// Made with the first message: the service need not be there when the process starts.
    producer: OnceCell<Producer>,
    /// Closes the producer when everything ends.
    runtime: RuntimeHandle,
    /// Shared by all queues of the publisher.
    room: Arc<BodyMemory>,
    memory: IdempotencyMemory,
}

impl PublisherEndpoint {
    /// A publisher that answers on `listener`.
    pub(crate) fn new(
        settings: &config::Publisher,
        listener: Listener,
        client: Client,
        metrics: &ProducerMetrics,
    ) -> Self {
        let guard = BearerAuth::new(settings.token.as_ref().map(config::Secret::expose), "publishers[].token");
        Self { listener, client, settings: settings.clone(), metrics: metrics.clone(), guard }
    }

    /// Where it listens.
    pub(crate) fn listener(&self) -> &Listener {
        &self.listener
    }

    /// Who may use it.
    pub(crate) fn guard(&self) -> &BearerAuth {
        &self.guard
    }

    /// Answers requests until `runtime` stops.
    pub(crate) async fn run(self, runtime: RuntimeHandle) {
        let rule = host_check(self.settings.token.as_ref(), &self.settings.hosts, KEYS);
        let guarded = self.settings.token.is_some();
        let stop = runtime.stop_token();
        let guard = self.guard.clone();
        let (listener, intakes) = self.intakes(&runtime);
        let router = Router::new()
            .route("/", post(publish_first))
            .route("/{queue}", post(publish_to))
            .fallback(no_queue)
            .method_not_allowed_fallback(not_posted)
            .layer(middleware::from_fn_with_state(guard, bearer::check))
            .layer(middleware::from_fn_with_state(rule, host_check::check))
            .with_state(Arc::new(intakes));
        listener.run(router, limits(1024, guarded, Duration::from_secs(10)), stop).await;
    }

    fn intakes(self, runtime: &RuntimeHandle) -> (Listener, Intakes) {
        let Self { listener, client, settings, metrics, .. } = self;
        let room = Arc::new(body::room());
        let intake = |queue: &String| {
            let intake = Intake {
                client: client.clone(),
                queue: queue.clone(),
                settings: settings.clone(),
                metrics: metrics.clone(),
                producer: OnceCell::new(),
                runtime: runtime.clone(),
                room: Arc::clone(&room),
                memory: IdempotencyMemory::default(),
            };
            (queue.clone(), Arc::new(intake))
        };
        let named = settings.queues();
        let by_queue: BTreeMap<_, _> = named.map(intake).collect();
        (listener, Intakes { first: by_queue.get(&settings.queue).cloned(), by_queue })
    }
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
    /// Sends the messages, and writes down what became of each. Where `outcomes` are known from an earlier try, only what
    /// was not taken then, or is unsure, is sent. Behind one that is not taken none is, so that a repetition keeps their order.
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
            match message.map(|message| producer.try_send(message)) {
                // An accepted message counts as unsure until its receipt arrives.
                Ok(Ok(receipt)) => {
                    *outcome = PublishOutcome::Unsure("it was on its way".to_owned());
                    receipts.push((outcome, receipt));
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
        for (outcome, receipt) in receipts {
            *outcome = settled(receipt.await);
        }
    }

    async fn connect(&self) -> Result<Producer, Error> {
        let queue = self.client.find_queue(&self.queue).await?;
        let ordered = self.settings.ordered || queue.mode == QueueMode::Fifo;
        let producer = ProducerBuilder::of(self.client.clone(), queue)
            .metrics(&self.metrics)
            .linger(self.settings.linger.get())
            .max_pending(self.settings.max_pending, 64 * 1024 * 1024)
            .ordered(ordered)
            .return_ids(true);
        let producer = producer.build().map_err(|error| Error::limit("publish", error))?;
        self.runtime.add_producer(format!("publisher of {}", self.queue), producer.clone());
        Ok(producer)
    }
}

/// Puts the messages into the trace that the caller works in, where they have none of their own.
fn traced(headers: &HeaderMap, messages: Vec<Result<Message, String>>) -> Vec<Result<Message, String>> {
    let text = |name| headers.get(name).and_then(|value| value.to_str().ok());
    let caller = text(TRACEPARENT).and_then(|parent| TraceContext::parse(parent, text(TRACESTATE)).ok());
    match caller {
        Some(caller) => messages.into_iter().map(|message| Ok(message?.trace_context(&caller))).collect(),
        None => messages,
    }
}

/// Whether the service refuses the sidecar and not the message: that is nothing the application can mend.
fn is_about_service(error: &SendError) -> bool {
    matches!(error, SendError::Call(error) if error.is_auth() || error.is_forbidden())
}

fn settled(result: Result<Option<dms_protocol::message::MessageId>, SendError>) -> PublishOutcome {
    match result {
        Ok(id) => PublishOutcome::Sent(id.map(|id| id.to_string())),
        Err(error) if error.is_unsure() => PublishOutcome::Unsure(error.to_string()),
        Err(error) if error.is_retryable() || is_about_service(&error) => PublishOutcome::Busy(error.to_string()),
        Err(error) => PublishOutcome::refused(error.to_string()),
    }
}
