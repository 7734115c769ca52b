//! [`App`]: the application behind an HTTP handler. Is it there, and well?
//!
//! It starts as down and stays so until it answers its health URL, or takes a connection. A connection that cannot be made
//! takes it down again, and so do three in a row that break, or its health URL, which is asked all the time. While it is
//! down nothing is fetched for it, and messages that are here already wait for it as long as their lease allows, so that
//! its absence costs no delivery attempt. When it can be reached again, one message at a time finds out whether it really
//! works; trials that fail come at growing intervals.

use std::time::Duration;

use tokio::{
    sync::{Mutex, MutexGuard, OnceCell, watch},
    time::{sleep, timeout},
};
use tokio_util::sync::CancellationToken;

use super::throttle::Throttle;

/// Broken connections in a row that take an application down, and health checks without an answer that do.
const MOST_FAILURES: u32 = 3;
/// The longest pause after a trial that failed.
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// How an application did when it was looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Health {
    /// It is there.
    Well,
    /// It refuses connections, or says that it is not well.
    Ill,
    /// It did not answer in time: it may be busy.
    Silent,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Down,
    TryingOut,
    Up,
}

/// What is known about an application.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Known {
    state: State,
    /// Connections that broke since the last answer.
    broken: u32,
    /// Trials that failed since it was up.
    failed_trials: u32,
}

impl Known {
    const UNKNOWN: Self = Self { state: State::Down, broken: 0, failed_trials: 0 };

    fn answered(self) -> Self {
        match self.state {
            // A message that was on its way while the application went down says nothing about now.
            State::Down => self,
            State::TryingOut | State::Up => Self { state: State::Up, broken: 0, failed_trials: 0 },
        }
    }

    fn found(self) -> Self {
        match self.state {
            State::Down => Self { state: State::TryingOut, ..self },
            State::TryingOut | State::Up => self,
        }
    }

    fn lost(self) -> Self {
        match self.state {
            State::Down => self,
            State::TryingOut => Self { state: State::Down, broken: 0, failed_trials: self.failed_trials + 1 },
            State::Up => Self::UNKNOWN,
        }
    }

    fn broke(self) -> Self {
        match self.state {
            State::Up if self.broken + 1 < MOST_FAILURES => Self { broken: self.broken + 1, ..self },
            _ => self.lost(),
        }
    }

    /// Slowness of one message says nothing about an application that is up.
    fn silent(self) -> Self {
        if self.state == State::TryingOut { self.lost() } else { self }
    }

    /// How long it is left alone before it is looked at again.
    fn pause(self, interval: Duration) -> Duration {
        match self.failed_trials {
            0 => Duration::ZERO,
            failed => interval.saturating_mul(2u32.saturating_pow(failed - 1)).min(LONGEST_PAUSE.max(interval)),
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

/// Whether the application is there.
#[derive(Debug)]
pub(crate) struct App {
    known: watch::Sender<Known>,
    turn: Mutex<()>,
    throttle: OnceCell<Throttle>,
}

/// The permission to try a message on the application. While it is being tried out, there is one at a time.
#[derive(Debug)]
pub(crate) struct Turn<'a>(#[expect(dead_code, reason = "held, not read")] Option<MutexGuard<'a, ()>>);

impl App {
    /// An application that has not answered yet.
    pub(crate) fn new() -> Self {
        Self { known: watch::Sender::new(Known::UNKNOWN), turn: Mutex::new(()), throttle: OnceCell::new() }
    }

    /// Waits until the application may be tried. Cancel-safe.
    pub(crate) async fn turn(&self) -> Turn<'_> {
        let mut known = self.known.subscribe();
        loop {
            let state = known.borrow_and_update().state;
            match state {
                State::Up => return Turn(None),
                State::TryingOut => {
                    let turn = self.turn.lock().await;
                    // The one before may have found out meanwhile.
                    match self.state() {
                        State::Up => return Turn(None),
                        State::TryingOut => return Turn(Some(turn)),
                        State::Down => {}
                    }
                }
                // The sender lives as long as `self`.
                State::Down => drop(known.changed().await),
            }
        }
    }

    /// The application answered a message, whatever.
    pub(crate) fn answered(&self) {
        self.change(Known::answered);
    }

    /// No connection to the application came about.
    pub(crate) fn unreachable(&self) {
        self.change(Known::lost);
    }

    /// The connection broke before the application answered.
    pub(crate) fn broke(&self) {
        self.change(Known::broke);
    }

    /// The application did not answer a message in time.
    pub(crate) fn silent(&self) {
        self.change(Known::silent);
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
                    tell_down(&name);
                }
                let pause = self.known.borrow().pause(watching.interval);
                sleep(pause).await;
                while look().await != Health::Well {
                    if !known {
                        tell_down(&name);
                    }
                    known = true;
                    sleep(watching.interval).await;
                }
                if known {
                    tracing::info!(worker = name, "the application is there: one message at a time tries it out");
                }
                known = true;
                self.change(Known::found);
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
            let down = async { drop(known.wait_for(|known| known.state == State::Down).await) };
            if !watching.always {
                return down.await;
            }
            if timeout(watching.interval, down).await.is_ok() {
                return;
            }
            silent = match look().await {
                Health::Well => 0,
                Health::Ill => MOST_FAILURES,
                Health::Silent => silent + 1,
            };
            if silent >= MOST_FAILURES {
                self.change(Known::lost);
            }
        }
    }

    fn state(&self) -> State {
        self.known.borrow().state
    }

    fn change(&self, change: impl FnOnce(Known) -> Known) {
        self.known.send_if_modified(|known| {
            let before = std::mem::replace(known, change(*known));
            if before.state != known.state
                && let Some(throttle) = self.throttle.get()
            {
                // Here, where changes have an order.
                match known.state {
                    State::Down => throttle.app_down(),
                    State::TryingOut => throttle.app_trying(),
                    State::Up => throttle.app_up(),
                }
            }
            before != *known
        });
    }
}

fn tell_down(worker: &str) {
    tracing::warn!(worker, "the application is down: nothing is fetched until it is back");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn one_message_at_a_time_tries_an_application_out() {
        let app = App::new();
        let waits = |wait: Duration| tokio::time::timeout(wait, app.turn());
        assert!(waits(Duration::from_secs(60)).await.is_err(), "it has not answered yet");
        app.change(Known::found);
        let turn = waits(Duration::from_secs(1)).await;
        assert!(turn.is_ok());
        assert!(waits(Duration::from_secs(60)).await.is_err(), "one is out already");
        app.answered();
        drop(turn);
        assert!(waits(Duration::from_secs(1)).await.is_ok());
        app.unreachable();
        app.answered();
        assert!(waits(Duration::from_secs(60)).await.is_err(), "a late answer does not bring it back");
    }

    #[test]
    fn connections_that_break_take_an_application_down_at_the_third_in_a_row() {
        let up = Known::UNKNOWN.found().answered();
        assert_eq!(up.broke().broke().state, State::Up);
        assert_eq!(up.broke().broke().answered().broke().broke().state, State::Up, "in a row");
        assert_eq!(up.broke().broke().broke().state, State::Down);
        assert_eq!(up.lost().state, State::Down, "one that cannot be made is enough");
        assert_eq!(up.silent().state, State::Up, "slow messages are none of the application's health");
    }

    #[test]
    fn trials_that_fail_come_at_growing_intervals() {
        let second = Duration::from_secs(1);
        let mut known = Known::UNKNOWN;
        let mut pauses = Vec::new();
        for failure in [Known::broke, Known::silent, Known::lost, Known::lost, Known::lost, Known::lost, Known::lost] {
            pauses.push(known.pause(second).as_secs());
            known = failure(known.found());
        }
        assert_eq!(pauses, [0, 1, 2, 4, 8, 16, 30]);
        assert_eq!(known.found().answered().lost().pause(second), Duration::ZERO);
    }

    #[tokio::test(start_paused = true)]
    async fn a_health_url_is_asked_while_the_application_is_up() {
        let down_after = async |health: Health| {
            let app = App::new();
            app.change(Known::found);
            app.answered();
            let watching = Watching { interval: Duration::from_secs(1), always: true };
            let looks = std::cell::Cell::new(0);
            let look = || {
                looks.set(looks.get() + 1);
                std::future::ready(health)
            };
            timeout(Duration::from_secs(60), app.until_down(watching, look)).await.is_ok().then(|| looks.get())
        };
        assert_eq!(down_after(Health::Ill).await, Some(1));
        assert_eq!(down_after(Health::Silent).await, Some(3));
        assert_eq!(down_after(Health::Well).await, None);
    }
}
