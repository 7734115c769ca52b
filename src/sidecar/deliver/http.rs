//! Delivery to an application over HTTP: one POST per message, and what its answer means.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use http::HeaderMap;
use tokio_util::sync::CancellationToken;

use super::{
    answer::{Verdict, verdict},
    cloudevents,
    request::{self, headers, signature},
    target::{NoAnswer, Target},
};
use crate::{
    clock,
    config::{BodyFormat, HttpHandler, Secret},
    sidecar::{app::App, throttle::Brake},
    worker::{Delivery, Handler, HandlerError},
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

    /// Waits for the application, no longer than the message can.
    async fn wait_for_app(&self, delivery: &Delivery) -> Result<super::super::app::Turn<'_>, HandlerError> {
        let patience = delivery.remaining().saturating_sub(RESERVE);
        tokio::select! {
            biased;
            turn = self.app.turn() => Ok(turn),
            // Not the message's fault: where the queue has delays this costs no delivery attempt.
            () = tokio::time::sleep(patience) => Err(HandlerError::defer(LATER)),
            () = self.stopping.cancelled() => Err(HandlerError::defer(Duration::from_secs(1))),
        }
    }

    async fn post(&self, delivery: &Delivery) -> Result<super::target::Answer, NoAnswer> {
        let wait = self.timeout.min(delivery.remaining());
        let mut headers = headers(delivery, &self.source, self.format, wait, &self.common);
        let body = match self.format {
            BodyFormat::Raw => delivery.body().as_bytes().clone(),
            BodyFormat::Cloudevents => cloudevents::data(&mut headers, delivery),
        };
        if let Some(key) = &self.signature_key {
            request::put(&mut headers, "dms-signature", &signature(key.expose(), &body, clock::now()));
        }
        self.target.post(headers, body, wait).await
    }
}

#[async_trait]
impl Handler for HttpDelivery {
    async fn handle(&self, delivery: Delivery) -> Result<(), HandlerError> {
        loop {
            let turn = self.wait_for_app(&delivery).await?;
            let answer = match self.post(&delivery).await {
                Ok(answer) => answer,
                Err(NoAnswer::NotReached(error)) => {
                    tracing::debug!(queue = delivery.queue(), %error, "the application cannot be reached");
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
            let status = answer.status;
            let failure = || format!("the application answered {status}: {}", answer.text);
            return match verdict(status, &answer.headers, clock::now()) {
                Verdict::Done => Ok(()),
                Verdict::Retry => Err(HandlerError::retry(failure())),
                Verdict::Reject => Err(HandlerError::reject(failure())),
                Verdict::RetryAfter(pause) => {
                    self.brake.pause_for(pause);
                    tracing::warn!(queue = delivery.queue(), %status, ?pause, "the application asks for a pause");
                    Err(HandlerError::defer(pause))
                }
            };
        }
    }
}
