//! [`Fault`]: what is wrong with a JSON text, and where.

use std::fmt;

use super::{Scan, excerpt, place::place};

/// What is wrong with a JSON text, and where. Boxed, so that results stay small.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault(Box<(usize, Kind)>);

/// What is wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// It is no JSON: this is missing.
    Syntax(&'static str),
    /// A string has a control character in it that is not escaped.
    Control,
    /// A backslash begins no escape of JSON.
    Escape,
    /// A number is not written as JSON has it.
    Number,
    /// It is not UTF-8.
    Utf8,
    /// Half a surrogate pair stands for no character.
    Surrogate,
    /// A number is beyond an IEEE double.
    Infinite,
    /// More than so many levels are nested.
    Depth(usize),
    /// It is a value of another type than this.
    Shape(&'static str),
    /// A member is missing.
    Missing(&'static str),
    /// A member is there twice.
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

    /// Bytes that are not UTF-8, from `at` on.
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

    /// The value that begins at this offset is not what is expected.
    pub fn shape(expected: &'static str, at: usize) -> Self {
        Self::new(Kind::Shape(expected), at)
    }

    /// The object that begins at this offset lacks a member.
    pub fn missing(member: &'static str, at: usize) -> Self {
        Self::new(Kind::Missing(member), at)
    }

    /// The byte of the text where it is.
    #[cfg(test)]
    pub fn offset(&self) -> usize {
        self.0.0
    }

    /// Whether the text is JSON, but of another shape than the expected one.
    pub fn is_shape(&self) -> bool {
        matches!(self.0.1, Kind::Shape(_) | Kind::Missing(_) | Kind::Twice)
    }

    /// Says what is wrong with the text in which this fault was found: the place, the value, and what is allowed.
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

/// Without the text nothing but the kind and the offset can be told.
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

/// The text up to where the next token begins.
fn token(text: &[u8]) -> &[u8] {
    let ends = |byte: &u8| b" \t\r\n,:[]{}\"".contains(byte);
    let length = text.iter().position(ends).unwrap_or(text.len());
    &text[..length.max(1).min(text.len())]
}

/// The value that the text begins with, or all of it if there is none.
fn value(text: &[u8]) -> &[u8] {
    let mut found = text;
    let _ = Scan::whole(text, |scan| scan.value().map(|value| found = value));
    found
}
