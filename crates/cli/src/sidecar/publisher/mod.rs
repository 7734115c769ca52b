//! A publisher: an endpoint that accepts messages over HTTP and answers when the service has stored them.
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
    middleware,
    response::{IntoResponse, Response},
    routing::post,
};
use futures_util::future::{join, join_all};
use http::{HeaderMap, HeaderValue, Uri, header};
use tokio::{sync::OnceCell, time::sleep};

use self::{
    idempotency::{IdempotencyMemories, IdempotencyMemory, PublishOutcomes},
    parse::read,
    producers::Producers,
    results::{PublishAnswer, PublishOutcome},
};
use crate::{
    config::{self, server_settings},
    sidecar::{
        assemble::{
            listener::{host_check, limits, listen},
            shared::Shared,
        },
        error::SidecarError,
        reload::parts::{PublisherKey, RunningPublisher},
    },
};
use dms_protocol::{
    message::Message,
    queue::QueueMode,
    trace_context::{TRACEPARENT, TRACESTATE, TraceContext},
};
use dms_server::{
    Tls,
    internal::{
        bearer::{self, BearerAuth},
        body::BodyMemory,
        connection_limit::Audience,
        connection_state::ConnectionState,
        host_check::{self, Remedy},
        listener::Listener,
    },
};
use dms_worker::{
    Dialect,
    client::{Client, Error, SentMessage},
    producer::{Producer, ProducerBuilder, ProducerMetrics, SendError, TrySendError},
    runtime::RuntimeHandle,
};

/// The configuration keys that a refusal names as the remedy.
const KEYS: Remedy = Remedy { hosts: "publishers[].hosts", credentials: "publishers[].token" };
/// How long a stopped publisher may take to answer its open requests, and again to send their messages.
const REQUESTS_GRACE: Duration = Duration::from_secs(10);
/// How long a stopped publisher keeps its connections after it accepted the last one.
const FIRST_REQUEST_TIME: Duration = Duration::from_secs(1);
/// Numbers the producers, for their names.
static PRODUCERS: AtomicU64 = AtomicU64::new(1);
/// The longest `Idempotency-Key`, in characters.
const MAX_KEY: usize = 255;

/// A publisher that listens.
#[derive(Debug)]
pub(crate) struct PublisherEndpoint {
    listener: Listener,
    shared: Shared,
    settings: config::Publisher,
    pub(crate) running: Arc<RunningPublisher>,
}

/// The intakes of a publisher.
#[derive(Debug)]
struct Intakes {
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

impl PublisherEndpoint {
    /// A publisher on this address, which the key `publishers[PLACE].listen` names.
    ///
    /// # Errors
    /// When the address cannot be listened on, or the certificate cannot be used.
    pub(crate) async fn listen(
        settings: &config::Publisher,
        (place, key): (usize, PublisherKey),
        shared: &Shared,
    ) -> Result<Self, SidecarError> {
        let name = format!("publishers[{place}].listen");
        let listener = listen(settings.listen, &name, settings.tls.as_ref()).await?;
        let listener = listener.named("publisher", Audience::Callers, &shared.connections);
        Ok(Self::on(listener, settings, key, IdempotencyMemories::default(), shared))
    }

    /// A publisher that replaces another one with other settings. It accepts connections on the same socket, and knows the
    /// idempotency keys of the other one.
    ///
    /// # Errors
    /// When the certificate cannot be used.
    pub(crate) fn successor(
        of: &RunningPublisher,
        settings: &config::Publisher,
        shared: &Shared,
    ) -> Result<Self, SidecarError> {
        let tls = settings.tls.as_ref().map(|tls| Tls::load(server_settings::tls(tls))).transpose()?;
        Ok(Self::on(of.listener.successor(tls), settings, of.key, of.memories.clone(), shared))
    }

    fn on(
        listener: Listener,
        settings: &config::Publisher,
        key: PublisherKey,
        memories: IdempotencyMemories,
        shared: &Shared,
    ) -> Self {
        let guard = BearerAuth::new(settings.token.as_ref().map(config::Secret::expose), "publishers[].token");
        let accepting = listener.successor(listener.tls().cloned());
        // The producers of a predecessor still send what they have.
        let producers = Arc::new(Producers::new(settings.max_pending));
        let running = RunningPublisher {
            key,
            listener,
            guard,
            memories,
            #[cfg(feature = "dashboard")]
            queues: settings.queues().cloned().collect(),
            producers,
            stop: shared.stopping.child_token(),
        };
        Self { listener: accepting, shared: shared.clone(), settings: settings.clone(), running: Arc::new(running) }
    }

    /// Has the runtime answer requests, until the publisher is stopped or the process ends.
    pub(crate) fn start(self, runtime: &RuntimeHandle) {
        runtime.add_task("publisher", |runtime| self.run(runtime));
    }

    async fn run(self, runtime: RuntimeHandle) {
        let Self { listener, shared, settings, running } = self;
        let rule = host_check(settings.token.as_ref(), &settings.hosts, KEYS);
        let guarded = settings.token.is_some();
        let (stop, guard) = (running.stop.clone(), running.guard.clone());
        let intakes = Arc::new(Intakes::new(&settings, &shared, &running, &runtime));
        // A stopped publisher must not keep its socket.
        drop(running);
        let router = Router::new()
            .route("/", post(publish_first))
            .route("/{queue}", post(publish_to))
            .fallback(no_queue)
            .method_not_allowed_fallback(not_posted)
            .layer(middleware::from_fn_with_state(guard, bearer::check))
            .layer(middleware::from_fn_with_state(rule, host_check::check))
            .with_state(Arc::clone(&intakes));
        let connections = shared.stopping.child_token();
        let hand_over = async {
            stop.cancelled().await;
            // A connection that was just accepted may not have sent its request yet, so it stays open a little longer.
            let _ = connections.run_until_cancelled(sleep(FIRST_REQUEST_TIME)).await;
            connections.cancel();
        };
        let limits = limits(1024, guarded, REQUESTS_GRACE);
        join(listener.run_handing_over(router, limits, stop.clone(), connections.clone()), hand_over).await;
        // The runtime closes producers in order when the process ends.
        if !shared.stopping.is_cancelled() {
            intakes.close().await;
        }
    }
}

impl Intakes {
    fn new(settings: &config::Publisher, shared: &Shared, running: &RunningPublisher, runtime: &RuntimeHandle) -> Self {
        let room = Arc::new(body::room());
        // A stopped publisher of the same address may still have its producers.
        let number = PRODUCERS.fetch_add(1, Relaxed);
        let producers = Arc::clone(&running.producers);
        let intake = |queue: &String| {
            let intake = Intake {
                client: Client::clone(&shared.client.get()),
                queue: queue.clone(),
                settings: settings.clone(),
                metrics: shared.producers.clone(),
                producer: OnceCell::new(),
                producer_name: format!("publisher {number} of {queue}"),
                runtime: runtime.clone(),
                room: Arc::clone(&room),
                producers: Arc::clone(&producers),
                memory: running.memories.of(queue),
            };
            (queue.clone(), Arc::new(intake))
        };
        let by_queue: BTreeMap<_, _> = settings.queues().map(intake).collect();
        Self { first: by_queue.get(&settings.queue).cloned(), by_queue }
    }

    /// Closes the producers of a publisher that was removed or replaced, after they have sent their messages.
    async fn close(&self) {
        join_all(self.by_queue.values().map(|intake| intake.close())).await;
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
        let id = queue.id.clone();
        self.producers.of(&id, || {
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
