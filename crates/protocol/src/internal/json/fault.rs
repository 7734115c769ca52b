//! [`Fault`]: an error in a JSON text and its position.

use std::fmt;

/// An error in a JSON text and its position. Boxed, so that results stay small.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault(pub(super) Box<(usize, FaultKind)>);

/// The kinds of errors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum FaultKind {
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
    fn new(kind: FaultKind, at: usize) -> Self {
        Self(Box::new((at, kind)))
    }

    pub(super) fn syntax(expected: &'static str, at: usize) -> Self {
        Self::new(FaultKind::Syntax(expected), at)
    }

    pub(super) fn control(at: usize) -> Self {
        Self::new(FaultKind::Control, at)
    }

    pub(super) fn escape(at: usize) -> Self {
        Self::new(FaultKind::Escape, at)
    }

    pub(super) fn number(at: usize) -> Self {
        Self::new(FaultKind::Number, at)
    }

    /// An error for bytes that are not UTF-8, at `at`.
    pub fn not_utf8(at: usize) -> Self {
        Self::new(FaultKind::Utf8, at)
    }

    pub(super) fn surrogate(at: usize) -> Self {
        Self::new(FaultKind::Surrogate, at)
    }

    pub(super) fn infinite(at: usize) -> Self {
        Self::new(FaultKind::Infinite, at)
    }

    pub(super) fn depth(levels: usize, at: usize) -> Self {
        Self::new(FaultKind::Depth(levels), at)
    }

    pub(super) fn twice(at: usize) -> Self {
        Self::new(FaultKind::Twice, at)
    }

    /// An error for the value at this offset, which has another type than expected.
    pub fn shape(expected: &'static str, at: usize) -> Self {
        Self::new(FaultKind::Shape(expected), at)
    }

    /// An error for the object at this offset, which lacks a member.
    pub fn missing(member: &'static str, at: usize) -> Self {
        Self::new(FaultKind::Missing(member), at)
    }

    /// The offset of the error in bytes.
    #[cfg(test)]
    pub fn offset(&self) -> usize {
        self.0.0
    }

    /// Returns whether the text is JSON with another shape than expected.
    pub fn is_shape(&self) -> bool {
        matches!(self.0.1, FaultKind::Shape(_) | FaultKind::Missing(_) | FaultKind::Twice)
    }
}

/// Shows the kind and the offset; [`explain`](Self::explain) needs the text.
impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (at, kind) = *self.0;
        match kind {
            FaultKind::Syntax(expected) => write!(f, "{expected} is expected")?,
            FaultKind::Control => f.write_str("a control character is not escaped")?,
            FaultKind::Escape => f.write_str("a backslash begins no escape")?,
            FaultKind::Number => f.write_str("a number is not written as JSON has it")?,
            FaultKind::Utf8 => f.write_str("the text is not UTF-8")?,
            FaultKind::Surrogate => f.write_str("half a surrogate pair")?,
            FaultKind::Infinite => f.write_str("a number is beyond an IEEE double")?,
            FaultKind::Depth(most) => write!(f, "more than {most} levels are nested")?,
            FaultKind::Shape(expected) => write!(f, "{expected} is expected")?,
            FaultKind::Missing(member) => write!(f, "the object has no {member}")?,
            FaultKind::Twice => f.write_str("a member is there twice")?,
        }
        write!(f, " at byte {at}")
    }
}

impl std::error::Error for Fault {}
