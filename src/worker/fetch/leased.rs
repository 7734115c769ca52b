//! [`LeasedBatch`]: consumed messages, and the time that is left to acknowledge them.

use tokio::time::Instant;

use crate::{
    client::{Client, ConsumeOptions, Consumed, Error},
    message::ReceivedMessage,
    queue::SourcePath,
    worker::settlement::lease::{Lease, LeaseBegin, MIN_MARGIN},
};

/// A batch for a consumer without a worker, which sends the acknowledgement itself.
#[derive(Debug)]
pub struct LeasedBatch {
    /// The messages in the order of consumption.
    pub messages: Vec<ReceivedMessage>,
    /// Until when they may be worked on, so that the acknowledgement arrives in time.
    pub due: Instant,
    /// Until when the acknowledgement is worth retrying.
    pub ends: Instant,
}

/// Consumes a batch as a worker does: its lease counts from the earliest moment at which the service can have handed it
/// out, and not from the start of a long poll.
///
/// # Errors
/// As [`Client::consume`].
pub async fn consume_leased(
    client: &Client,
    source: &SourcePath,
    options: &ConsumeOptions,
) -> Result<LeasedBatch, Error> {
    let Consumed { messages, sent, waited } = client.consume_batch(source, options, None, None).await?;
    // No acknowledgement was measured yet. Half of this margin is for retries of one that fails.
    let lease = Lease::new(LeaseBegin { sent, waited }, Instant::now(), options.ack_wait, MIN_MARGIN);
    Ok(LeasedBatch { messages, due: lease.stop_at(), ends: lease.ends_at() })
}
