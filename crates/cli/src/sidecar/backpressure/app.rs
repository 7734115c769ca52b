//! [`App`]: the state of the application behind an HTTP handler: up, down, or being tried out.
//!
//! It starts as down and stays so until it answers its health URL, or takes a connection. A connection that cannot be made
//! takes it down again, and so do several in a row that break, or its health URL, which is asked all the time. While it is
//! down nothing is fetched for it, and messages that are here already wait for it as long as their lease allows, so that
//! its absence costs no delivery attempt. When it can be reached again, one message at a time finds out whether it really
//! works; trials that fail come at growing intervals.
//!
//! When a connection breaks, the application is looked at before anybody is blamed, and the next message gets its turn; see
//! [`blame`](super::blame).

use std::{
    fmt,
    sync::{Mutex as StdMutex, MutexGuard as StdMutexGuard, PoisonError, atomic::Ordering::Relaxed},
    time::Duration,
};

use jiff::Timestamp;
use tokio::{
    sync::{Mutex, MutexGuard, OnceCell, RwLock, RwLockReadGuard, RwLockWriteGuard, watch},
    time::{Instant, sleep, timeout},
};
use tokio_util::sync::CancellationToken;

pub(crate) use crate::sidecar::backpressure::blame::{Fault, LazyKey};
use crate::sidecar::backpressure::{
    blame::{Blame, Break, Flight, MessageKey, SAME_CAUSE_WINDOW},
    throttle::Throttle,
};
use dms_protocol::internal::clock;

/// Health checks in a row without an answer that take an application down.
const MAX_FAILURES: u32 = 3;
/// The longest pause after a trial that failed.
const MAX_PAUSE: Duration = Duration::from_secs(30);

/// The result of a health check.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Health {
    /// It is healthy.
    Well,
    /// It refuses connections, or reports that it is not healthy. Holds the request and its result.
    Ill(String),
    /// It did not answer in time, perhaps because it is busy. Holds the request.
    Silent(String),
}

/// Why an application is down.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Outage {
    /// When it was first noticed.
    since: Timestamp,
    /// The last request and its result.
    reason: String,
}

impl fmt::Display for Outage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // No fraction of a second.
        write!(f, "{}, since {}", self.reason, self.since.strftime("%Y-%m-%dT%H:%M:%SZ"))
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum AppStatus {
    Down,
    TryingOut,
    Up,
}

/// The state of an application.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Availability {
    state: AppStatus,
    /// Trials that failed since it was up.
    failed_trials: u32,
}

impl Availability {
    const UNKNOWN: Self = Self { state: AppStatus::Down, failed_trials: 0 };

    fn answered(self) -> Self {
        match self.state {
            // A message that was on its way while the application went down says nothing about now.
            AppStatus::Down => self,
            AppStatus::TryingOut | AppStatus::Up => Self { state: AppStatus::Up, failed_trials: 0 },
        }
    }

    fn found(self) -> Self {
        match self.state {
            AppStatus::Down => Self { state: AppStatus::TryingOut, ..self },
            AppStatus::TryingOut | AppStatus::Up => self,
        }
    }

    fn lost(self) -> Self {
        match self.state {
            AppStatus::Down => self,
            AppStatus::TryingOut => Self { state: AppStatus::Down, failed_trials: self.failed_trials + 1 },
            AppStatus::Up => Self::UNKNOWN,
        }
    }

    /// How long it is left alone before it is looked at again.
    fn pause(self, interval: Duration) -> Duration {
        match self.failed_trials {
            0 => Duration::ZERO,
            failed => interval.saturating_mul(2u32.saturating_pow(failed - 1)).min(MAX_PAUSE.max(interval)),
        }
    }
}

/// How an application is watched.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Watching {
    /// How often it is looked at.
    pub(crate) interval: Duration,
    /// Whether also while it is up: where it has a URL for that.
    pub(crate) always: bool,
}

/// The state of an application, and the permits to post to it.
#[derive(Debug)]
pub(crate) struct App {
    known: watch::Sender<Availability>,
    turn: Mutex<()>,
    /// Every post holds a read lock. One that has to be the only post in flight holds the write lock.
    in_flight: RwLock<()>,
    blame: StdMutex<Blame>,
    throttle: OnceCell<Throttle>,
    /// The current outage, or one that may begin: what went wrong since it was last healthy.
    outage: StdMutex<Option<Outage>>,
}

/// The permission to post a message to the application. While it is being tried out, there is one at a time.
#[derive(Debug)]
pub(crate) struct PostPermit<'a> {
    app: &'a App,
    _turn: Option<MutexGuard<'a, ()>>,
    _in_flight: InFlightLock<'a>,
    flight: Flight,
}

#[derive(Debug)]
enum InFlightLock<'a> {
    Shared(#[expect(dead_code, reason = "held, not read")] RwLockReadGuard<'a, ()>),
    Exclusive(#[expect(dead_code, reason = "held, not read")] RwLockWriteGuard<'a, ()>),
}

impl Drop for PostPermit<'_> {
    fn drop(&mut self) {
        self.app.blame().end();
    }
}

impl App {
    /// An application that has not answered yet.
    pub(crate) fn new() -> Self {
        Self {
            known: watch::Sender::new(Availability::UNKNOWN),
            turn: Mutex::new(()),
            in_flight: RwLock::new(()),
            blame: StdMutex::default(),
            throttle: OnceCell::new(),
            outage: StdMutex::default(),
        }
    }

    /// Waits until a message may be posted; with `exclusive`, as the only one in flight. Cancel-safe.
    pub(crate) async fn turn(&self, exclusive: bool) -> PostPermit<'_> {
        // Nearly always the application is up, and nothing waits to be the only post.
        if !exclusive
            && let Ok(in_flight) = self.in_flight.try_read()
            && self.state() == AppStatus::Up
        {
            let in_flight = InFlightLock::Shared(in_flight);
            return PostPermit { app: self, _turn: None, _in_flight: in_flight, flight: self.blame().begin() };
        }
        let mut known = self.known.subscribe();
        loop {
            let state = known.borrow_and_update().state;
            let turn = match state {
                AppStatus::Up => None,
                // One after the other, in the order in which they came: the next trial is another message's.
                AppStatus::TryingOut => Some(self.turn.lock().await),
                // The sender lives as long as `self`.
                AppStatus::Down => {
                    drop(known.changed().await);
                    continue;
                }
            };
            // The message that held the lock may have changed the state.
            if turn.is_some() && self.state() != AppStatus::TryingOut {
                continue;
            }
            let in_flight = match exclusive {
                true => InFlightLock::Exclusive(self.in_flight.write().await),
                false => InFlightLock::Shared(self.in_flight.read().await),
            };
            if self.state() == AppStatus::Up || (turn.is_some() && self.state() == AppStatus::TryingOut) {
                return PostPermit { app: self, _turn: turn, _in_flight: in_flight, flight: self.blame().begin() };
            }
        }
    }

    /// Whether a message is to be posted only while nothing else is in flight.
    pub(crate) fn needs_exclusive_post(&self, key: &LazyKey<'_>) -> bool {
        self.known_key(key).is_some_and(|key| self.blame().needs_exclusive_post(key))
    }

    /// The key, unless no message is remembered. A large body is not hashed while the lock is held.
    fn known_key(&self, key: &LazyKey<'_>) -> Option<MessageKey> {
        let remembers = self.blame().remembers();
        remembers.then(|| key.get())
    }

    /// How many messages the application has answered.
    pub(crate) fn answers(&self) -> u64 {
        self.blame().answers()
    }

    /// The application answered a message, whatever.
    pub(crate) fn answered(&self, key: &LazyKey<'_>) {
        let key = self.known_key(key);
        self.blame().answered(key);
        self.change(Availability::answered);
    }

    /// No connection to the application came about.
    pub(crate) fn unreachable(&self, reason: String) {
        self.note(reason);
        self.change(Availability::lost);
    }

    /// Why the application is down, and since when; `None` if it is not, or if that is not known yet.
    pub(crate) fn outage(&self) -> Option<Outage> {
        self.outage.lock().unwrap_or_else(PoisonError::into_inner).clone().filter(|_| self.state() == AppStatus::Down)
    }

    /// Remembers what went wrong last. An outage began with the first of them.
    fn note(&self, reason: String) {
        let mut outage = self.outage.lock().unwrap_or_else(PoisonError::into_inner);
        let since = outage.as_ref().map_or_else(clock::now, |outage| outage.since);
        *outage = Some(Outage { since, reason });
    }

    /// Remembers what a look has shown. Returns whether the application is healthy.
    fn is_well(&self, health: Health) -> bool {
        match health {
            Health::Well => *self.outage.lock().unwrap_or_else(PoisonError::into_inner) = None,
            Health::Ill(reason) => self.note(reason),
            Health::Silent(asked) => self.note(format!("{asked}: no answer in time")),
        }
        self.outage.lock().unwrap_or_else(PoisonError::into_inner).is_none()
    }

    /// The application did not answer a message in time. Slowness says nothing about an application that is up, and that
    /// of one message says nothing about one that is tried out.
    pub(crate) fn silent(&self, key: MessageKey) {
        if self.state() == AppStatus::TryingOut && self.blame().silent(key) {
            self.change(Availability::lost);
        }
    }

    /// The connection of the message whose `turn` it is broke before the application answered. Says whose fault it is.
    pub(crate) async fn broke(
        &self,
        key: MessageKey,
        turn: PostPermit<'_>,
        look: impl Future<Output = Health>,
    ) -> Fault {
        let how = self.how_it_broke(&turn, look).await;
        let (fault, down) = self.blame().judge(key, how);
        if down {
            self.change(Availability::lost);
        }
        fault
    }

    /// Like [`broke`](Self::broke), for several messages in one request. Each must be posted separately; returns whether alone.
    pub(crate) async fn broke_with_several(&self, turn: PostPermit<'_>, look: impl Future<Output = Health>) -> bool {
        let how = self.how_it_broke(&turn, look).await;
        if how.crashed {
            self.change(Availability::lost);
        }
        how.crashed || how.together
    }

    async fn how_it_broke(&self, turn: &PostPermit<'_>, look: impl Future<Output = Health>) -> Break {
        let together = self.blame().broke(Instant::now());
        let only_post =
            matches!(turn._in_flight, InFlightLock::Exclusive(_)) || self.blame().was_only_post(turn.flight);
        let proven = self.state() == AppStatus::Up;
        let health = look.await;
        let crashed = matches!(health, Health::Ill(_));
        if let Health::Ill(reason) = health {
            self.note(reason);
        }
        if !only_post {
            sleep(SAME_CAUSE_WINDOW).await;
        }
        Break { only_post, together: together.load(Relaxed) > 1, crashed, proven }
    }

    fn blame(&self) -> StdMutexGuard<'_, Blame> {
        // No code that can panic runs under this lock.
        self.blame.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Watches the application until `stop`.
    pub(crate) async fn watch<F>(
        &self,
        throttle: Throttle,
        watching: Watching,
        look: impl Fn() -> F,
        stop: CancellationToken,
    ) where
        F: Future<Output = Health>,
    {
        throttle.app_down();
        let name = throttle.worker().name().to_owned();
        // Set once: a worker has one watcher.
        let _ = self.throttle.set(throttle);
        let watch = async {
            // It begins as down, which it may well not be: then there is nothing to tell.
            let mut known = false;
            loop {
                self.until_down(watching, &look).await;
                if known {
                    self.tell_down(&name);
                }
                let pause = self.known.borrow().pause(watching.interval);
                sleep(pause).await;
                while !self.is_well(look().await) {
                    if !known {
                        self.tell_down(&name);
                    }
                    known = true;
                    sleep(watching.interval).await;
                }
                if known {
                    tracing::info!(worker = name, "the application is back: one message at a time tries it out");
                }
                known = true;
                self.change(Availability::found);
            }
        };
        let _ = stop.run_until_cancelled(watch).await;
    }

    /// Waits until the application is down, or finds out that it is.
    async fn until_down<F>(&self, watching: Watching, look: impl Fn() -> F)
    where
        F: Future<Output = Health>,
    {
        let mut known = self.known.subscribe();
        let mut silent = 0;
        loop {
            // The sender lives as long as `self`.
            let down = async { drop(known.wait_for(|known| known.state == AppStatus::Down).await) };
            if !watching.always {
                return down.await;
            }
            if timeout(watching.interval, down).await.is_ok() {
                return;
            }
            let health = look().await;
            silent = match health {
                Health::Well => 0,
                Health::Ill(_) => MAX_FAILURES,
                Health::Silent(_) => silent + 1,
            };
            self.is_well(health);
            if silent >= MAX_FAILURES {
                self.change(Availability::lost);
            }
        }
    }

    fn tell_down(&self, worker: &str) {
        let outage = self.outage();
        let (error, since) = outage.map(|outage| (outage.reason, outage.since.to_string())).unzip();
        tracing::warn!(worker, error, since, "the application is down: nothing is fetched until it is back");
    }

    fn state(&self) -> AppStatus {
        self.known.borrow().state
    }

    fn change(&self, change: impl Fn(Availability) -> Availability) {
        let known = *self.known.borrow();
        // Nearly no answer changes anything, and posts read the state meanwhile.
        if change(known) == known {
            return;
        }
        self.known.send_if_modified(|known| {
            let before = std::mem::replace(known, change(*known));
            if before.state != known.state
                && let Some(throttle) = self.throttle.get()
            {
                // Here, where changes have an order.
                match known.state {
                    AppStatus::Down => throttle.app_down(),
                    AppStatus::TryingOut => throttle.app_trying(),
                    AppStatus::Up => throttle.app_up(),
                }
            }
            before != *known
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn one_message_at_a_time_tries_an_application_out() {
        let app = App::new();
        let waits = |wait: Duration| tokio::time::timeout(wait, app.turn(false));
        assert!(waits(Duration::from_secs(60)).await.is_err(), "it has not answered yet");
        app.change(Availability::found);
        let turn = waits(Duration::from_secs(1)).await;
        assert!(turn.is_ok());
        assert!(waits(Duration::from_secs(60)).await.is_err(), "one request is in progress already");
        app.answered(&LazyKey::of(&[]));
        drop(turn);
        assert!(waits(Duration::from_secs(1)).await.is_ok());
        app.unreachable("no connection".to_owned());
        app.answered(&LazyKey::of(&[]));
        assert!(waits(Duration::from_secs(60)).await.is_err(), "a late answer does not bring it back");
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_is_hashed_only_once_a_connection_has_broken() {
        let app = App::new();
        app.change(Availability::found);
        let key = LazyKey::of(&[]);
        assert!(!app.needs_exclusive_post(&key));
        app.answered(&key);
        assert!(!key.is_made());
        let turn = app.turn(false).await;
        app.broke(MessageKey::numbered(1), turn, std::future::ready(Health::Well)).await;
        app.answered(&key);
        assert!(key.is_made());
    }

    #[test]
    fn trials_that_fail_come_at_growing_intervals() {
        let second = Duration::from_secs(1);
        let mut known = Availability::UNKNOWN;
        let mut pauses = Vec::new();
        for _ in 0..7 {
            pauses.push(known.pause(second).as_secs());
            known = known.found().lost();
        }
        assert_eq!(pauses, [0, 1, 2, 4, 8, 16, 30]);
        assert_eq!(known.found().answered().lost().pause(second), Duration::ZERO);
    }

    #[tokio::test(start_paused = true)]
    async fn a_health_url_is_asked_while_the_application_is_up() {
        let down_after = async |health: Health| {
            let app = App::new();
            app.change(Availability::found);
            app.answered(&LazyKey::of(&[]));
            let watching = Watching { interval: Duration::from_secs(1), always: true };
            let looks = std::cell::Cell::new(0);
            let look = || {
                looks.set(looks.get() + 1);
                std::future::ready(health.clone())
            };
            timeout(Duration::from_secs(60), app.until_down(watching, look)).await.is_ok().then(|| looks.get())
        };
        assert_eq!(down_after(Health::Ill("503".to_owned())).await, Some(1));
        assert_eq!(down_after(Health::Silent("GET /health".to_owned())).await, Some(3));
        assert_eq!(down_after(Health::Well).await, None);
    }

    #[tokio::test(start_paused = true)]
    async fn an_outage_has_its_first_time_and_its_last_reason() {
        let app = App::new();
        assert_eq!(app.outage(), None, "nobody has looked yet");
        assert!(!app.is_well(Health::Ill("connection refused".to_owned())));
        let first = app.outage().map(|outage| outage.since);
        assert!(!app.is_well(Health::Silent("GET /health".to_owned())));
        let outage = app.outage();
        assert_eq!(outage.as_ref().map(|outage| outage.since), first);
        assert!(outage.is_some_and(|outage| outage.to_string().starts_with("GET /health: no answer in time, since 2")));
        app.change(Availability::found);
        assert_eq!(app.outage(), None, "it is being tried out");
        app.is_well(Health::Well);
        app.unreachable("refused".to_owned());
        assert_eq!(app.outage().map(|outage| outage.reason).as_deref(), Some("refused"));
    }

    /// A slow message is no outage, neither of an application that is up nor of one that is tried out.
    #[tokio::test(start_paused = true)]
    async fn one_slow_message_takes_no_application_down() {
        let app = App::new();
        app.change(Availability::found);
        app.silent(MessageKey::numbered(1));
        assert_eq!(app.state(), AppStatus::TryingOut);
        app.answered(&LazyKey::of(&[]));
        app.silent(MessageKey::numbered(1));
        assert_eq!(app.state(), AppStatus::Up);
    }
}
