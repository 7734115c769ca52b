//! Reads a frame whose bytes are not all what was written, as far as that can be done without a guess. Pure.
//!
//! What a frame changes has to be known, or nothing behind it can be believed; its messages need not be whole for that. Two kinds
//! of damage leave no doubt: bytes that changed inside messages alone, and a single bit anywhere.

use crate::store::{
    disk::log::frame::{self, Change, FRAME_HEADER, Items, frame_checksum},
    position::Position,
    run::checksum_difference,
};

/// CRC-32's polynomial, lowest power first.
const POLYNOMIAL: u32 = 0xEDB8_8320;

/// A frame that was read in spite of its damage.
#[derive(Debug)]
pub(crate) struct DecodedFrame {
    pub(crate) changes: Vec<Change>,
    /// How long the frame is.
    pub(crate) length: usize,
}

/// Reads frame `number` of a log from bytes that begin with it and may go on behind it.
pub(crate) fn read(log: u32, number: u64, bytes: &[u8], at: Position) -> Option<DecodedFrame> {
    let rest = bytes.get(FRAME_HEADER..)?;
    let said = u32::from_le_bytes(bytes[4..8].try_into().ok()?) as usize;
    let stored = u32::from_le_bytes(bytes[16..FRAME_HEADER].try_into().ok()?);
    let seen = Items::of(rest).map_while(Result::ok).last().map(|item| item.offset + item.content.len());
    let lengths = [Some(said), seen.filter(|seen| *seen != said)];
    lengths.into_iter().flatten().find_map(|length| {
        let items = rest.get(..length).filter(|items| !items.is_empty())?;
        let changes = changes(log, (number, stored), items, at)?;
        Some(DecodedFrame { changes, length: FRAME_HEADER + length })
    })
}

fn changes(log: u32, (number, stored): (u64, u32), items: &[u8], at: Position) -> Option<Vec<Change>> {
    let difference = frame_checksum(log, number, items) ^ stored;
    // One bit of the checksum itself, or none: then it was the frame's head.
    if difference == difference_in_messages(log, items) || difference.is_power_of_two() && is_whole(log, items) {
        return frame::changes(log, items, at).ok();
    }
    let mut items = items.to_vec();
    flip_bit(&mut items, difference)?;
    frame::changes(log, &items, at).ok()
}

/// By how much the frame's checksum would differ if all damage was inside messages. Damage to a run's messages changes the run's
/// checksum; how it changes that of the frame follows from the bytes in between.
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

/// The difference of two checksums after `bytes` more bytes that are the same.
fn shift(difference: u32, bytes: usize) -> u32 {
    let mut shifted = crc32fast::Hasher::new_with_initial_len(difference, 0);
    shifted.combine(&crc32fast::Hasher::new_with_initial_len(0, bytes as u64));
    shifted.finalize()
}

/// Flips the one bit that makes this difference of the checksum.
fn flip_bit(bytes: &mut [u8], difference: u32) -> Option<()> {
    // From the last bit to the first, with the difference that each makes.
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
