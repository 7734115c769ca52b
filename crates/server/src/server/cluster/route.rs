//! A call on its way to the owner of its shard.
//!
//! While a shard moves, a call waits for the next owner. A call that was sent to another server whose answer is missing is made
//! again only if that does no harm.

use std::{sync::Arc, time::Duration};

use tokio::{
    sync::watch,
    time::{Instant, sleep, timeout_at},
};

use super::{
    Shared,
    call::{Call, Reply},
    hop::client::HopError,
    seats::Seat,
};
use crate::broker::{AlreadyLogged, BrokerError};

/// How long a call waits for a shard that nobody serves.
const PATIENCE: Duration = Duration::from_secs(10);
/// The pause before the same owner is asked again.
const AGAIN: Duration = Duration::from_millis(25);
/// How long another server may take for a call, beyond the time that the call itself may wait.
const ANSWER: Duration = Duration::from_secs(30);

/// What came of one try.
enum Tried {
    Replied(Result<Reply, BrokerError>),
    /// The call was not made, or may be made again.
    Again,
}

impl Shared {
    /// Makes a call at the owner of a shard.
    ///
    /// # Errors
    /// Those of the broker there; that nobody serves the shard for too long; that it is not known whether the call was made.
    ///
    /// # Cancel safety
    /// That of [`Broker`](crate::broker::Broker).
    pub(super) async fn call(self: &Arc<Self>, shard: i32, call: Call) -> Result<Reply, BrokerError> {
        let began = Instant::now();
        let mut deadline = began + PATIENCE;
        let mut changes = self.seats.changes();
        loop {
            changes.mark_unchanged();
            let seat = self.seats.of(shard);
            let Some(call) = remaining(&call, began.elapsed()) else { return Ok(Reply::Leased(Vec::new())) };
            let (tried, patient) = match &seat {
                Seat::Local(broker) => (locally(call.clone().make(broker).await), true),
                Seat::Remote { address, epoch: _ } => {
                    (self.remotely(address, shard, &call, &seat, &mut changes).await, true)
                }
                Seat::Nobody(_) => (Tried::Again, self.is_reachable),
            };
            match tried {
                // A poll that ended because its shard moved goes on at the next owner.
                Tried::Replied(Ok(Reply::Leased(messages)))
                    if messages.is_empty() && !self.stop.is_cancelled() && self.seats.of(shard).differs(&seat) =>
                {
                    deadline = deadline.max(Instant::now() + PATIENCE);
                    continue;
                }
                Tried::Replied(reply) => return reply,
                Tried::Again => {}
            }
            if self.stop.is_cancelled() {
                return Err(BrokerError::Closed);
            }
            if !patient || Instant::now() >= deadline {
                return Err(match seat {
                    Seat::Nobody(why) => BrokerError::Standby(why.to_string()),
                    _ => BrokerError::Unavailable,
                });
            }
            if self.seats.of(shard).differs(&seat) {
                continue;
            }
            tokio::select! {
                _ = timeout_at(deadline, changes.changed()) => {}
                () = sleep(AGAIN), if !matches!(seat, Seat::Nobody(_)) => {}
                () = self.stop.cancelled() => {}
            }
        }
    }

    async fn remotely(
        &self,
        address: &Arc<str>,
        shard: i32,
        call: &Call,
        seat: &Seat,
        changes: &mut watch::Receiver<u64>,
    ) -> Tried {
        let limit = ANSWER + waits(call);
        let asked = tokio::select! {
            asked = self.hop.call(address, shard, call.clone()) => asked,
            // An owner that was taken over from may never answer.
            () = self.moved(shard, seat, changes) => Err(HopError::Broken),
            () = sleep(limit) => Err(HopError::Broken),
        };
        match asked {
            Ok(reply) => Tried::Replied(Ok(reply)),
            Err(HopError::Moved) => Tried::Again,
            Err(HopError::NotSent(error)) => {
                tracing::debug!(error, %address, shard, "the server that owns a shard cannot be reached; it is tried again");
                Tried::Again
            }
            Err(HopError::Broken) if call.is_repeatable() => Tried::Again,
            Err(HopError::Broken) => Tried::Replied(Err(unsure(address))),
            Err(HopError::Refused(error)) => Tried::Replied(Err(error)),
        }
    }

    async fn moved(&self, shard: i32, seat: &Seat, changes: &mut watch::Receiver<u64>) {
        while !self.seats.of(shard).differs(seat) {
            // The sender is in `self`.
            let _ = changes.changed().await;
        }
    }
}

fn locally(made: Result<Reply, BrokerError>) -> Tried {
    match made {
        // Refused before anything was done, because the shard is given up.
        Err(BrokerError::Closed | BrokerError::Unavailable | BrokerError::Standby(_)) => Tried::Again,
        made => Tried::Replied(made),
    }
}

/// How long a call itself may wait.
fn waits(call: &Call) -> Duration {
    match call {
        Call::Lease { request, .. } => request.wait,
        _ => Duration::ZERO,
    }
}

/// The call with the rest of its time. `None` where that is over, and the call was made once.
fn remaining(call: &Call, elapsed: Duration) -> Option<Call> {
    let mut call = call.clone();
    if let Call::Lease { request, .. } = &mut call {
        if !elapsed.is_zero() && elapsed >= request.wait && !request.wait.is_zero() {
            return None;
        }
        request.wait = request.wait.saturating_sub(elapsed);
    }
    Some(call)
}

fn unsure(address: &str) -> BrokerError {
    let reason = format!("the server at {address} that owned the queue did not answer: the change may have been made");
    tracing::warn!(reason, "a call to another server was answered with an error");
    BrokerError::Store(Arc::new(AlreadyLogged(Arc::from(Box::from(reason)))))
}
