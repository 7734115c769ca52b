//! Delivery to a program that stays: a line of JSON in and a line of JSON out for each message.
//!
//! In: the message with an `id`. Out, in any order: `{"id":1,"outcome":"done"}`, or `retry` or `reject` with an `error`.
//! A program that ends is started again, and so is one that hangs: the oldest message ran out of time, and nothing that was given after it
//! was answered. At the end its standard input is closed, which is its sign to end too.
//!
//! The message that ended or stopped the program has failed, and no other. Where several were open when it ended, each is given to
//! the next program alone. What the program did not come to is given to the next one, or handed back.

mod keeper;
mod open_messages;
mod request;
mod session;
mod suspects;

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use async_trait::async_trait;
use tokio::{
    sync::{mpsc, oneshot},
    time::{Instant, sleep, sleep_until},
};
use tokio_util::{
    sync::{CancellationToken, DropGuard},
    task::TaskTracker,
};

use self::{
    keeper::Keeper,
    open_messages::{Lost, MessageProgress, OpenMessages},
    request::ProgramRequest,
    suspects::Suspects,
};
use crate::sidecar::{
    backpressure::{blame::LazyKey, throttle::Backpressure},
    deliver::program::command::{ProgramCommand, line},
};
use dms_protocol::{internal::text::brief, message::MessageId};
use dms_worker::{
    internal::after,
    worker::{Delivery, Handler, HandlerError},
};

/// How long before its deadline a message stops waiting for the program to take it.
const TAKE_MARGIN: Duration = Duration::from_secs(1);
/// How long before its deadline a message is given up.
const MARGIN: Duration = Duration::from_millis(50);
/// The least time spent on waiting that makes the time left too short to blame the message.
const MIN_BLAMELESS_WAIT: Duration = Duration::from_millis(500);

/// Speaks with one process about all messages.
pub(crate) struct LinesDelivery {
    ids: AtomicU64,
    asks: mpsc::UnboundedSender<ProgramRequest>,
    table: Arc<OpenMessages>,
    suspects: Suspects,
    timeout: Option<Duration>,
    _ended: DropGuard,
}

impl LinesDelivery {
    /// A handler that speaks with this program, which is started with the first message, and ended as one of `tasks` when the
    /// handler is dropped. The program has `timeout` for its answer, and no longer than the lease.
    /// A program that cannot be started asks for a pause through `backpressure`.
    pub(crate) fn new(
        run: ProgramCommand,
        timeout: Option<Duration>,
        backpressure: Backpressure,
        tasks: &TaskTracker,
    ) -> Self {
        let (asks, waiting) = mpsc::unbounded_channel();
        let ended = CancellationToken::new();
        let table = Arc::new(OpenMessages::new());
        tasks.spawn(Keeper { run, backpressure, waiting, table: table.clone(), ended: ended.clone() }.run());
        Self { ids: AtomicU64::new(1), asks, table, suspects: Suspects::new(), timeout, _ended: ended.drop_guard() }
    }

    /// How long the program has for its answer, if it comes to the message now.
    fn time_to_answer(&self, delivery: &Delivery) -> Duration {
        self.timeout.unwrap_or(Duration::MAX).min(delivery.remaining().saturating_sub(MARGIN))
    }

    /// Gives the message to the program, and waits for its answer as long as it has time.
    async fn ask(
        &self,
        delivery: &Delivery,
        key: &LazyKey<'_>,
        full_time: Duration,
    ) -> Result<Result<(), HandlerError>, Lost> {
        let ((reply, mut answer), (given, mut taken)) = (oneshot::channel(), oneshot::channel());
        let id = self.ids.fetch_add(1, Relaxed);
        let mut asked = PendingMessage { id, handler: self, hangs: false };
        let ask = ProgramRequest::Message { id, line: line(delivery, self.timeout, Some(id)), given, reply };
        if self.asks.send(ask).is_err() {
            return Ok(Err(HandlerError::retry("nothing starts the program any more")));
        }
        tokio::select! {
            biased;
            // Refused, or given: both are answered below.
            _ = &mut taken => {}
            error = not_ready(delivery) => return Ok(Err(error)),
        }
        tokio::select! {
            biased;
            answer = &mut answer => {
                let answer = answer.unwrap_or(Err(Lost::Behind));
                if answer.is_ok() {
                    self.suspects.acquit(key);
                }
                answer
            }
            error = asked.late(delivery, key, full_time) => Ok(Err(error)),
        }
    }
}

/// A message that the program is given: nobody waits for it any more when this is dropped.
struct PendingMessage<'a> {
    id: u64,
    handler: &'a LinesDelivery,
    /// The program does not get past it.
    hangs: bool,
}

impl PendingMessage<'_> {
    /// Resolves when the time of the message is over. Its time begins when the program comes to it, and ends with its lease.
    async fn late(&mut self, delivery: &Delivery, key: &LazyKey<'_>, full_time: Duration) -> HandlerError {
        let (given, end) = (Instant::now(), delivery.deadline() - MARGIN);
        let timeout = self.handler.timeout.unwrap_or(Duration::MAX);
        loop {
            let progress = self.handler.table.progress(self.id);
            let since = match progress {
                MessageProgress::Oldest(since) => since.max(given),
                MessageProgress::AmongOthers => given,
                MessageProgress::Behind => Instant::now(),
            };
            if Instant::now() >= end || since.elapsed() >= timeout {
                return self.too_late(progress, since.elapsed(), key, full_time);
            }
            // One that others are before looks again soon whether they still are.
            let step = if progress == MessageProgress::Behind { timeout / 4 } else { timeout };
            sleep_until(after(since, step).min(end)).await;
        }
    }

    /// What becomes of a message that the program worked on for this time without an answer.
    fn too_late(
        &mut self,
        progress: MessageProgress,
        time: Duration,
        key: &LazyKey<'_>,
        full_time: Duration,
    ) -> HandlerError {
        if progress == MessageProgress::Behind || time + MIN_BLAMELESS_WAIT < full_time {
            return HandlerError::release("the program did not come to it in time");
        }
        if matches!(progress, MessageProgress::Oldest(_)) {
            self.handler.suspects.suspect(key.get());
            self.hangs = true;
        }
        HandlerError::timed_out(format!("the program did not answer within {}", brief(time)))
    }
}

impl Drop for PendingMessage<'_> {
    fn drop(&mut self) {
        if self.hangs {
            // Without a keeper there is nobody to tell.
            let _ = self.handler.asks.send(ProgramRequest::Hangs(self.id));
        } else {
            self.handler.table.give_up(self.id);
        }
    }
}

/// Resolves when a message should not wait for the program any longer: it is handed back, because it was not tried.
async fn not_ready(delivery: &Delivery) -> HandlerError {
    tokio::select! {
        () = sleep(delivery.remaining().saturating_sub(TAKE_MARGIN)) => HandlerError::release("the program was not ready for it in time"),
        () = delivery.shutting_down() => HandlerError::release("the program is not ready, and the sidecar stops"),
    }
}

#[async_trait]
impl Handler for LinesDelivery {
    async fn handle(&self, delivery: Delivery) -> Result<(), HandlerError> {
        let key = LazyKey::of(std::slice::from_ref(&delivery));
        let full_time = self.time_to_answer(&delivery);
        loop {
            let turn = tokio::select! {
                biased;
                turn = self.suspects.turn(&key) => turn,
                error = not_ready(&delivery) => return Err(error),
            };
            match self.ask(&delivery, &key, full_time).await {
                Ok(answer) => return answer,
                Err(Lost::Behind) => {}
                Err(Lost::NoProgram) => return Err(HandlerError::release("the program cannot be started")),
                Err(Lost::Ended) if self.suspects.ended(key.get()) => {
                    return Err(HandlerError::retry("the program ended before it answered"));
                }
                Err(Lost::Ended) => {}
                Err(Lost::EndedWithOthers) => {
                    tracing::warn!(
                        queue = delivery.queue(),
                        group = delivery.group(),
                        message_id = delivery.id().as_ref().map(MessageId::as_str),
                        attempt = delivery.attempt(),
                        "the program ended while it had several messages: each is given to the next one alone"
                    );
                    self.suspects.suspect(key.get());
                }
            }
            drop(turn);
        }
    }
}

impl fmt::Debug for LinesDelivery {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("LinesDelivery")
    }
}
