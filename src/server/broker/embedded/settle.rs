//! Acknowledgements: every token checked before anything is settled, then each batch judged by its own order
//! (API reference 5.3.3, 5.3.5).

use std::collections::BTreeMap;

use tokio::time::Instant;

use super::{
    core::Core,
    handle::Handle,
    lease::{Ending, Lease},
    state::State,
    work::Work,
};
use crate::server::{
    broker::{Ack, BrokerError, GroupPath, Settled, Stream},
    store::ReaderNo,
};

/// What an acknowledgement says of the messages of each batch: `None` where it does not mention one.
type Verdicts = BTreeMap<u64, Vec<Option<bool>>>;

/// A batch, with its reader and its number.
type Named<'a> = (ReaderNo, u64, &'a Lease);

/// Settles what the acknowledgements say; with a bad token among them, nothing.
pub(super) async fn settle(
    core: &Core,
    path: &GroupPath,
    stream: Stream,
    acks: &[Ack],
) -> Result<Settled, BrokerError> {
    let (settled, pending) = {
        let mut state = core.open()?;
        let (_, reader) = state.reader_of(path, stream, &core.at())?;
        let verdicts = state.verdicts(reader, acks)?;
        let (settled, endings) = state.begin_ending(reader, &verdicts);
        if endings.is_empty() {
            return Ok(settled);
        }
        (settled, core.submit(Work::End(endings)))
    };
    pending.outcome().await?;
    Ok(settled)
}

impl State {
    /// Reads the tokens. One batch may be named by several, and a token may come twice: a failure wins.
    fn verdicts(&self, number: ReaderNo, acks: &[Ack]) -> Result<Verdicts, BrokerError> {
        let now = Instant::now();
        let mut verdicts = Verdicts::new();
        // Nearly always all of them name one batch.
        let mut last = None;
        for ack in acks {
            let handle = Handle::decode(&ack.handle).ok_or(BrokerError::UnknownHandle)?;
            let named = last.filter(|(.., batch): &Named<'_>| batch.token == handle.batch);
            let (reader, lease, batch) = named.or_else(|| self.named(&handle)).ok_or(BrokerError::UnknownHandle)?;
            last = Some((reader, lease, batch));
            if !batch.holds(&handle) {
                return Err(BrokerError::UnknownHandle);
            }
            if reader != number {
                return Err(BrokerError::ForeignHandle);
            }
            if !batch.is_open(now) {
                return Err(BrokerError::UnknownHandle);
            }
            let said = verdicts.entry(lease).or_insert_with(|| vec![None; batch.entries.len()]);
            let said = &mut said[usize::from(handle.position)];
            *said = Some(ack.success && said.unwrap_or(true));
        }
        Ok(verdicts)
    }

    /// The batch that a token names.
    fn named(&self, handle: &Handle) -> Option<Named<'_>> {
        let (reader, lease) = *self.tokens.get(&handle.batch)?;
        Some((reader, lease, self.readers.get(&reader)?.leases.get(&lease)?))
    }

    /// Marks the batches as settling, and says how each ends: all before the first message that is not a success are
    /// done.
    fn begin_ending(&mut self, number: ReaderNo, verdicts: &Verdicts) -> (Settled, Vec<(ReaderNo, u64, Ending)>) {
        let mut settled = Settled::default();
        let mut endings = Vec::with_capacity(verdicts.len());
        for (lease, said) in verdicts {
            let done = said.iter().take_while(|said| **said == Some(true)).count();
            let ending = Ending::Acknowledged { done };
            let reader = self.readers.get_mut(&number);
            let Some(batch) = reader.and_then(|reader| reader.leases.get_mut(lease)) else { continue };
            batch.settling = true;
            let counted = batch.count(ending);
            settled.success += counted.success;
            settled.fail += counted.fail;
            endings.push((number, *lease, ending));
        }
        (settled, endings)
    }
}
