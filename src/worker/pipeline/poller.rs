//! The poll loop: get a permit, poll, pass on a batch. One poller while the queue is empty, more while it is full.

use std::{convert::Infallible, sync::Arc, time::Duration};

use tokio::{
    task::{Id, JoinSet},
    time::{Instant, sleep},
};
use tracing::Instrument;

use crate::{
    client::{Consumed, Error},
    limits::MAX_MESSAGES,
    message::ReceivedMessage,
    retry::{RetryPolicy, Schedule},
    text::brief,
    worker::{
        fetch::{
            concurrency::{PollConcurrency, batch_size},
            polls::{InFlightPoll, PollScope},
        },
        handler::delivery::Origin,
        limit::inflight::Reservation,
        observe::{event::Event, spans},
        pipeline::{
            batch::{self, ConsumedBatch},
            context::Context,
            poll_permit::PollPermit,
        },
        settings::values::MaxMessages,
        settlement::lease::{Lease, LeaseBegin},
    },
};

/// The wait of additional polls, which is short so that they end soon when the queue is empty.
const SHORT_WAIT: Duration = Duration::from_secs(1);
/// How long the worker retries after errors that will not go away by themselves, once a poll has worked.
const MAX_OUTAGE: Duration = Duration::from_secs(60);

/// The first pause after the service refused the key or the user. A fifth of it is random.
const FIRST_PAUSE: Duration = Duration::from_millis(37_500);
/// The longest of these pauses.
const MAX_PAUSE: Duration = Duration::from_secs(5 * 60);

/// Runs pollers until the worker stops, and returns the remaining ones, to be
/// [drained](crate::worker::pipeline::drain). Ends the polls in flight while the worker is paused.
///
/// # Errors
/// If the service refuses the polls for good, because the credentials, the queue or the group are wrong.
pub(crate) async fn supervise(context: &Arc<Context>) -> (Result<(), Error>, JoinSet<Result<(), Error>>) {
    let mut pollers = JoinSet::new();
    let ended = tokio::select! {
        biased;
        ended = keep_polling(context, &mut pollers) => ended,
        never = end_polls_while_suspended(context) => match never {},
    };
    (ended, pollers)
}

/// Ends the waiting polls at each pause, because a message that one of them received would only be handed back.
async fn end_polls_while_suspended(context: &Context) -> Infallible {
    loop {
        context.control.until_suspended(true).await;
        context.polling.in_flight.end(&*context.source, PollScope::All).await;
        context.control.until_suspended(false).await;
    }
}

/// Starts pollers as they are needed, and restarts those that panic. Returns when the worker stops, or cannot continue.
async fn keep_polling(context: &Arc<Context>, pollers: &mut JoinSet<Result<(), Error>>) -> Result<(), Error> {
    let mut poll_concurrency = context.polling.concurrency.subscribe();
    // The poller whose polls wait long when the queue is empty.
    let mut first: Option<Id> = None;
    let mut restarts = RestartPauses::default();
    loop {
        while first.is_none() || pollers.len() < poll_concurrency.borrow_and_update().polls() {
            let poller = Poller::new(context.clone(), first.is_none());
            let started = pollers.spawn(poller.run()).id();
            tracing::trace!(worker = context.settings.name, poller = %started, "a poller starts");
            first.get_or_insert(started);
            context.polling.pollers.set(pollers.len());
        }
        tokio::select! {
            biased;
            () = context.control.stopping.cancelled() => return Ok(()),
            Some(ended) = pollers.join_next_with_id() => match ended {
                Ok((_, answer)) => answer?,
                Err(panic) => {
                    first = first.filter(|first| *first != panic.id());
                    context.polling.pollers.set(pollers.len());
                    let _trying = context.control.health.trying();
                    let pause = restarts.next(Instant::now());
                    tracing::error!(worker = context.settings.name, %panic, pause = %brief(pause), "a poller panicked and is restarted");
                    tokio::select! {
                        () = context.control.stopping.cancelled() => return Ok(()),
                        () = sleep(pause) => {}
                    }
                }
            },
            _ = poll_concurrency.changed() => {}
        }
    }
}

/// The pauses before a poller that panicked is restarted. They grow, unless the last panic was long ago.
#[derive(Default)]
struct RestartPauses(Option<(Instant, Schedule)>);

impl RestartPauses {
    fn next(&mut self, now: Instant) -> Duration {
        let before = self.0.take().filter(|(last, _)| now - *last < MAX_OUTAGE);
        let mut schedule = before.map_or_else(endless, |(_, schedule)| schedule);
        let pause = schedule.next_delay().unwrap_or(MAX_OUTAGE);
        self.0 = Some((now, schedule));
        pause
    }
}

/// Growing pauses without an end.
fn endless() -> Schedule {
    RetryPolicy::default().max_attempts(None).schedule()
}

/// One loop of polls.
struct Poller {
    context: Arc<Context>,
    /// Whether it stays when the queue is empty.
    first: bool,
    backoff: Schedule,
    /// Whether its last poll received no messages.
    found_empty: bool,
    /// Since when polls have failed for a reason that an operator has to remove.
    refused_since: Option<Instant>,
    /// The pauses while the key or the user is refused.
    pauses: Schedule,
    /// Whether its last poll was refused because of the key or the user.
    access_refused: bool,
}

impl Poller {
    fn new(context: Arc<Context>, first: bool) -> Self {
        Self {
            context,
            first,
            backoff: endless(),
            found_empty: false,
            refused_since: None,
            pauses: pauses(),
            access_refused: false,
        }
    }

    /// Polls until there are too many pollers, or the service refuses for good.
    async fn run(mut self) -> Result<(), Error> {
        let context = self.context.clone();
        // A stop ends all waits of a poller, but not its poll.
        while let Some(mut permit) =
            context.control.stopping.run_until_cancelled(PollPermit::acquire(&context, || self.want())).await
        {
            let poll = context.polling.in_flight.begin(permit.is_waited_for());
            // Checked after the permit, which may have been waited for until long after the queue was empty or the
            // worker was paused. And checked after the poll was registered, so that a pause can end each poll that is
            // sent.
            if !self.first && context.polling.pollers.leave(context.polling.concurrency.borrow().polls()) {
                return Ok(());
            }
            if !context.control.is_suspended() {
                permit.shrink();
                self.poll(permit, poll).await?;
            }
        }
        Ok(())
    }

    /// The number of messages that the next poll asks for, if there is capacity for them.
    fn want(&self) -> usize {
        // While anything is in flight, a poll that waits on an empty queue asks for one message only: a failing
        // acknowledgement waits for polls that ask for more. With a shared limit, other workers may need the capacity.
        let shares = self.context.control.inflight.is_shared();
        if self.context.isolation.has_quarantined()
            || (self.found_empty && (shares || !self.context.batches.is_empty()))
        {
            return 1;
        }
        let size = match self.context.control.max_messages() {
            MaxMessages::Fixed(count) => count,
            MaxMessages::Auto => batch_size(self.context.control.latency.quantiles()),
        };
        size.clamp(1, MAX_MESSAGES)
    }

    /// Whether the poll may wait for the configured time, because nobody has to wait for it. The first poll of a worker may
    /// not: its answer makes the worker ready, also on an empty queue.
    fn may_wait_long(&self, permit: &PollPermit<'_>) -> bool {
        let context = &self.context;
        let lone = context.batches.is_empty() && !context.control.inflight.is_shared();
        // Another poller may receive a message that fails, and then this poll has to end soon.
        let can_be_ended = context.source.extensions().end_poll() || context.polling.pollers.running() <= 1;
        // Everything waits for the reply to the poll that retries a refused key.
        let is_ready = context.control.health.has_polled();
        self.first && is_ready && !self.access_refused && (!permit.is_waited_for() || (lone && can_be_ended))
    }

    /// Sends one poll, and starts a batch with the messages that it receives.
    async fn poll(&mut self, permit: PollPermit<'_>, poll: InFlightPoll<'_>) -> Result<(), Error> {
        let context = self.context.clone();
        let asked = permit.messages();
        let wait = if self.may_wait_long(&permit) {
            context.settings.poll_wait
        } else {
            SHORT_WAIT.min(context.settings.poll_wait)
        };
        let ack_wait = context.ack_wait();
        let trying = context.control.health.trying();
        let sent = Instant::now();
        let span = spans::receive(&context.origin);
        let answer = context.source.receive(asked, wait, ack_wait, &poll.id).instrument(span.clone()).await;
        // Answered: neither a pause nor a failing acknowledgement has to ask the service to end it.
        drop(poll);
        let took = sent.elapsed();
        match answer {
            Ok(Consumed { messages, sent, waited }) => {
                drop(trying);
                spans::received(&span, messages.len());
                self.backoff.reset();
                self.found_empty = messages.is_empty();
                self.refused_since = None;
                self.pauses.reset();
                self.access_refused = false;
                context.control.health.polled();
                context.control.works();
                let wait_for_batch =
                    context.one_batch_at_a_time || (permit.is_for_suspects() && context.settings.ordering.has_keys());
                let suspect = permit.is_for_suspects();
                let reservation = permit.answered(&messages);
                let max = context.max_polls();
                context.polling.adjust(|concurrency| {
                    concurrency.allow(max);
                    concurrency.answered(messages.len(), asked, took);
                });
                let lease = Lease::new(LeaseBegin { sent, waited }, Instant::now(), ack_wait, context.round_trip());
                context.emit(&received(&messages, took));
                self.take(messages, reservation, lease, suspect, wait_for_batch).await;
                Ok(())
            }
            Err(error) => {
                spans::refused(&span, &error);
                // Before the pause, so that another poll can use the capacity meanwhile.
                drop(permit);
                self.failed(error).await
            }
        }
    }

    /// Passes on a batch. With `wait_for_batch`, waits for its end before the next poll: on a FIFO queue, and with
    /// ordering by key after a failure, so that no message is turned away behind one that may fail again.
    async fn take(
        &self,
        mut messages: Vec<ReceivedMessage>,
        reservation: Reservation,
        lease: Lease,
        suspect: bool,
        wait_for_batch: bool,
    ) {
        let context = &self.context;
        if messages.is_empty() {
            return;
        }
        context.failure.attempts.number(&mut messages);
        let permits = reservation.into_permits(messages.iter().map(|message| message.body.len()));
        let batch = ConsumedBatch { messages, permits, lease, suspect };
        if context.hands_back() {
            context.batches.spawn(batch::hand_back(context.clone(), batch));
            return;
        }
        // Boxed, because the runtime would move the large future several times.
        let work = context.batches.spawn(Box::pin(batch::run(context.clone(), batch)));
        if wait_for_batch {
            let _ = context.control.stopping.run_until_cancelled(work).await;
        }
    }

    /// Waits before the next poll, or gives up.
    async fn failed(&mut self, error: Error) -> Result<(), Error> {
        let context = self.context.clone();
        context.polling.adjust(PollConcurrency::failed);
        self.access_refused = is_waited_out(&error, context.control.health.has_polled());
        if self.access_refused {
            context.control.health.refused(&error);
        } else if error.is_not_found() && error.code().is_some() {
            // The queue may exist again under the same name. The session looks it up.
            context.emit(&Event::PollFailed { error: &error, retry_in: Duration::ZERO });
            return Err(error);
        } else if !error.is_retryable() {
            let since = *self.refused_since.get_or_insert_with(Instant::now);
            if error.is_auth() || !context.control.health.has_polled() || since.elapsed() >= MAX_OUTAGE {
                return Err(error);
            }
        }
        let delay = match self.access_refused && !error.is_retryable() {
            true => self.pauses.next_delay().unwrap_or(MAX_PAUSE),
            false => self.backoff.next_delay().unwrap_or(MAX_OUTAGE),
        };
        let retry_in = error.retry_after().map_or(delay, |asked| delay.max(asked));
        let Origin { worker, queue, group, .. } = &*context.origin;
        tracing::warn!(worker, queue, group, %error, retry_in = %brief(retry_in), "a poll failed");
        context.emit(&Event::PollFailed { error: &error, retry_in });
        let _ = context.control.stopping.run_until_cancelled(sleep(retry_in)).await;
        Ok(())
    }
}

/// Whether the refusal of a key or a user may be temporary: the client says so for keys, and rights that have worked
/// before may be granted again.
fn is_waited_out(error: &Error, has_polled: bool) -> bool {
    match error.is_auth() {
        true => error.is_retryable() || has_polled,
        false => error.is_forbidden() && has_polled,
    }
}

/// The pauses while the user is refused. For a refused key, the client sets the pause.
fn pauses() -> Schedule {
    let policy = RetryPolicy::try_new(FIRST_PAUSE, MAX_PAUSE, 2.0, 0.2).unwrap_or_default();
    policy.max_attempts(None).schedule()
}

fn received(messages: &[ReceivedMessage], took: Duration) -> Event<'static> {
    let bytes = messages.iter().map(|message| message.body.len()).sum();
    Event::Received { messages: messages.len(), bytes, took }
}
