//! Text: cut to a length, and read from files. Files are UTF-8, with or without the byte order mark that some editors
//! write.

use std::{fmt, fs, io, path::Path, time::Duration};

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

/// A duration as text, such as `1.25s` or `20ms`: at most three decimals, and no nanoseconds.
pub fn brief(duration: Duration) -> impl fmt::Display + fmt::Debug + Copy {
    Brief(duration)
}

#[derive(Clone, Copy)]
struct Brief(Duration);

impl fmt::Display for Brief {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(duration) = *self;
        let (secs, millis) = (duration.as_secs(), duration.as_millis());
        let (whole, thousandths, unit) = match () {
            () if secs >= 1 => (u128::from(secs), duration.subsec_millis(), "s"),
            () if millis >= 1 => (millis, duration.subsec_micros() % 1_000, "ms"),
            () => (duration.as_micros(), 0, "µs"),
        };
        let decimals = format!("{thousandths:03}");
        match decimals.trim_end_matches('0') {
            "" => write!(f, "{whole}{unit}"),
            decimals => write!(f, "{whole}.{decimals}{unit}"),
        }
    }
}

impl fmt::Debug for Brief {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
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
    fn durations_are_brief() {
        for (nanos, text) in [
            (0, "0µs"),
            (45_678, "45µs"),
            (1_000_000, "1ms"),
            (20_340_999, "20.34ms"),
            (1_234_567_891, "1.234s"),
            (20_000_000_001, "20s"),
            (300_050_000_000, "300.05s"),
        ] {
            assert_eq!(brief(Duration::from_nanos(nanos)).to_string(), text);
        }
    }

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
