//! The bytes of a journal row: everything of a commit except its messages. Pure.
//!
//! | bytes | content |
//! |---|---|
//! | 4 | CRC-32 of the rest, begun with the schema's own number and the number of the commit |
//! | | items, each with its kind (1), length (4) and content |
//!
//! An item is a record as JSON, as the log of a data directory has it; or where messages of a stream went, so that a replay of
//! the journal needs none of them; or one delayed message. Numbers are little-endian.

use std::borrow::Cow;

use bytes::{Buf, BufMut};

use crate::store::{Record, StreamId, run::four_bytes};

/// Bytes in front of the items.
const HEADER: usize = 4;

const RECORD: u8 = 0;
const APPENDED: u8 = 1;
const DELAYED: u8 = 2;

/// One change of a commit, without the messages themselves.
#[derive(Clone, Debug)]
pub(crate) enum Change<'a> {
    /// Messages entered the end of a stream.
    Appended(Appended),
    /// A message waits in a delay queue.
    Delayed {
        /// The delay queue.
        queue: StreamId,
        /// The message's place in it.
        seq: u64,
    },
    /// Anything except messages.
    Other(Cow<'a, Record>),
}

/// Messages that entered the end of a stream in one commit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Appended {
    /// The stream.
    pub(crate) stream: StreamId,
    /// The place of the first one.
    pub(crate) first: u64,
    /// How many there are.
    pub(crate) count: u32,
    /// When the last one entered.
    pub(crate) newest_ms: i64,
}

impl Appended {
    /// The place behind the last one.
    pub(crate) fn end(&self) -> u64 {
        self.first + u64::from(self.count)
    }
}

/// Bytes that are not a row of this journal.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("the bytes of a journal row do not match their checksum, or were written by a later version")]
pub(crate) struct BadRow;

/// Which row the bytes belong to: the schema's own number, and the number of the commit.
pub(crate) type RowKey = (u32, u64);

/// The bytes of a commit's row.
///
/// # Errors
/// When a record cannot be written as JSON.
pub(crate) fn encode(key: RowKey, changes: &[Change<'_>]) -> Result<Vec<u8>, serde_json::Error> {
    let mut bytes = vec![0; HEADER];
    for change in changes {
        match change {
            Change::Appended(Appended { stream, first, count, newest_ms }) => {
                bytes.put_u8(APPENDED);
                bytes.put_u32_le(24);
                bytes.put_u32_le(stream.0);
                bytes.put_u64_le(*first);
                bytes.put_u32_le(*count);
                bytes.put_i64_le(*newest_ms);
            }
            Change::Delayed { queue, seq } => {
                bytes.put_u8(DELAYED);
                bytes.put_u32_le(12);
                bytes.put_u32_le(queue.0);
                bytes.put_u64_le(*seq);
            }
            Change::Other(record) => {
                let json = serde_json::to_vec(record)?;
                bytes.put_u8(RECORD);
                bytes.put_u32_le(four_bytes(json.len()));
                bytes.put_slice(&json);
            }
        }
    }
    let sum = checksum(key, &bytes[HEADER..]).to_le_bytes();
    bytes[..HEADER].copy_from_slice(&sum);
    Ok(bytes)
}

/// Reads the bytes of a commit's row.
///
/// # Errors
/// When they are not what [`encode`] wrote for this row.
pub(crate) fn decode(key: RowKey, bytes: &[u8]) -> Result<Vec<Change<'static>>, BadRow> {
    let (mut sum, mut rest) = bytes.split_at_checked(HEADER).ok_or(BadRow)?;
    if sum.get_u32_le() != checksum(key, rest) {
        return Err(BadRow);
    }
    let mut changes = Vec::new();
    while !rest.is_empty() {
        changes.push(take(&mut rest).ok_or(BadRow)?);
    }
    Ok(changes)
}

/// Takes the first item off; `None` if it cannot be read.
fn take(bytes: &mut &[u8]) -> Option<Change<'static>> {
    let kind = bytes.try_get_u8().ok()?;
    let length = bytes.try_get_u32_le().ok()? as usize;
    let (mut content, rest) = bytes.split_at_checked(length)?;
    *bytes = rest;
    match kind {
        RECORD => serde_json::from_slice(content).ok().map(|record| Change::Other(Cow::Owned(record))),
        APPENDED if length == 24 => Some(Change::Appended(Appended {
            stream: StreamId(content.get_u32_le()),
            first: content.get_u64_le(),
            count: content.get_u32_le(),
            newest_ms: content.get_i64_le(),
        })),
        DELAYED if length == 12 => {
            Some(Change::Delayed { queue: StreamId(content.get_u32_le()), seq: content.get_u64_le() })
        }
        // Perhaps a kind of a later version. To skip it would be to lose a change.
        _ => None,
    }
}

/// Begun with the key of the row, so that a row in the place of another one does not pass.
fn checksum((log, commit): RowKey, items: &[u8]) -> u32 {
    let mut sum = crc32fast::Hasher::new_with_initial(log);
    sum.update(&commit.to_le_bytes());
    sum.update(items);
    sum.finalize()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use proptest::prelude::*;

    use super::*;

    fn some() -> Vec<Change<'static>> {
        let appended = Appended { stream: StreamId(1), first: 7, count: 3, newest_ms: 99 };
        let ended = Record::DelayEnded(StreamId(2), 5, 1);
        vec![
            Change::Appended(appended),
            Change::Delayed { queue: StreamId(2), seq: 4 },
            Change::Other(Cow::Owned(ended)),
        ]
    }

    #[test]
    fn a_row_is_read_as_it_was_written() {
        let bytes = encode((5, 1), &some()).unwrap();
        assert_eq!(format!("{:?}", decode((5, 1), &bytes).unwrap()), format!("{:?}", some()));
    }

    #[test]
    fn a_row_of_another_commit_or_schema_does_not_pass() {
        let bytes = encode((5, 1), &some()).unwrap();
        for key in [(5, 2), (6, 1)] {
            assert!(decode(key, &bytes).is_err());
        }
    }

    #[test]
    fn every_flipped_bit_is_noticed() {
        let bytes = encode((5, 1), &some()).unwrap();
        for bit in 0..bytes.len() * 8 {
            let mut flipped = bytes.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert!(decode((5, 1), &flipped).is_err(), "bit {bit}");
        }
    }

    proptest! {
        #[test]
        fn any_items_are_read_or_refused_without_panic(items in prop::collection::vec(any::<u8>(), 0..100)) {
            let mut bytes = checksum((5, 1), &items).to_le_bytes().to_vec();
            bytes.extend(&items);
            drop(decode((5, 1), &bytes));
        }
    }
}
