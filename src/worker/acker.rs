//! The one acknowledgement of a batch: in the order of consumption, up to the first message that is not done.

use std::{sync::Arc, time::Duration};

use tokio::time::{Instant, timeout_at};
use tracing::Instrument;

use super::{
    delivery::Deliveries,
    event::{AckResult, Event, MessageAck},
    lease::Lease,
    ledger::Settlement,
    redelivery::Redelivery,
    shared::Shared,
    spans,
    suspects::Trace,
};
use crate::{
    client::{AckOutcome, Acked, Error},
    message::{AckLine, AckStatus},
};

/// What is kept of a lease for the acknowledgement itself.
const SEND_TIME: Duration = Duration::from_millis(100);

/// For so many leases what failed may be with other replicas, one after the other, before it comes back here.
const OTHERS_LEASES: u32 = 2;

/// Acknowledges a batch, and tells what came of it.
///
/// It is tried again only while the lease lives. A failing one first waits until no other poll can catch what becomes
/// available again together with other messages; see [`isolation`](super::isolation).
///
/// Says how many messages are gone for good: the others come again, or may.
pub(crate) async fn settle(shared: &Shared, batch: &Arc<Deliveries>, settlement: Settlement, lease: Lease) -> usize {
    let _pending = shared.acks.begin();
    let Settlement { done, rest } = settlement;
    let closed = match rest {
        0 => None,
        // Out of time, a prefix that is acknowledged is worth more than the isolation.
        _ => timeout_at(lease.ends_at() - SEND_TIME, shared.isolation.close()).await.ok(),
    };
    let status = |position| if position < done { AckStatus::Success } else { AckStatus::Fail };
    let named = batch.messages().iter().take(done + 1).enumerate();
    let acks: Vec<_> = named.map(|(position, message)| AckLine::new(&message.handle, status(position))).collect();
    let span = spans::ack(&shared.origin, acks.len());
    let answer = shared.source.acknowledge(&acks, lease.ends_at()).instrument(span.clone()).await;
    // Without the tries before: an outage must not look like a slow network for hours after it.
    if let Ok(Acked { took, .. }) = answer {
        shared.ack_times.record(took);
    }
    if answer.is_ok() && rest > 0 {
        let failed: Vec<Trace> = batch.messages().iter().skip(done).map(Trace::of).collect();
        shared.isolation.suspect(&failed, Instant::now() + shared.ack_wait() * OTHERS_LEASES);
    }
    drop(closed);
    let result = classify(&answer);
    spans::acked(&span, &result);
    log(shared, result, settlement);
    let mut gone = 0;
    batch.each_from(0, |position, delivery| {
        let ack = MessageAck::of(&result, position, done);
        if let Some(reason) = comes_again(&result, ack) {
            shared.expect(delivery, reason);
        }
        gone += usize::from(ack == MessageAck::Acked);
        shared.tell(&Event::Acknowledged { delivery, result: ack });
    });
    shared.tell(&Event::Settled { result, done, rest });
    gone
}

/// Why a message comes again whose acknowledgement ended so; those that were [returned](MessageAck::Returned) have a reason of their own.
fn comes_again(result: &AckResult<'_>, ack: MessageAck) -> Option<Redelivery> {
    match (ack, result) {
        (MessageAck::Acked | MessageAck::Returned, _) => None,
        (MessageAck::Late, AckResult::Refused(_)) => Some(Redelivery::LeaseLapsed),
        (MessageAck::Late, _) => Some(Redelivery::LateAck),
        (MessageAck::Unknown, _) => Some(Redelivery::LostAck),
        (MessageAck::Rejected, _) => Some(Redelivery::RejectedAck),
    }
}

fn classify(answer: &Result<Acked, Error>) -> AckResult<'_> {
    match answer {
        Ok(Acked { outcome: AckOutcome { success, fail, .. }, .. }) => {
            AckResult::Answered { success: *success, fail: *fail }
        }
        Err(error) if error.is_unsure() => AckResult::Unknown,
        Err(error) if error.is_lost_lease() => AckResult::Late,
        Err(error) => AckResult::Refused(error),
    }
}

fn log(shared: &Shared, result: AckResult<'_>, Settlement { done, rest }: Settlement) {
    let worker = shared.settings.name.as_str();
    if rest > 0 && shared.control.interrupt.is_cancelled() {
        tracing::info!(worker, rest, "the grace period is over: these messages come again, to another worker");
    }
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
