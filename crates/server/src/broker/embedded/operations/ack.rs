//! Acknowledgements: every receipt is checked before anything is settled, then each batch is settled in its own order (API reference
//! 5.3.3, 5.3.5).

use std::collections::BTreeMap;

use tokio::time::Instant;

use crate::{
    broker::{
        Ack, AckCounts, AckStatus, BrokerError, GroupPath, Stream,
        embedded::{
            command::Command,
            core::Core,
            state::{
                BrokerState,
                lease::{Lease, LeaseEnd, StopReason},
                receipt::Receipt,
            },
        },
    },
    store::CursorId,
};
use dms_protocol::internal::json::quoted;

/// The status of each message of each batch; `None` for a message that is not mentioned.
type BatchStatuses = BTreeMap<u64, Vec<Option<AckStatus>>>;

/// A lease with its cursor and its number.
type NamedLease<'a> = (CursorId, u64, &'a Lease);

/// Acknowledges messages. One bad receipt refuses the whole call, and nothing is settled.
pub(crate) async fn ack(
    core: &Core,
    path: &GroupPath,
    stream: Stream,
    acks: Vec<Ack>,
) -> Result<AckCounts, BrokerError> {
    let (settled, pending) = {
        let mut state = core.open()?;
        let (_, cursor) = state.cursor_of(path, stream)?;
        // Before deadlines are compared: after a pause of the process they are extended first.
        state.notice_pause();
        let statuses = state.statuses(cursor, stream, acks)?;
        let (settled, endings) = state.begin_ends(cursor, statuses);
        if endings.is_empty() {
            return Ok(settled);
        }
        (settled, core.submit(Command::EndLeases(endings)))
    };
    pending.outcome().await?;
    Ok(settled)
}

impl BrokerState {
    /// Reads the receipts. Several may belong to one batch. If one occurs twice, a failure takes precedence.
    fn statuses(&self, number: CursorId, stream: Stream, acks: Vec<Ack>) -> Result<BatchStatuses, BrokerError> {
        let now = Instant::now();
        let mut statuses = BatchStatuses::new();
        // Nearly always all receipts belong to one batch, so the last lease is remembered.
        let mut last = None;
        for (line, ack) in acks.into_iter().enumerate() {
            let unknown = |reason| BrokerError::UnknownReceipt(about(line, &ack.receipt, reason));
            let receipt = Receipt::decode(ack.receipt.as_bytes()).ok_or_else(|| unknown("cannot be read"))?;
            let named = last.filter(|(.., batch): &NamedLease<'_>| batch.token == receipt.batch);
            let named = named.or_else(|| self.named(&receipt));
            let (cursor, lease, batch) = named.ok_or_else(|| unknown("names no open lease"))?;
            last = Some((cursor, lease, batch));
            if !batch.holds(&receipt) {
                return Err(unknown("names no open lease"));
            }
            // Checked before anything is settled: a receipt of another group must not settle messages of that group.
            if cursor != number {
                return Err(BrokerError::ForeignReceipt(about(line, &ack.receipt, "was given to another consumer")));
            }
            if !batch.is_open(now) {
                return Err(unknown("names a lease that is over, or was acknowledged before"));
            }
            let said = statuses.entry(lease).or_insert_with(|| vec![None; batch.entries.len()]);
            let said = &mut said[usize::from(receipt.position)];
            if matches!(ack.status, AckStatus::Reject(_))
                && let Some(reason) = self.not_rejectable(number, stream)
            {
                return Err(BrokerError::NotRejectable(reason.into()));
            }
            *said = Some(match said.take() {
                None => ack.status,
                Some(earlier) => earlier.or(ack.status),
            });
        }
        Ok(statuses)
    }

    /// The lease that a receipt belongs to.
    fn named(&self, receipt: &Receipt) -> Option<NamedLease<'_>> {
        let (cursor, lease) = *self.tokens.get(&receipt.batch)?;
        Some((cursor, lease, self.cursors.get(&cursor)?.leases.get(&lease)?))
    }

    /// Why messages of a cursor cannot be rejected; `None` if they can.
    fn not_rejectable(&self, cursor: CursorId, stream: Stream) -> Option<&'static str> {
        match stream {
            Stream::DeadLetters => Some(
                "A dead letter cannot be rejected: it is one already. Acknowledge it with success to delete it, or with fail.",
            ),
            Stream::Messages if self.cursors.get(&cursor).is_some_and(|cursor| cursor.dead.is_some()) => None,
            Stream::Messages => Some(
                "A message of a queue without dead letters cannot be rejected. Create the queue with redrive_policy enable \
                 and max_consume_count, or acknowledge the message with success or fail.",
            ),
        }
    }

    /// Marks the leases as ending and decides how each of them ends: the messages before the first one that is neither successful
    /// nor rejected are settled.
    fn begin_ends(&mut self, number: CursorId, statuses: BatchStatuses) -> (AckCounts, Vec<(CursorId, u64, LeaseEnd)>) {
        let mut counts = AckCounts::default();
        let mut endings = Vec::with_capacity(statuses.len());
        for (lease, said) in statuses {
            let ending = ending(said);
            let cursor = self.cursors.get_mut(&number);
            let Some(batch) = cursor.and_then(|cursor| cursor.leases.get_mut(&lease)) else { continue };
            // Under the same lock in which the receipts were checked, so that neither another acknowledgement nor the timer ends
            // the lease too.
            batch.is_ending = true;
            let counted = batch.count(&ending);
            counts.success += counted.success;
            counts.fail += counted.fail;
            endings.push((number, lease, ending));
        }
        (counts, endings)
    }
}

/// The error text about the receipt of a line.
fn about(line: usize, receipt: &str, reason: &str) -> String {
    format!("message[{line}].handler {} {reason}.", quoted(receipt))
}

/// How a lease ends, given the statuses in the order of its messages.
fn ending(said: Vec<Option<AckStatus>>) -> LeaseEnd {
    let settled = said.iter().take_while(|said| said.as_ref().is_some_and(AckStatus::settles)).count();
    let (mut rejected, mut stop) = (Vec::new(), StopReason::Failed(None));
    for (position, said) in said.into_iter().enumerate().take(settled + 1) {
        match said {
            Some(AckStatus::Reject(cause)) => rejected.push((position, cause)),
            Some(AckStatus::Fail(cause)) => stop = StopReason::Failed(cause),
            Some(AckStatus::Release) => stop = StopReason::Released,
            Some(AckStatus::Success) | None => {}
        }
    }
    LeaseEnd::Acknowledged { settled, rejected, stop }
}
