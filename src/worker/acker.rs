//! The one acknowledgement of a batch: in the order of consumption, up to the first message that is not done.

use std::time::Duration;

use tokio::time::{Instant, timeout_at};

use super::{
    Shared,
    event::{AckResult, Event},
    lease::Lease,
    ledger::Settlement,
};
use crate::{
    client::{AckOutcome, Error},
    message::{AckHandle, AckStatus},
};

/// What is kept of a lease for the acknowledgement itself.
const SEND_TIME: Duration = Duration::from_millis(100);

/// Acknowledges a batch, and tells what came of it.
///
/// It is tried again only while the lease lives. A failing one first waits until no other poll can catch what becomes
/// available again together with other messages; see [`isolation`](super::isolation).
///
/// Says whether the service answered.
pub(crate) async fn settle(shared: &Shared, handles: &[AckHandle], settlement: Settlement, lease: Lease) -> bool {
    let _pending = shared.acks.begin();
    let Settlement { done, rest } = settlement;
    let closed = match rest {
        0 => None,
        // Out of time, a prefix that is acknowledged is worth more than the isolation.
        _ => timeout_at(lease.ends_at() - SEND_TIME, shared.isolation.close()).await.ok(),
    };
    let acks: Vec<(AckHandle, AckStatus)> = handles
        .iter()
        .take(done + 1)
        .enumerate()
        .map(|(position, handle)| (handle.clone(), if position < done { AckStatus::Success } else { AckStatus::Fail }))
        .collect();
    let sent = Instant::now();
    let answer = shared.source.acknowledge(&acks, lease.ends_at()).await;
    shared.ack_times.record(sent.elapsed());
    if answer.is_ok() && rest > 0 {
        shared.isolation.suspect(rest);
    }
    drop(closed);
    let result = classify(&answer);
    log(shared, result, settlement);
    shared.observers.tell(&Event::Settled { result, done, rest });
    answer.is_ok()
}

fn classify(answer: &Result<AckOutcome, Error>) -> AckResult<'_> {
    match answer {
        Ok(AckOutcome { success, fail, .. }) => AckResult::Answered { success: *success, fail: *fail },
        Err(error) if error.is_unsure() => AckResult::Unknown,
        Err(error) if error.is_lost_lease() => AckResult::Late,
        Err(error) => AckResult::Refused(error),
    }
}

fn log(shared: &Shared, result: AckResult<'_>, Settlement { done, rest }: Settlement) {
    let worker = shared.settings.name.as_str();
    match result {
        AckResult::Answered { success, .. } if success < done => tracing::warn!(
            worker,
            done,
            success,
            "the service settled fewer messages than were done: the others will be redelivered"
        ),
        AckResult::Answered { success, fail } => tracing::debug!(worker, success, fail, "acknowledged"),
        AckResult::Late => {
            tracing::warn!(worker, done, rest, "the acknowledgement came too late: the batch will be redelivered");
        }
        AckResult::Unknown => tracing::warn!(
            worker,
            done,
            rest,
            "the answer to the acknowledgement was lost: the batch may be redelivered"
        ),
        AckResult::Refused(error) => {
            tracing::warn!(worker, done, rest, %error, "the acknowledgement was refused: the batch will be redelivered");
        }
    }
}
