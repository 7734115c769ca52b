//! [`Reply`] and [`Pending`]: the two ends of the channel for the outcome of a command.

use tokio::sync::oneshot;

use crate::broker::{Appended, BrokerError};

/// The result of a command, and where it appended messages.
type Outcome = Result<Appended, BrokerError>;

/// The committer's end. Dropped without an outcome, it answers whether the change may have been made.
#[derive(Debug)]
pub(crate) struct Reply {
    /// Taken when the outcome is sent.
    to: Option<oneshot::Sender<Outcome>>,
    /// Whether the store may have been asked to make the change.
    is_begun: bool,
}

/// The caller's end. Dropping it does not withdraw the command.
#[derive(Debug)]
pub(crate) struct Pending(oneshot::Receiver<Outcome>);

/// Creates both ends for one command.
pub(crate) fn channel() -> (Reply, Pending) {
    let (to, from) = oneshot::channel();
    (Reply { to: Some(to), is_begun: false }, Pending(from))
}

impl Reply {
    /// Notes that the change is about to be made. If the committer is stopped from here on, the outcome is unknown: the store may
    /// go on with a commit after its caller is gone.
    pub(crate) fn begin(&mut self) {
        self.is_begun = true;
    }

    /// Sends the outcome. The caller may be gone.
    pub(crate) fn send(mut self, outcome: Outcome) {
        if let Some(to) = self.to.take() {
            let _ = to.send(outcome);
        }
    }
}

impl Drop for Reply {
    fn drop(&mut self) {
        let Some(to) = self.to.take() else { return };
        let _ = to.send(Err(match self.is_begun {
            true => stopped(),
            // A cluster makes the call at another server then, so this must not be said of a change that may have been made.
            false => BrokerError::Closed,
        }));
    }
}

impl Pending {
    /// How the command went.
    pub(crate) async fn outcome(self) -> Result<(), BrokerError> {
        self.appended().await.map(drop)
    }

    /// How it went, and where it appended messages.
    pub(crate) async fn appended(self) -> Outcome {
        self.0.await.unwrap_or_else(|_| Err(stopped()))
    }
}

fn stopped() -> BrokerError {
    BrokerError::Unsure("the broker was stopped while it was being stored".into())
}
