//! Delivery to an application over HTTP: one POST per message, or per batch of messages, and what its answer means.

mod answer;
mod batch;
pub(crate) mod cloudevents;
pub(crate) mod credentials;
mod redaction;
mod request;
pub(crate) mod target;

use std::{pin::pin, sync::Arc, time::Duration};

use async_trait::async_trait;
use bytes::Bytes;
use http::HeaderMap;
use tokio_util::sync::CancellationToken;

use self::{
    answer::{AnswerVerdict, verdict},
    target::{AppAnswer, NoAnswer, Target},
};
use crate::{
    config::{BodyFormat, HttpHandler, TextBodies},
    sidecar::backpressure::{
        app::{App, Fault, LazyKey, PostPermit},
        throttle::Backpressure,
    },
};
use dms_protocol::internal::{clock, text::brief};
use dms_worker::worker::{BatchHandler, Delivery, Handler, HandlerError};

/// How long before its deadline a message stops waiting for an application that is down, at least: a connection that does not come
/// about must be found out before the deadline, when the message would count as failed.
const APP_DOWN_MARGIN: Duration = Duration::from_secs(2);
/// How long before its deadline a post is given up.
const MARGIN: Duration = Duration::from_millis(50);
/// The least time spent on waiting that makes a post's own time too short to blame the message.
const MIN_BLAMELESS_WAIT: Duration = Duration::from_millis(500);
/// When a message that was put off for others is looked at again.
const POSTPONED_DELAY: Duration = Duration::from_secs(10);

/// Posts messages to an application.
#[derive(Debug)]
pub(crate) struct HttpDelivery {
    target: Arc<Target>,
    app: Arc<App>,
    backpressure: Backpressure,
    /// `/dms/PROJECT/QUEUE`.
    source: String,
    format: BodyFormat,
    text_bodies: TextBodies,
    timeout: Duration,
    /// How long before its deadline a message stops waiting for the application.
    reserve: Duration,
    stopping: CancellationToken,
}

impl HttpDelivery {
    /// A handler that posts as `settings` say. `backpressure`: the application can ask for a pause. `stopping`: the process ends, an application that is down is not waited for.
    pub(crate) fn new(
        settings: &HttpHandler,
        target: Arc<Target>,
        source: String,
        backpressure: Backpressure,
        stopping: CancellationToken,
    ) -> Self {
        Self {
            target,
            app: Arc::new(App::new()),
            backpressure,
            source,
            format: settings.format,
            text_bodies: settings.text_bodies,
            timeout: settings.timeout.get(),
            reserve: APP_DOWN_MARGIN.max(settings.connect_timeout.get() + MARGIN * 2),
            stopping,
        }
    }

    /// The application's state, for its watcher.
    pub(crate) fn app(&self) -> Arc<App> {
        self.app.clone()
    }

    /// Waits for the application, no longer than `timeout`. A message that waits in vain is handed back: it was not tried.
    async fn wait_for_app(&self, timeout: Duration, exclusive: bool) -> Result<PostPermit<'_>, HandlerError> {
        tokio::select! {
            biased;
            turn = self.app.turn(exclusive) => Ok(turn),
            () = tokio::time::sleep(timeout) => Err(HandlerError::release("the application was not ready for it in time")),
            () = self.stopping.cancelled() => Err(HandlerError::release("the application is not ready, and the sidecar stops")),
        }
    }

    /// Posts messages, as often as it takes to reach the application, and gives a success. `None`: the connection broke, and
    /// which of several messages did it is not known. `exclusive`: they are posted while nothing else is in flight.
    async fn deliver(&self, messages: Messages<'_>, exclusive: bool) -> Result<Option<AppAnswer>, HandlerError> {
        let key = LazyKey::of(messages.all());
        let queue = messages.first().queue();
        let full_time = self.time_to_answer(messages);
        let mut exclusive = exclusive || self.app.needs_exclusive_post(&key);
        // The error of the post before, and how many messages were answered by then, where one more says who is to blame.
        let mut before: Option<(NoAnswer, Option<u64>)> = None;
        loop {
            let timeout = messages.remaining().saturating_sub(self.reserve);
            if before.is_some() && timeout.is_zero() {
                return Err(HandlerError::release("its connection broke, and no time is left to find out why"));
            }
            let turn = self.wait_for_app(timeout, exclusive).await?;
            if let Some((error, _)) = before.take_if(|(_, answers)| answers.is_some_and(|n| self.app.answers() > n)) {
                return Err(HandlerError::retry(error));
            }
            // Pinned, because the future of a request is large, and `await` would move it.
            let posted = pin!(self.post(messages)).await;
            let error = match posted {
                Ok(answer) => {
                    self.app.answered(&key);
                    drop(turn);
                    return self.judge(answer, queue).map(Some);
                }
                Err(error) => error,
            };
            match error {
                NoAnswer::NotReached(error) => {
                    tracing::debug!(queue, %error, "the application cannot be reached");
                    // It has seen nothing of the message: once it is back, the message is tried again.
                    self.app.unreachable(self.target.unreached(&*error));
                }
                NoAnswer::TimedOut(time) => {
                    self.app.silent(key.get());
                    // After waiting for the application, too little time may be left for any message.
                    let short = time + MIN_BLAMELESS_WAIT < full_time;
                    return Err(if short { HandlerError::release(error) } else { HandlerError::timed_out(error) });
                }
                NoAnswer::Broken(_) if messages.all().len() > 1 => {
                    tracing::warn!(queue, %error, "messages that share a request are posted one by one");
                    self.app.broke_with_several(turn, self.target.look()).await;
                    return Ok(None);
                }
                NoAnswer::Broken(_) => match self.app.broke(key.get(), turn, self.target.look()).await {
                    Fault::Message => return Err(HandlerError::retry(error)),
                    Fault::Later => return Err(HandlerError::retry(error).deferred(POSTPONED_DELAY)),
                    Fault::Unclear { answers } => {
                        tracing::warn!(queue, %error, "the message is posted again while nothing else is in flight");
                        (exclusive, before) = (true, Some((error, answers)));
                    }
                },
            }
        }
    }

    /// How long the application has for its answer, if it is asked now.
    fn time_to_answer(&self, messages: Messages<'_>) -> Duration {
        self.timeout.min(messages.remaining().saturating_sub(MARGIN))
    }

    async fn post(&self, messages: Messages<'_>) -> Result<AppAnswer, NoAnswer> {
        let wait = self.time_to_answer(messages);
        let credentials = self.target.credentials().get();
        let (mut headers, body) = match messages {
            Messages::One(delivery) => self.single(delivery, wait, &credentials.headers),
            Messages::Many(deliveries) => self.batch(deliveries, messages.first(), wait, &credentials.headers),
        };
        if let Some(key) = &credentials.signature_key {
            request::sign(&mut headers, key.expose(), &body, clock::now());
        }
        pin!(self.target.post(headers, body, wait)).await
    }

    fn single(&self, delivery: &Delivery, wait: Duration, common: &HeaderMap) -> (HeaderMap, Bytes) {
        let mut headers = request::headers(delivery, wait, common);
        let body = match self.format {
            BodyFormat::Raw => match self.text_bodies {
                TextBodies::Plain => request::plain(&mut headers, delivery),
                TextBodies::Json => None,
            }
            .unwrap_or_else(|| delivery.body().as_bytes().clone()),
            BodyFormat::Cloudevents => {
                cloudevents::add(&mut headers, delivery, &self.source);
                cloudevents::data(&mut headers, delivery)
            }
        };
        (headers, body)
    }

    fn batch(
        &self,
        deliveries: &[Delivery],
        first: &Delivery,
        wait: Duration,
        common: &HeaderMap,
    ) -> (HeaderMap, Bytes) {
        let mut headers = request::batch_headers(first, deliveries.len(), wait, common);
        let body = batch::body(&mut headers, deliveries, self.format, &self.source);
        (headers, body)
    }

    fn judge(&self, answer: AppAnswer, queue: &str) -> Result<AppAnswer, HandlerError> {
        let status = answer.status;
        let failure = || answer.failure();
        match verdict(status, &answer.headers, clock::now) {
            AnswerVerdict::Done => Ok(answer),
            AnswerVerdict::Retry => Err(HandlerError::retry(failure())),
            AnswerVerdict::Reject => Err(HandlerError::reject(failure())),
            AnswerVerdict::RetryAfter(asked) => {
                let pause = asked.wait();
                // Once for all the messages that are on their way.
                if self.backpressure.pause_for(pause) {
                    let asked = asked.shortened().map(brief).map(tracing::field::display);
                    tracing::warn!(queue, %status, pause = %brief(pause), asked, "the application asks for a pause");
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

    fn all(self) -> &'a [Delivery] {
        match self {
            Self::One(delivery) => std::slice::from_ref(delivery),
            Self::Many(deliveries) => deliveries,
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
        self.deliver(Messages::One(&delivery), false).await.map(drop)
    }
}

/// Posts several messages in one request.
#[derive(Debug)]
pub(crate) struct HttpBatches(pub(crate) HttpDelivery);

#[async_trait]
impl BatchHandler for HttpBatches {
    async fn handle_batch(&self, deliveries: Vec<Delivery>) -> Result<Vec<Result<(), HandlerError>>, HandlerError> {
        match self.0.deliver(Messages::Many(&deliveries), false).await? {
            Some(answer) => batch::verdicts(&answer.body, deliveries.len()),
            None => Ok(self.one_by_one(&deliveries).await),
        }
    }
}

impl HttpBatches {
    /// Posts each message in a separate request, so that only the message that broke the connection fails.
    async fn one_by_one(&self, deliveries: &[Delivery]) -> Vec<Result<(), HandlerError>> {
        let mut verdicts = Vec::with_capacity(deliveries.len());
        for delivery in deliveries {
            let broken = verdicts.iter().any(Result::is_err);
            verdicts.push(match delivery.is_in_order() && broken {
                // Those behind a failure are redelivered after it.
                true => Err(HandlerError::retry("a message before it in its order failed")),
                false => self.by_itself(delivery).await,
            });
        }
        verdicts
    }

    async fn by_itself(&self, delivery: &Delivery) -> Result<(), HandlerError> {
        let message = Messages::Many(std::slice::from_ref(delivery));
        let answer = self.0.deliver(message, true).await?;
        let mut verdicts = answer.map(|answer| batch::verdicts(&answer.body, 1)).transpose()?;
        let verdict = verdicts.as_mut().and_then(Vec::pop);
        verdict.unwrap_or_else(|| Err(HandlerError::retry("the application gave no verdict")))
    }
}
