//! JSON text: where a value ends, whether it is one, and what is wrong with it, without making anything of it.
//!
//! Bodies pass through as text, so all that there is to know of most of them is that they are JSON. A parser looks at each byte of a
//! string; here whole strings are searched at a time. [`Scan`] is the grammar, [`Fault`] says what a text breaks, and where.

mod excerpt;
mod fault;
mod name;
mod open;
mod place;
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
pub use scan::Scan;

/// Appends a string; nearly all that are written have nothing to escape.
pub fn push_string(json: &mut Vec<u8>, text: &str) {
    if has_controls(text.as_bytes()) || memchr2(b'"', b'\\', text.as_bytes()).is_some() {
        return json.extend_from_slice(serde_json::Value::from(text).to_string().as_bytes());
    }
    json.push(b'"');
    json.extend_from_slice(text.as_bytes());
    json.push(b'"');
}

/// Valid JSON in one line: as it is, or without the blanks between its tokens where there are line breaks among them. The tokens
/// themselves stay, since strings have to escape their line breaks.
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

/// Whether there are bytes that a string has to escape beside quotes and backslashes.
fn has_controls(text: &[u8]) -> bool {
    // Without an early end many bytes are looked at in one step.
    text.iter().fold(u8::MAX, |least, &byte| least.min(byte)) < b' '
}

/// Whether this is UTF-8; faster than the standard library where it is ASCII, as most JSON is.
pub fn is_utf8(text: &[u8]) -> bool {
    text.is_ascii() || str::from_utf8(text).is_ok()
}
