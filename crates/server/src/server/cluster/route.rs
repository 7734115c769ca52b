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
use crate::broker::BrokerError;

/// The maximum wait for an owner of the shard.
const OWNER_WAIT: Duration = Duration::from_secs(10);
/// The pause before the same owner is asked again.
const AGAIN: Duration = Duration::from_millis(25);
/// How long another server may take for a call, beyond the time that the call itself may wait.
const ANSWER: Duration = Duration::from_secs(30);

impl Shared {
    /// Makes a call at the owner of a shard.
    ///
    /// # Errors
    /// The errors of the broker there. [`BrokerError::Standby`] if no server owns the shard within `OWNER_WAIT`, and
    /// [`BrokerError::Unsure`] if it is unknown whether the call was made, and making it twice would do harm.
    ///
    /// # Cancel safety
    /// As for [`Broker`](crate::broker::Broker).
    pub(super) async fn call(self: &Arc<Self>, shard: i32, call: Call) -> Result<Reply, BrokerError> {
        let (began, is_repeatable) = (Instant::now(), call.is_repeatable());
        let mut deadline = began + OWNER_WAIT;
        let mut changes = self.seats.changes();
        loop {
            // Before the seat is looked up, so that a change in between wakes this call.
            changes.mark_unchanged();
            let seat = self.seats.of(shard);
            let Some(call) = remaining(&call, began.elapsed()) else { return Ok(Reply::Leased(Vec::new())) };
            let (made, may_wait) = match &seat {
                Seat::Local(broker) => (call.make(broker).await, true),
                Seat::Remote { address, epoch: _ } => {
                    (self.remotely(address, shard, call, &seat, &mut changes).await, true)
                }
                Seat::Nobody(_) => (Err(BrokerError::Unavailable), self.is_reachable),
            };
            match made {
                // A poll that ended because its shard moved goes on at the next owner.
                Ok(Reply::Leased(messages))
                    if messages.is_empty() && !self.stop.is_cancelled() && self.seats.of(shard).differs(&seat) =>
                {
                    deadline = deadline.max(Instant::now() + OWNER_WAIT);
                    continue;
                }
                Err(error) if may_be_made_again(&error, is_repeatable) => {}
                made => return made,
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

    /// # Errors
    /// [`BrokerError::Unavailable`] if nothing was done, and [`BrokerError::Unsure`] if the answer is missing.
    async fn remotely(
        &self,
        address: &Arc<str>,
        shard: i32,
        call: Call,
        seat: &Seat,
        changes: &mut watch::Receiver<u64>,
    ) -> Result<Reply, BrokerError> {
        let connected = tokio::select! {
            connected = self.hop.connect(address) => connected,
            // Nothing was sent, so the next owner is asked instead.
            () = self.moved(shard, seat, changes) => Err(HopError::Moved),
        };
        let asked = match connected {
            Ok(connection) => {
                let limit = ANSWER + waits(&call);
                tokio::select! {
                    asked = connection.call(shard, call) => asked,
                    // A server that has lost the shard may never answer.
                    () = self.moved(shard, seat, changes) => Err(HopError::Broken),
                    () = sleep(limit) => Err(HopError::Broken),
                }
            }
            Err(error) => Err(error),
        };
        asked.map_err(|error| match error {
            HopError::Moved => BrokerError::Unavailable,
            HopError::NotSent(error) => {
                tracing::debug!(error, %address, shard, "the server that owns a shard cannot be reached; it is tried again");
                BrokerError::Unavailable
            }
            HopError::Broken => {
                BrokerError::Unsure(format!("the server at {address}, which owned the queue, did not answer").into())
            }
            HopError::Refused(error) => error,
        })
    }

    async fn moved(&self, shard: i32, seat: &Seat, changes: &mut watch::Receiver<u64>) {
        while !self.seats.of(shard).differs(seat) {
            // The sender is in `self`.
            let _ = changes.changed().await;
        }
    }
}

/// Whether a call that ended with an error may be made at the next owner.
fn may_be_made_again(error: &BrokerError, is_repeatable: bool) -> bool {
    match error {
        // Refused before anything was done, because the shard is given up.
        BrokerError::Closed | BrokerError::Unavailable | BrokerError::Standby(_) => true,
        BrokerError::Unsure(_) => is_repeatable,
        _ => false,
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_that_may_have_been_made_is_not_made_again() {
        let unsure = || BrokerError::Unsure("it was stopped".into());
        assert!(!may_be_made_again(&unsure(), false), "it would be made twice");
        assert!(may_be_made_again(&unsure(), true), "it does no harm");
        assert!(may_be_made_again(&BrokerError::Closed, false), "nothing was done");
        assert!(!may_be_made_again(&BrokerError::QueueNotFound, true), "that is the reply");
    }
}
