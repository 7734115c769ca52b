//! Delivery to an application over HTTP: one POST per message, or per batch of messages, and what its answer means.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use bytes::Bytes;
use http::HeaderMap;
use tokio_util::sync::CancellationToken;

use super::{
    answer::{Verdict, verdict},
    batch, cloudevents,
    request::{self, signature},
    target::{Answer, NoAnswer, Target},
};
use crate::{
    clock,
    config::{BodyFormat, HttpHandler, Secret},
    sidecar::{
        app::{App, Turn},
        throttle::Brake,
    },
    worker::{BatchHandler, Delivery, Handler, HandlerError},
};

/// How long before its deadline a message stops waiting for an application that is down.
const RESERVE: Duration = Duration::from_secs(2);
/// When a message that waited in vain is looked at again.
const LATER: Duration = Duration::from_secs(10);

/// Posts messages to an application.
#[derive(Debug)]
pub(crate) struct HttpDelivery {
    target: Arc<Target>,
    app: Arc<App>,
    brake: Brake,
    /// `/dms/PROJECT/QUEUE`.
    source: String,
    format: BodyFormat,
    timeout: Duration,
    common: HeaderMap,
    signature_key: Option<Secret>,
    stopping: CancellationToken,
}

impl HttpDelivery {
    /// A handler that posts as `settings` say. `brake`: the application can ask for a pause. `stopping`: the process ends, an application that is down is not waited for.
    pub(crate) fn new(
        settings: &HttpHandler,
        target: Arc<Target>,
        source: String,
        brake: Brake,
        stopping: CancellationToken,
    ) -> Self {
        let mut common = HeaderMap::new();
        settings.headers.iter().for_each(|(name, value)| request::put(&mut common, name, value));
        Self {
            target,
            app: Arc::new(App::new()),
            brake,
            source,
            format: settings.format,
            timeout: settings.timeout.get(),
            common,
            signature_key: settings.signature_key.clone(),
            stopping,
        }
    }

    /// The application's state, for its watcher.
    pub(crate) fn app(&self) -> Arc<App> {
        self.app.clone()
    }

    /// Waits for the application, no longer than `patience`.
    async fn wait_for_app(&self, patience: Duration) -> Result<Turn<'_>, HandlerError> {
        tokio::select! {
            biased;
            turn = self.app.turn() => Ok(turn),
            // Not the message's fault: where the queue has delays this costs no delivery attempt.
            () = tokio::time::sleep(patience) => Err(HandlerError::defer(LATER)),
            () = self.stopping.cancelled() => Err(HandlerError::defer(Duration::from_secs(1))),
        }
    }

    /// Posts messages, as often as it takes to reach the application, and gives a success.
    async fn deliver(&self, messages: Messages<'_>) -> Result<Answer, HandlerError> {
        loop {
            let turn = self.wait_for_app(messages.remaining().saturating_sub(RESERVE)).await?;
            let answer = match self.post(messages).await {
                Ok(answer) => answer,
                Err(NoAnswer::NotReached(error)) => {
                    tracing::debug!(queue = messages.first().queue(), %error, "the application cannot be reached");
                    self.app.unreachable();
                    drop(turn);
                    // It has seen nothing of the message: once it is back, the message is tried again.
                    continue;
                }
                Err(error) => {
                    match error {
                        NoAnswer::TimedOut(_) => self.app.silent(),
                        _ => self.app.broke(),
                    }
                    return Err(HandlerError::retry(error));
                }
            };
            self.app.answered();
            return self.judge(answer, messages.first().queue());
        }
    }

    async fn post(&self, messages: Messages<'_>) -> Result<Answer, NoAnswer> {
        let wait = self.timeout.min(messages.remaining());
        let (mut headers, body) = match messages {
            Messages::One(delivery) => self.single(delivery, wait),
            Messages::Many(deliveries) => self.batch(deliveries, messages.first(), wait),
        };
        if let Some(key) = &self.signature_key {
            request::put(&mut headers, "dms-signature", &signature(key.expose(), &body, clock::now()));
        }
        self.target.post(headers, body, wait).await
    }

    fn single(&self, delivery: &Delivery, wait: Duration) -> (HeaderMap, Bytes) {
        let mut headers = request::headers(delivery, wait, &self.common);
        let body = match self.format {
            BodyFormat::Raw => delivery.body().as_bytes().clone(),
            BodyFormat::Cloudevents => {
                cloudevents::add(&mut headers, delivery, &self.source);
                cloudevents::data(&mut headers, delivery)
            }
        };
        (headers, body)
    }

    fn batch(&self, deliveries: &[Delivery], first: &Delivery, wait: Duration) -> (HeaderMap, Bytes) {
        let mut headers = request::batch_headers(first, deliveries.len(), wait, &self.common);
        let body = batch::body(&mut headers, deliveries, self.format, &self.source);
        (headers, body)
    }

    fn judge(&self, answer: Answer, queue: &str) -> Result<Answer, HandlerError> {
        let status = answer.status;
        let failure = || format!("the application answered {status}: {}", answer.text());
        match verdict(status, &answer.headers, clock::now()) {
            Verdict::Done => Ok(answer),
            Verdict::Retry => Err(HandlerError::retry(failure())),
            Verdict::Reject => Err(HandlerError::reject(failure())),
            Verdict::RetryAfter(asked) => {
                let pause = asked.wait();
                // Once for all the messages that are on their way.
                if self.brake.pause_for(pause) {
                    let asked = asked.shortened();
                    tracing::warn!(queue, %status, ?pause, ?asked, "the application asks for a pause");
                }
                Err(HandlerError::defer(pause))
            }
        }
    }
}

/// What goes into one request.
#[derive(Clone, Copy)]
enum Messages<'a> {
    One(&'a Delivery),
    /// Never none.
    Many(&'a [Delivery]),
}

impl<'a> Messages<'a> {
    fn first(self) -> &'a Delivery {
        match self {
            Self::One(delivery) => delivery,
            Self::Many(deliveries) => &deliveries[0],
        }
    }

    /// What the message with the least time has left.
    fn remaining(self) -> Duration {
        match self {
            Self::One(delivery) => delivery.remaining(),
            Self::Many(deliveries) => deliveries.iter().map(Delivery::remaining).min().unwrap_or_default(),
        }
    }
}

#[async_trait]
impl Handler for HttpDelivery {
    async fn handle(&self, delivery: Delivery) -> Result<(), HandlerError> {
        self.deliver(Messages::One(&delivery)).await.map(drop)
    }
}

/// Posts several messages in one request.
#[derive(Debug)]
pub(crate) struct HttpBatches(pub(crate) HttpDelivery);

#[async_trait]
impl BatchHandler for HttpBatches {
    async fn handle_batch(&self, deliveries: Vec<Delivery>) -> Result<Vec<Result<(), HandlerError>>, HandlerError> {
        let answer = self.0.deliver(Messages::Many(&deliveries)).await?;
        batch::verdicts(&answer.body, deliveries.len())
    }
}
