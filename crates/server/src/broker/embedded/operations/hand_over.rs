//! Leases that pass from one owner of the messages to the next one, when the first one stops in order: their receipts stay valid, and
//! no failure is counted.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
};

use tokio::time::Instant;

use crate::{
    broker::embedded::{
        core::Core,
        state::{BrokerState, receipt::NewReceipts},
    },
    store::{LeaseSnapshot, ReadLimit, StoredMessage, StreamId},
};

/// The limits of one read.
const PAGE: ReadLimit = ReadLimit { messages: 500, bytes: 4 * 1024 * 1024 };

/// The leased messages, by stream and sequence number.
type Found = HashMap<(StreamId, u64), Arc<StoredMessage>>;

impl BrokerState {
    /// The open leases, for the next owner.
    pub(crate) fn leases_to_keep(&self, now: Instant) -> Vec<LeaseSnapshot> {
        let all = self.cursors.iter().flat_map(|(number, cursor)| cursor.leases.values().map(|lease| (*number, lease)));
        // Nobody has the receipts of an operator's lease: its messages are available at once.
        all.filter(|(_, lease)| !lease.is_ending && !lease.is_operators)
            .map(|(cursor, lease)| LeaseSnapshot {
                project: lease.project.clone(),
                cursor,
                receipts: NewReceipts::text_of(lease.token, &lease.seals),
                seqs: lease.entries.iter().map(|entry| entry.message.seq).collect(),
                left: lease.deadline.saturating_duration_since(now),
            })
            .collect()
    }

    /// Leases the messages again, with the same receipts. Returns whether that was possible.
    fn resume(&mut self, kept: &LeaseSnapshot, found: &Found, now: Instant) -> bool {
        let Some(receipts) = NewReceipts::parse(&kept.receipts) else { return false };
        let Some(cursor) = self.cursors.get_mut(&kept.cursor) else { return false };
        let Some(stream) = self.streams.get(&cursor.stream) else { return false };
        let messages: Option<Vec<_>> = kept.seqs.iter().map(|seq| found.get(&(cursor.stream, *seq))).collect();
        let Some(messages) = messages else { return false };
        // A receipt names its message by the position in the batch, so a batch is resumed as a whole or not at all.
        if messages.is_empty() || !messages.iter().all(|message| cursor.can_take(stream, message.seq)) {
            return false;
        }
        let taken = messages.into_iter().filter_map(|message| cursor.take_one(stream, message).ok());
        let (entries, skipped): (Vec<_>, Vec<_>) = taken.unzip();
        let skipped = skipped.into_iter().flatten().collect();
        self.lease((&kept.project, kept.cursor), &receipts, entries, skipped, (None, now + kept.left));
        true
    }
}

/// Takes over the leases of the owner before. A lease that cannot be resumed has ended: its messages are available.
pub(crate) async fn resume(core: &Core, mut kept: Vec<LeaseSnapshot>) {
    if kept.is_empty() {
        return;
    }
    let found = read(core, &kept).await;
    let (mut state, now) = (core.lock(), Instant::now());
    // In the order of the messages, so that none is passed by before it is leased.
    kept.sort_by_key(|lease| (lease.cursor, lease.seqs.iter().min().copied()));
    let resumed = kept.iter().filter(|lease| state.resume(lease, &found, now)).count();
    drop(state);
    core.heartbeat.notify_one();
    core.timer.notify_one();
    tracing::info!(
        resumed,
        lost = kept.len() - resumed,
        "the leases of the server that owned the messages before go on here"
    );
}

async fn read(core: &Core, kept: &[LeaseSnapshot]) -> Found {
    let mut wanted = BTreeMap::<StreamId, BTreeSet<u64>>::new();
    {
        let state = core.lock();
        for lease in kept {
            if let Some(cursor) = state.cursors.get(&lease.cursor) {
                wanted.entry(cursor.stream).or_default().extend(&lease.seqs);
            }
        }
    }
    let mut found = Found::new();
    for (stream, seqs) in wanted {
        let mut left: Vec<u64> = seqs.into_iter().collect();
        while !left.is_empty() {
            let page: Vec<u64> = left.iter().copied().take(PAGE.messages).collect();
            let asked = page.clone();
            let read = match core.read_store(move |store| store.read_these(stream, &asked, PAGE.bytes)).await {
                Ok(read) => read,
                Err(error) => {
                    tracing::warn!(%error, "the leases of the server that owned the messages before cannot be resumed");
                    return found;
                }
            };
            // The read may have ended early because of the bytes.
            let until = read.until.max(page[0] + 1);
            left.drain(..page.partition_point(|seq| *seq < until));
            found.extend(read.messages.into_iter().map(|message| ((stream, message.seq), message)));
        }
    }
    found
}
