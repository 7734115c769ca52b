//! Text: cut to a length, and read from files. Files are UTF-8, with or without the byte order mark that some editors
//! write.

use std::{fs, io, path::Path};

/// The byte order mark of UTF-8.
const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// Why bytes are not UTF-8.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotUtf8 {
    /// The text has another encoding.
    #[error("it is UTF-16 text: save it as UTF-8")]
    Utf16,
    /// A byte is not part of a character.
    #[error("byte {0} is not UTF-8: save it as UTF-8 text")]
    Byte(usize),
}

impl From<NotUtf8> for io::Error {
    fn from(error: NotUtf8) -> Self {
        Self::new(io::ErrorKind::InvalidData, error)
    }
}

/// Converts bytes to text, without a copy if they are UTF-8. Invalid bytes become U+FFFD.
pub fn lossy(bytes: Vec<u8>) -> String {
    String::from_utf8(bytes).unwrap_or_else(|bad| String::from_utf8_lossy(bad.as_bytes()).into_owned())
}

/// Cuts a text to at most `most` bytes, between characters.
pub fn cut(text: &str, most: usize) -> &str {
    if text.len() <= most {
        return text;
    }
    let end = (0..=most).rev().find(|end| text.is_char_boundary(*end)).unwrap_or(0);
    &text[..end]
}

/// The bytes of a text without its byte order mark.
///
/// # Errors
/// When the text starts as UTF-16.
pub fn without_mark(bytes: &[u8]) -> Result<&[u8], NotUtf8> {
    // Without a mark, every second byte of UTF-16 text is zero. Valid files have no zeros.
    match bytes {
        [0xff, 0xfe, ..] | [0xfe, 0xff, ..] | [0, _, 0, _, ..] | [_, 0, _, 0, ..] => Err(NotUtf8::Utf16),
        _ => Ok(bytes.strip_prefix(BYTE_ORDER_MARK).unwrap_or(bytes)),
    }
}

/// Reads the text of a file, without its byte order mark.
///
/// # Errors
/// When the file cannot be read or is not UTF-8.
pub fn read(path: &Path) -> io::Result<String> {
    Ok(decode(&fs::read(path)?)?)
}

fn decode(bytes: &[u8]) -> Result<String, NotUtf8> {
    let text = without_mark(bytes)?;
    match std::str::from_utf8(text) {
        Ok(text) => Ok(text.to_owned()),
        Err(error) => Err(NotUtf8::Byte(bytes.len() - text.len() + error.valid_up_to())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_cut_between_characters() {
        assert_eq!(cut("队列", 5), "队");
        assert_eq!((cut("队列", 6), cut("abc", 2), cut("", 0)), ("队列", "ab", ""));
    }

    #[test]
    fn a_byte_order_mark_is_no_part_of_the_text() {
        for bytes in [&b"a: 1"[..], b"\xef\xbb\xbfa: 1"] {
            assert_eq!(decode(bytes).as_deref(), Ok("a: 1"));
        }
        assert_eq!(decode(b"").as_deref(), Ok(""));
        assert_eq!(decode(b"\xef\xbb\xbf").as_deref(), Ok(""));
    }

    #[test]
    fn other_encodings_are_named() {
        let little: Vec<u8> = "\u{feff}a: 1".encode_utf16().flat_map(u16::to_le_bytes).collect();
        let big: Vec<u8> = "\u{feff}a: 1".encode_utf16().flat_map(u16::to_be_bytes).collect();
        for bytes in [&little[..], &big, &little[2..], &big[2..]] {
            assert_eq!(decode(bytes), Err(NotUtf8::Utf16), "{bytes:?}");
        }
        assert_eq!(decode(b"gr\xfcn"), Err(NotUtf8::Byte(2)));
        assert_eq!(decode(b"\xef\xbb\xbfgr\xfcn"), Err(NotUtf8::Byte(5)));
    }
}
