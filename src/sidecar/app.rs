//! [`App`]: the application behind an HTTP handler. Is it there?
//!
//! It starts as down and stays so until it answers. A connection that fails takes it down again: nothing more is fetched
//! for it, and messages that are here already wait for it as long as their lease allows, so that its absence costs no
//! delivery attempt. When it can be reached again, one message at a time finds out whether it really works.

use std::time::Duration;

use tokio::{
    sync::{Mutex, MutexGuard, OnceCell, watch},
    time::sleep,
};
use tokio_util::sync::CancellationToken;

use super::throttle::Throttle;

/// What is known about an application.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Down,
    TryingOut,
    Up,
}

/// Whether the application is there.
#[derive(Debug)]
pub(crate) struct App {
    state: watch::Sender<State>,
    turn: Mutex<()>,
    throttle: OnceCell<Throttle>,
}

/// The permission to try a message on the application. While it is being tried out, there is one at a time.
#[derive(Debug)]
pub(crate) struct Turn<'a>(#[expect(dead_code, reason = "held, not read")] Option<MutexGuard<'a, ()>>);

impl App {
    /// An application that has not answered yet.
    pub(crate) fn new() -> Self {
        Self { state: watch::Sender::new(State::Down), turn: Mutex::new(()), throttle: OnceCell::new() }
    }

    /// Waits until the application may be tried. Cancel-safe.
    pub(crate) async fn turn(&self) -> Turn<'_> {
        let mut state = self.state.subscribe();
        loop {
            let now = *state.borrow_and_update();
            match now {
                State::Up => return Turn(None),
                State::TryingOut => {
                    let turn = self.turn.lock().await;
                    // The one before may have found out meanwhile.
                    match *self.state.borrow() {
                        State::Up => return Turn(None),
                        State::TryingOut => return Turn(Some(turn)),
                        State::Down => {}
                    }
                }
                // The sender lives as long as `self`.
                State::Down => drop(state.changed().await),
            }
        }
    }

    /// The application answered.
    pub(crate) fn answered(&self) {
        self.become_(State::Up);
    }

    /// The application could not be reached.
    pub(crate) fn unreachable(&self) {
        self.become_(State::Down);
    }

    /// Watches the application until `stop`: while it is down, `probe` is asked every `interval`.
    pub(crate) async fn watch<F>(
        &self,
        throttle: Throttle,
        interval: Duration,
        probe: impl Fn() -> F,
        stop: CancellationToken,
    ) where
        F: Future<Output = bool>,
    {
        throttle.app_down();
        let name = throttle.worker().name().to_owned();
        // Set once: a worker has one watcher.
        let _ = self.throttle.set(throttle);
        let watch = async {
            let mut state = self.state.subscribe();
            loop {
                if state.wait_for(|state| *state == State::Down).await.is_err() {
                    return;
                }
                tracing::warn!(worker = name, "the application cannot be reached: nothing is fetched until it can");
                while !probe().await {
                    sleep(interval).await;
                }
                tracing::info!(worker = name, "the application can be reached");
                self.become_(State::TryingOut);
            }
        };
        let _ = stop.run_until_cancelled(watch).await;
    }

    fn become_(&self, state: State) {
        let changed = self.state.send_if_modified(|now| {
            // A message that was on its way while the application went down says nothing about now.
            let allowed = !matches!((*now, state), (State::Down, State::Up));
            let changed = allowed && *now != state;
            if changed {
                *now = state;
            }
            changed
        });
        if let (true, Some(throttle)) = (changed, self.throttle.get()) {
            match state {
                State::Down => throttle.app_down(),
                State::TryingOut => throttle.app_trying(),
                State::Up => throttle.app_up(),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn one_message_at_a_time_tries_an_application_out() {
        let app = App::new();
        let waits = |wait: Duration| tokio::time::timeout(wait, app.turn());
        assert!(waits(Duration::from_secs(60)).await.is_err(), "it has not answered yet");
        app.become_(State::TryingOut);
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
}
