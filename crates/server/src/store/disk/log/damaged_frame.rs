//! Decodes a damaged frame if that is possible without guessing. Pure.
//!
//! The changes of a frame have to be known exactly, or nothing after it can be trusted. Its messages need not be intact for that.
//! Two kinds of damage leave no doubt: changed bytes inside messages only, and a single changed bit anywhere.

use crate::store::{
    disk::log::frame::{self, Change, FRAME_HEADER, Items, frame_checksum},
    position::Position,
    run::checksum_difference,
};

/// The polynomial of CRC-32, lowest power first.
const POLYNOMIAL: u32 = 0xEDB8_8320;

/// A frame that was decoded despite its damage.
#[derive(Debug)]
pub(crate) struct DecodedFrame {
    pub(crate) changes: Vec<Change>,
    /// The length of the frame.
    pub(crate) length: usize,
}

/// Decodes frame `number` of a log from bytes that begin with it and may be longer.
pub(crate) fn read(log: u32, number: u64, bytes: &[u8], at: Position) -> Option<DecodedFrame> {
    let rest = bytes.get(FRAME_HEADER..)?;
    let said = u32::from_le_bytes(bytes[4..8].try_into().ok()?) as usize;
    let stored = u32::from_le_bytes(bytes[16..FRAME_HEADER].try_into().ok()?);
    let seen = Items::of(rest).map_while(Result::ok).last().map(|item| item.offset + item.content.len());
    // The length in the header may be the damaged part, so the length that the items add up to is tried too. The
    // checksum decides between them.
    let lengths = [Some(said), seen.filter(|seen| *seen != said)];
    lengths.into_iter().flatten().find_map(|length| {
        let items = rest.get(..length).filter(|items| !items.is_empty())?;
        let changes = changes(log, (number, stored), items, at)?;
        Some(DecodedFrame { changes, length: FRAME_HEADER + length })
    })
}

fn changes(log: u32, (number, stored): (u64, u32), items: &[u8], at: Position) -> Option<Vec<Change>> {
    let difference = frame_checksum(log, number, items) ^ stored;
    // The changed bit is in the frame's checksum, or nothing of the items changed: then the damage was in the header.
    if difference == difference_in_messages(log, items) || difference.is_power_of_two() && is_whole(log, items) {
        return frame::changes(log, items, at).ok();
    }
    // CRC-32 is linear: each flipped bit changes the checksum by a value that depends on its place alone, so the
    // difference names the place. Two flipped bits are not searched for, because several pairs could explain one
    // difference.
    let mut items = items.to_vec();
    flip_bit(&mut items, difference)?;
    frame::changes(log, &items, at).ok()
}

/// By how much the checksum of the frame would differ if all damage was inside messages. Such damage changes the checksum of the run
/// by a known difference, and the bytes after the run say what that does to the checksum of the frame.
fn difference_in_messages(log: u32, items: &[u8]) -> u32 {
    let mut difference = 0;
    for item in Items::of(items) {
        let Ok(item) = item else { return 0 };
        if item.is_run() {
            let behind = items.len() - item.offset - item.content.len();
            difference ^= shift(checksum_difference(log, item.content), behind);
        }
    }
    difference
}

fn is_whole(log: u32, items: &[u8]) -> bool {
    Items::of(items).all(|item| item.is_ok_and(|item| !item.is_run() || checksum_difference(log, item.content) == 0))
}

/// A difference of two checksums after `bytes` more identical bytes.
fn shift(difference: u32, bytes: usize) -> u32 {
    let mut shifted = crc32fast::Hasher::new_with_initial_len(difference, 0);
    shifted.combine(&crc32fast::Hasher::new_with_initial_len(0, bytes as u64));
    shifted.finalize()
}

/// Flips the one bit that causes this difference of the checksum. Returns `None` if no single bit does.
fn flip_bit(bytes: &mut [u8], difference: u32) -> Option<()> {
    // Goes from the last bit to the first, with the difference that each of them makes.
    let mut makes = POLYNOMIAL;
    for byte in bytes.iter_mut().rev() {
        for bit in (0..8).rev() {
            if makes == difference {
                *byte ^= 1 << bit;
                return Some(());
            }
            makes = (makes >> 1) ^ if makes & 1 == 1 { POLYNOMIAL } else { 0 };
        }
    }
    None
}
