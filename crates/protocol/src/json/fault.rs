//! [`Fault`]: an error in a JSON text and its position.

use std::fmt;

use super::{Scan, excerpt, place::place};

/// An error in a JSON text and its position. Boxed, so that results stay small.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault(Box<(usize, Kind)>);

/// The kinds of errors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// The text is not JSON, because this is missing.
    Syntax(&'static str),
    /// A string has an unescaped control character.
    Control,
    /// A backslash does not start a JSON escape.
    Escape,
    /// A number is not in the form of JSON.
    Number,
    /// The text is not UTF-8.
    Utf8,
    /// A string has half a surrogate pair.
    Surrogate,
    /// A number is beyond an IEEE double.
    Infinite,
    /// The nesting is deeper than this number of levels.
    Depth(usize),
    /// A value has another type than this one.
    Shape(&'static str),
    /// A member is missing.
    Missing(&'static str),
    /// A member is repeated.
    Twice,
}

impl Fault {
    #[cold]
    fn new(kind: Kind, at: usize) -> Self {
        Self(Box::new((at, kind)))
    }

    pub(super) fn syntax(expected: &'static str, at: usize) -> Self {
        Self::new(Kind::Syntax(expected), at)
    }

    pub(super) fn control(at: usize) -> Self {
        Self::new(Kind::Control, at)
    }

    pub(super) fn escape(at: usize) -> Self {
        Self::new(Kind::Escape, at)
    }

    pub(super) fn number(at: usize) -> Self {
        Self::new(Kind::Number, at)
    }

    /// An error for bytes that are not UTF-8, at `at`.
    pub fn not_utf8(at: usize) -> Self {
        Self::new(Kind::Utf8, at)
    }

    pub(super) fn surrogate(at: usize) -> Self {
        Self::new(Kind::Surrogate, at)
    }

    pub(super) fn infinite(at: usize) -> Self {
        Self::new(Kind::Infinite, at)
    }

    pub(super) fn depth(levels: usize, at: usize) -> Self {
        Self::new(Kind::Depth(levels), at)
    }

    pub(super) fn twice(at: usize) -> Self {
        Self::new(Kind::Twice, at)
    }

    /// An error for the value at this offset, which has another type than expected.
    pub fn shape(expected: &'static str, at: usize) -> Self {
        Self::new(Kind::Shape(expected), at)
    }

    /// An error for the object at this offset, which lacks a member.
    pub fn missing(member: &'static str, at: usize) -> Self {
        Self::new(Kind::Missing(member), at)
    }

    /// The offset of the error in bytes.
    #[cfg(test)]
    pub fn offset(&self) -> usize {
        self.0.0
    }

    /// Returns whether the text is JSON with another shape than expected.
    pub fn is_shape(&self) -> bool {
        matches!(self.0.1, Kind::Shape(_) | Kind::Missing(_) | Kind::Twice)
    }

    /// Explains the error in the text in which it was found: the position, the value, and what is allowed.
    pub fn explain(&self, text: &[u8]) -> String {
        let (at, kind) = *self.0;
        let place = place(text, at);
        let rest = text.get(at..).unwrap_or_default();
        match kind {
            Kind::Syntax(expected) if rest.is_empty() => {
                format!("{place} is not JSON: the text ends at byte {at}, where {expected} is expected.")
            }
            Kind::Syntax(expected) => {
                format!("{place} is not JSON: {expected} is expected at byte {at}, not {}.", excerpt(token(rest)))
            }
            Kind::Control => {
                format!(
                    "{place} is not JSON: the control character {} at byte {at} has to be escaped.",
                    excerpt(&rest[..1])
                )
            }
            Kind::Escape => {
                let escape = rest.get(..2).unwrap_or(rest);
                format!("{place} is not JSON: the backslash at byte {at} begins no escape: {}.", excerpt(escape))
            }
            Kind::Number => format!("{place} is not JSON: {} at byte {at} is no number.", excerpt(token(rest))),
            Kind::Utf8 => format!("{place} is not UTF-8 at byte {at}."),
            Kind::Surrogate => {
                let escape = rest.get(..6).unwrap_or(rest);
                format!(
                    "{place} has {} at byte {at}, half a surrogate pair, which JSON parsers refuse: only whole pairs are allowed.",
                    excerpt(escape)
                )
            }
            Kind::Infinite => {
                let (number, most) = (excerpt(token(rest)), f64::MAX);
                format!(
                    "{place} is {number}, at byte {at}: -{most:e} to {most:e}, the range of an IEEE double, are allowed."
                )
            }
            Kind::Depth(most) => {
                format!("{place} nests deeper than the {most} levels allowed: byte {at} opens one more.")
            }
            Kind::Shape(expected) => format!("{place} is {}: {expected} is expected.", excerpt(value(rest))),
            Kind::Missing(member) => format!("{place} has no {member}."),
            Kind::Twice => format!("{place} is there twice: once is allowed."),
        }
    }
}

/// Shows the kind and the offset; [`explain`](Self::explain) needs the text.
impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (at, kind) = *self.0;
        match kind {
            Kind::Syntax(expected) => write!(f, "{expected} is expected")?,
            Kind::Control => f.write_str("a control character is not escaped")?,
            Kind::Escape => f.write_str("a backslash begins no escape")?,
            Kind::Number => f.write_str("a number is not written as JSON has it")?,
            Kind::Utf8 => f.write_str("the text is not UTF-8")?,
            Kind::Surrogate => f.write_str("half a surrogate pair")?,
            Kind::Infinite => f.write_str("a number is beyond an IEEE double")?,
            Kind::Depth(most) => write!(f, "more than {most} levels are nested")?,
            Kind::Shape(expected) => write!(f, "{expected} is expected")?,
            Kind::Missing(member) => write!(f, "the object has no {member}")?,
            Kind::Twice => f.write_str("a member is there twice")?,
        }
        write!(f, " at byte {at}")
    }
}

impl std::error::Error for Fault {}

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
