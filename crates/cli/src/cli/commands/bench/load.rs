//! The load of the runs: senders, a worker whose handler does nothing, and both by the clock.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use futures_util::future::try_join_all;
use tokio::{
    task::JoinSet,
    time::{Instant, interval, sleep_until},
};
use tokio_util::sync::CancellationToken;

use crate::cli::{commands::bench::figures::Tally, support::failure::Failure};
use dms_protocol::{
    message::{Body, Message},
    queue::QueueId,
};
use dms_worker::{
    Dialect,
    client::Client,
    worker::{AckResult, Delivery, Event, MaxMessages, Observer, Origin, Worker, handler_fn},
};

/// The attribute that says when a message was sent, in nanoseconds since the run began.
const SENT: &str = "sent";
/// How long the last messages of a run by the clock may take to arrive.
const LAST_MESSAGES_TIMEOUT: Duration = Duration::from_secs(2);

/// A queue under load.
#[derive(Clone, Debug)]
pub(super) struct Load {
    pub(super) client: Client,
    pub(super) queue: QueueId,
    /// Bytes of each body.
    pub(super) size: u32,
    /// Messages of each request.
    pub(super) batch: usize,
    /// Requests under way at a time.
    pub(super) connections: usize,
    /// How long a run lasts.
    pub(super) duration: Duration,
    /// After how many messages it ends before that.
    pub(super) messages: usize,
    /// How many consumer groups the queue has.
    pub(super) groups: usize,
    /// How many workers consume for each group.
    pub(super) workers: usize,
}

/// The name of one of a queue's groups.
pub(super) fn group(number: usize) -> String {
    if number == 0 { "bench".to_owned() } else { format!("bench-{number}") }
}

impl Load {
    /// Sends as fast as it goes.
    pub(super) async fn produce(&self) -> Result<Tally, Failure> {
        let (until, left) = (Instant::now() + self.duration, Arc::new(AtomicUsize::new(self.messages)));
        let messages: Arc<[Message]> = vec![self.message()?; self.batch].into();
        let mut senders = JoinSet::new();
        for _ in 0..self.connections {
            let (load, left, messages) = (self.clone(), left.clone(), messages.clone());
            senders.spawn(async move {
                let mut tally = Tally::default();
                while Instant::now() < until {
                    let Some(count) = claim(&left, load.batch) else { break };
                    let started = Instant::now();
                    load.send(&messages[..count]).await?;
                    tally.latencies.push(started.elapsed());
                    tally.produced += count;
                }
                Ok::<_, Failure>(tally)
            });
        }
        let mut sum = Tally::default();
        while let Some(sender) = senders.join_next().await {
            let tally = sender.map_err(broken)??;
            sum.produced += tally.produced;
            sum.latencies.extend(tally.latencies);
        }
        Ok(sum)
    }

    /// Consumes until every group has acknowledged this number of messages, or the time is over.
    pub(super) async fn consume(&self, messages: usize) -> Result<Tally, Failure> {
        let progress = Arc::new(LoadObserver::new(messages * self.groups));
        self.work(&progress, self.connections * self.batch, self.duration).await?;
        Ok(progress.tally(|progress| &progress.polls))
    }

    /// Sends and consumes at the same time. The latencies are measured for the send requests.
    pub(super) async fn both(&self) -> Result<Tally, Failure> {
        let progress = Arc::new(LoadObserver::new(usize::MAX));
        let half = Self { connections: self.connections.div_ceil(2), ..self.clone() };
        let sending = async {
            let sent = half.produce().await;
            progress.complete.cancel();
            sent
        };
        let handling = half.work(&progress, half.connections * half.batch, Duration::MAX);
        let (sent, ()) = tokio::try_join!(sending, handling)?;
        Ok(Tally { acknowledged: progress.acknowledged.load(Relaxed), ..sent })
    }

    /// Sends single messages at a steady rate. The latency of a message ends when its handler is called.
    pub(super) async fn latency(&self, rate: u32) -> Result<Tally, Failure> {
        let progress = Arc::new(LoadObserver::new(usize::MAX));
        let sending = async {
            let sent = self.send_steadily(rate, &progress).await?;
            progress.expect(sent);
            Ok::<_, Failure>(sent)
        };
        let handling = self.work(&progress, self.connections * self.batch, self.duration + LAST_MESSAGES_TIMEOUT);
        let (produced, ()) = tokio::try_join!(sending, handling)?;
        Ok(Tally { produced, ..progress.tally(|progress| &progress.messages) })
    }

    /// Sends one message at each tick, however long the answers to the others take.
    async fn send_steadily(&self, rate: u32, progress: &LoadObserver) -> Result<usize, Failure> {
        let mut ticks = interval(Duration::from_secs(1) / rate);
        let until = Instant::now() + self.duration;
        let mut sending = JoinSet::new();
        let mut sent = 0;
        while Instant::now() < until && sent < self.messages {
            ticks.tick().await;
            let message = self.stamped(progress.now())?;
            let load = self.clone();
            sending.spawn(async move { load.send(&[message]).await });
            sent += 1;
            while let Some(ended) = sending.try_join_next() {
                ended.map_err(broken)??;
            }
        }
        while let Some(ended) = sending.join_next().await {
            ended.map_err(broken)??;
        }
        Ok(sent)
    }

    /// Runs the workers of all groups, which share the concurrency, until the progress is complete or the time is over.
    async fn work(&self, progress: &Arc<LoadObserver>, concurrency: usize, time: Duration) -> Result<(), Failure> {
        let each = (concurrency / (self.groups * self.workers)).max(1);
        let workers = (0..self.groups).flat_map(|number| (0..self.workers).map(move |_| group(number)));
        try_join_all(workers.map(|group| self.work_for(group, progress, each, time))).await?;
        Ok(())
    }

    /// Runs one worker.
    async fn work_for(
        &self,
        group: String,
        progress: &Arc<LoadObserver>,
        concurrency: usize,
        time: Duration,
    ) -> Result<(), Failure> {
        let seen = progress.clone();
        let handler = handler_fn(move |delivery: Delivery| {
            seen.handled(&delivery);
            async { Ok(()) }
        });
        let (until, complete) = (progress.started.checked_add(time), progress.complete.clone());
        let stop = async move {
            tokio::select! {
                () = complete.cancelled() => {}
                () = async { match until {
                    Some(until) => sleep_until(until).await,
                    None => std::future::pending().await,
                } } => {}
            }
        };
        Worker::builder(self.client.clone())
            .queue(self.queue.as_str())
            .group(group)
            .handler(handler)
            .concurrency(concurrency)
            .max_messages(MaxMessages::Fixed(self.batch))
            .observer(progress.clone())
            .build()
            .map_err(broken)?
            .run(stop)
            .await
            .map_err(broken)?;
        Ok(())
    }

    async fn send(&self, messages: &[Message]) -> Result<(), Failure> {
        send(&self.client, &self.queue, messages).await
    }

    fn message(&self) -> Result<Message, Failure> {
        message(String::new(), self.size)
    }

    /// A message that says when it is sent: in an attribute, or without attributes in its body.
    fn stamped(&self, now: u64) -> Result<Message, Failure> {
        match self.client.dialect() {
            Dialect::Mqs => message(now.to_string(), self.size),
            _ => Ok(self.message()?.attribute(SENT, now)),
        }
    }
}

/// Sends messages; one that is refused ends the run.
pub(super) async fn send(client: &Client, queue: &QueueId, messages: &[Message]) -> Result<(), Failure> {
    for sent in client.send(queue, messages).await? {
        sent?;
    }
    Ok(())
}

/// A message with a body of this size in bytes, which begins with this text.
pub(super) fn message(mut text: String, size: u32) -> Result<Message, Failure> {
    // Two bytes of the size are the quotes.
    let size = usize::try_from(size).unwrap_or(2).saturating_sub(2);
    text.extend(std::iter::repeat_n('x', size.saturating_sub(text.len())));
    Ok(Message::new(Body::json(&text).map_err(broken)?))
}

/// The number that a body of [`message`] begins with. The rest is not looked at: that would count as the worker's time.
fn number_at_start(body: &str) -> Option<u64> {
    let text = body.strip_prefix('"')?;
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    text[..digits].parse().ok()
}

/// Takes up to `batch` of the messages that are left.
pub(super) fn claim(left: &AtomicUsize, batch: usize) -> Option<usize> {
    let before = left.fetch_update(Relaxed, Relaxed, |left| Some(left.saturating_sub(batch))).unwrap_or(0);
    (before > 0).then_some(before.min(batch))
}

pub(super) fn broken(error: impl std::fmt::Display) -> Failure {
    Failure::new(error.to_string())
}

/// How far handling has got.
#[derive(Debug)]
struct LoadObserver {
    started: Instant,
    acknowledged: AtomicUsize,
    expected: AtomicUsize,
    complete: CancellationToken,
    /// How long polls took that brought something.
    polls: Mutex<Vec<Duration>>,
    /// How long messages took, where they say when they were sent.
    messages: Mutex<Vec<Duration>>,
}

impl LoadObserver {
    fn new(expected: usize) -> Self {
        Self {
            started: Instant::now(),
            acknowledged: AtomicUsize::new(0),
            expected: AtomicUsize::new(expected),
            complete: CancellationToken::new(),
            polls: Mutex::default(),
            messages: Mutex::default(),
        }
    }

    /// Nanoseconds since the start.
    fn now(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }

    fn handled(&self, delivery: &Delivery) {
        if let Some(sent) = delivery.attributes().get_u64(SENT).or_else(|| number_at_start(delivery.body().as_str())) {
            lock(&self.messages).push(Duration::from_nanos(self.now().saturating_sub(sent)));
        }
    }

    /// Sets the number of messages after which the run is complete.
    fn expect(&self, messages: usize) {
        self.expected.store(messages, Relaxed);
        self.look();
    }

    fn look(&self) {
        if self.acknowledged.load(Relaxed) >= self.expected.load(Relaxed) {
            self.complete.cancel();
        }
    }

    fn tally(&self, latencies: impl FnOnce(&Self) -> &Mutex<Vec<Duration>>) -> Tally {
        let latencies = std::mem::take(&mut *lock(latencies(self)));
        Tally { produced: 0, acknowledged: self.acknowledged.load(Relaxed), latencies }
    }
}

impl Observer for LoadObserver {
    fn observe(&self, _: &Origin, event: &Event<'_>) {
        match event {
            Event::Received { messages: 1.., took, .. } => lock(&self.polls).push(*took),
            Event::Settled { result: AckResult::Answered { success, .. }, .. } => {
                self.acknowledged.fetch_add(*success, Relaxed);
                self.look();
            }
            _ => {}
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn senders_share_the_messages_that_are_left() {
        let left = AtomicUsize::new(25);
        let claims: Vec<_> = std::iter::from_fn(|| claim(&left, 10)).collect();
        assert_eq!(claims, [10, 10, 5]);
    }
}
