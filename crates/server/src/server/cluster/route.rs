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

/// The maximum wait for an owner of the shard.
const OWNER_WAIT: Duration = Duration::from_secs(10);
/// The pause before the same owner is asked again.
const AGAIN: Duration = Duration::from_millis(25);
/// How long another server may take for a call, beyond the time that the call itself may wait.
const ANSWER: Duration = Duration::from_secs(30);

/// The outcome of one attempt of a call.
enum CallAttempt {
    Replied(Result<Reply, BrokerError>),
    /// The call was not made, or may be made again.
    Again,
}

impl Shared {
    /// Makes a call at the owner of a shard.
    ///
    /// # Errors
    /// The errors of the broker there. [`BrokerError::Standby`] if no server owns the shard within `OWNER_WAIT`, and
    /// [`BrokerError::Store`] if it is unknown whether the call was made.
    ///
    /// # Cancel safety
    /// As for [`Broker`](crate::broker::Broker).
    pub(super) async fn call(self: &Arc<Self>, shard: i32, call: Call) -> Result<Reply, BrokerError> {
        let began = Instant::now();
        let mut deadline = began + OWNER_WAIT;
        let mut changes = self.seats.changes();
        loop {
            // Before the seat is looked up, so that a change in between wakes this call.
            changes.mark_unchanged();
            let seat = self.seats.of(shard);
            let Some(call) = remaining(&call, began.elapsed()) else { return Ok(Reply::Leased(Vec::new())) };
            let (attempt, may_wait) = match &seat {
                Seat::Local(broker) => (locally(call.make(broker).await), true),
                Seat::Remote { address, epoch: _ } => {
                    (self.remotely(address, shard, call, &seat, &mut changes).await, true)
                }
                Seat::Nobody(_) => (CallAttempt::Again, self.is_reachable),
            };
            match attempt {
                // A poll that ended because its shard moved goes on at the next owner.
                CallAttempt::Replied(Ok(Reply::Leased(messages)))
                    if messages.is_empty() && !self.stop.is_cancelled() && self.seats.of(shard).differs(&seat) =>
                {
                    deadline = deadline.max(Instant::now() + OWNER_WAIT);
                    continue;
                }
                CallAttempt::Replied(reply) => return reply,
                CallAttempt::Again => {}
            }
            if self.stop.is_cancelled() {
                return Err(BrokerError::Closed);
            }
            if !may_wait || Instant::now() >= deadline {
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
        call: Call,
        seat: &Seat,
        changes: &mut watch::Receiver<u64>,
    ) -> CallAttempt {
        let (limit, is_repeatable) = (ANSWER + waits(&call), call.is_repeatable());
        let asked = tokio::select! {
            asked = self.hop.call(address, shard, call) => asked,
            // A server that has lost the shard may never answer.
            () = self.moved(shard, seat, changes) => Err(HopError::Broken),
            () = sleep(limit) => Err(HopError::Broken),
        };
        match asked {
            Ok(reply) => CallAttempt::Replied(Ok(reply)),
            Err(HopError::Moved) => CallAttempt::Again,
            Err(HopError::NotSent(error)) => {
                tracing::debug!(error, %address, shard, "the server that owns a shard cannot be reached; it is tried again");
                CallAttempt::Again
            }
            Err(HopError::Broken) if is_repeatable => CallAttempt::Again,
            Err(HopError::Broken) => CallAttempt::Replied(Err(unsure(address))),
            Err(HopError::Refused(error)) => CallAttempt::Replied(Err(error)),
        }
    }

    async fn moved(&self, shard: i32, seat: &Seat, changes: &mut watch::Receiver<u64>) {
        while !self.seats.of(shard).differs(seat) {
            // The sender is in `self`.
            let _ = changes.changed().await;
        }
    }
}

fn locally(made: Result<Reply, BrokerError>) -> CallAttempt {
    match made {
        // Refused before anything was done, because the shard is given up.
        Err(BrokerError::Closed | BrokerError::Unavailable | BrokerError::Standby(_)) => CallAttempt::Again,
        made => CallAttempt::Replied(made),
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
        if elapsed >= request.wait && !request.wait.is_zero() {
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
