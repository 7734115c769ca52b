//! Decodes the escapes of a string.

use memchr::memchr;

/// Resolves the escapes of a string, whose grammar is known to be right.
///
/// # Errors
/// The place of an escape that is half a surrogate pair: it stands for no character.
pub(super) fn unescape(raw: &[u8]) -> Result<Vec<u8>, usize> {
    let mut text = Vec::with_capacity(raw.len());
    let mut at = 0;
    while let Some(found) = memchr(b'\\', raw.get(at..).unwrap_or_default()) {
        text.extend_from_slice(&raw[at..at + found]);
        at += found;
        let length = match raw.get(at + 1) {
            Some(b'u') => {
                let (character, length) = unicode(&raw[at..]).ok_or(at)?;
                text.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes());
                length
            }
            Some(letter) => {
                text.push(control(*letter));
                2
            }
            None => return Err(at),
        };
        at += length;
    }
    text.extend_from_slice(raw.get(at..).unwrap_or_default());
    Ok(text)
}

/// The character that a backslash with this letter stands for.
fn control(letter: u8) -> u8 {
    match letter {
        b'b' => 8,
        b'f' => 12,
        b'n' => b'\n',
        b'r' => b'\r',
        b't' => b'\t',
        itself => itself,
    }
}

/// The character that `\uXXXX` stands for, alone or with a second one, and the length of the escape.
fn unicode(escape: &[u8]) -> Option<(char, usize)> {
    let first = escape.get(2..6).and_then(unit)?;
    if !is_high(first) {
        return char::from_u32(first.into()).map(|character| (character, 6));
    }
    let second = escape.get(6..12).and_then(|next| next.strip_prefix(b"\\u")).and_then(unit)?;
    let mut pair = char::decode_utf16([first, second]);
    match pair.next() {
        Some(Ok(character)) => Some((character, 12)),
        _ => None,
    }
}

/// The number that four hexadecimal digits stand for.
pub(super) fn unit(digits: &[u8]) -> Option<u16> {
    digits.iter().try_fold(0, |sum, digit| {
        let digit = u16::try_from(char::from(*digit).to_digit(16)?).ok()?;
        Some(sum << 4 | digit)
    })
}

/// Whether this is the first half of a surrogate pair.
pub(super) fn is_high(unit: u16) -> bool {
    (0xd800..0xdc00).contains(&unit)
}

/// Whether this is the second half of a surrogate pair.
pub(super) fn is_low(unit: u16) -> bool {
    (0xdc00..0xe000).contains(&unit)
}
