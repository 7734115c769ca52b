//! A JSON grammar that finds values and errors in a text without building a tree.
//!
//! Bodies pass through as text, so it is enough to know that they are JSON. A parser reads each byte of a string; this
//! code searches whole strings in one step. [`Scan`] is the grammar, and [`Fault`] is an error with its position.

mod excerpt;
mod explain;
mod fault;
mod name;
mod open;
mod place;
mod pointer;
mod scan;
#[cfg(test)]
mod tests;
mod unescape;

use std::str;

use memchr::memchr2;

use excerpt::cut;
pub use excerpt::{excerpt, quoted, shown};
pub use fault::Fault;
pub use name::Name;
pub use pointer::{at, is_pointer, text_at};
pub use scan::Scan;

/// Appends a JSON string. Fast for strings that need no escapes, as nearly all do.
#[inline]
pub fn push_string(json: &mut Vec<u8>, text: &str) {
    if has_controls(text.as_bytes()) || memchr2(b'"', b'\\', text.as_bytes()).is_some() {
        return json.extend_from_slice(serde_json::Value::from(text).to_string().as_bytes());
    }
    json.push(b'"');
    json.extend_from_slice(text.as_bytes());
    json.push(b'"');
}

/// Valid JSON in one line. If there are line breaks between tokens, the blanks between all tokens are removed. The
/// tokens do not change, because strings escape their line breaks.
pub fn one_line(json: &str) -> std::borrow::Cow<'_, str> {
    if !json.contains(['\n', '\r']) {
        return json.into();
    }
    let mut line = String::with_capacity(json.len());
    let (mut in_string, mut escaped) = (false, false);
    for c in json.chars() {
        if in_string || !matches!(c, ' ' | '\t' | '\n' | '\r') {
            line.push(c);
        }
        match c {
            _ if escaped => escaped = false,
            '\\' if in_string => escaped = true,
            '"' => in_string = !in_string,
            _ => {}
        }
    }
    line.into()
}

/// Returns whether there are control characters, which a string has to escape.
#[inline]
fn has_controls(text: &[u8]) -> bool {
    // Without an early exit the compiler checks many bytes in one step.
    text.iter().fold(u8::MAX, |least, &byte| least.min(byte)) < b' '
}

/// Returns whether the bytes are UTF-8. Faster than the standard library for ASCII, which most JSON is.
#[inline]
pub fn is_utf8(text: &[u8]) -> bool {
    text.is_ascii() || str::from_utf8(text).is_ok()
}
