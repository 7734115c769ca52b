//! Explains an error in a JSON text in words.

use super::{Fault, Scan, excerpt, fault::FaultKind, place::place};

impl Fault {
    /// Explains the error in the text in which it was found: the position, the value, and the allowed values.
    pub fn explain(&self, text: &[u8]) -> String {
        let (at, kind) = *self.0;
        let place = place(text, at);
        let rest = text.get(at..).unwrap_or_default();
        match kind {
            FaultKind::Syntax(expected) if rest.is_empty() => {
                format!("{place} is not JSON: the text ends at byte {at}, where {expected} is expected.")
            }
            FaultKind::Syntax(expected) => {
                format!("{place} is not JSON: {expected} is expected at byte {at}, not {}.", excerpt(token(rest)))
            }
            FaultKind::Control => {
                format!(
                    "{place} is not JSON: the control character {} at byte {at} has to be escaped.",
                    excerpt(&rest[..1])
                )
            }
            FaultKind::Escape => {
                let escape = rest.get(..2).unwrap_or(rest);
                format!("{place} is not JSON: the backslash at byte {at} begins no escape: {}.", excerpt(escape))
            }
            FaultKind::Number => format!("{place} is not JSON: {} at byte {at} is no number.", excerpt(token(rest))),
            FaultKind::Utf8 => format!("{place} is not UTF-8 at byte {at}."),
            FaultKind::Surrogate => {
                let escape = rest.get(..6).unwrap_or(rest);
                format!(
                    "{place} has {} at byte {at}, half a surrogate pair, which JSON parsers refuse: only whole pairs are allowed.",
                    excerpt(escape)
                )
            }
            FaultKind::Infinite => {
                let (number, most) = (excerpt(token(rest)), f64::MAX);
                format!(
                    "{place} is {number}, at byte {at}: -{most:e} to {most:e}, the range of an IEEE double, are allowed."
                )
            }
            FaultKind::Depth(most) => {
                format!("{place} nests deeper than the {most} levels allowed: byte {at} opens one more.")
            }
            FaultKind::Shape(expected) => format!("{place} is {}: {expected} is expected.", excerpt(value(rest))),
            FaultKind::Missing(member) => format!("{place} has no {member}."),
            FaultKind::Twice => format!("{place} is there twice: once is allowed."),
        }
    }
}

/// The text up to the next token.
fn token(text: &[u8]) -> &[u8] {
    let ends = |byte: &u8| b" \t\r\n,:[]{}\"".contains(byte);
    let length = text.iter().position(ends).unwrap_or(text.len());
    &text[..length.max(1).min(text.len())]
}

/// The value at the start of the text, or the whole text if there is none.
fn value(text: &[u8]) -> &[u8] {
    let mut found = text;
    let _ = Scan::whole(text, |scan| scan.value().map(|value| found = value));
    found
}
