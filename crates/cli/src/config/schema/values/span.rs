//! [`Span`]: a length of time written with its unit.

use std::{borrow::Cow, fmt, str::FromStr, time::Duration};

use dms_protocol::internal::duration::{self, UNITS};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// A length of time as a configuration writes it: `30s`, `5m`, `1h30m`, `500ms`, `2d`.
///
/// A number without a unit is refused, as nobody can tell seconds from milliseconds by looking at it; `0` is taken.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Span(Duration);

impl Span {
    /// A number of whole seconds.
    pub const fn secs(secs: u64) -> Self {
        Self(Duration::from_secs(secs))
    }

    /// A number of milliseconds.
    pub const fn millis(millis: u64) -> Self {
        Self(Duration::from_millis(millis))
    }

    /// The length as the standard library's type.
    pub const fn get(self) -> Duration {
        self.0
    }
}

impl From<Duration> for Span {
    fn from(duration: Duration) -> Self {
        Self(duration)
    }
}

impl From<Span> for Duration {
    fn from(span: Span) -> Self {
        span.0
    }
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&duration::text(self.0))
    }
}

/// Text that is not a length of time.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidSpan {
    /// A number without a unit.
    #[error("`{0}` has no unit: write {0}s for seconds or {0}ms for milliseconds")]
    NoUnit(u64),
    /// Anything else.
    #[error("`{0}` is not a duration: write it like 30s, 5m, 1h30m or 500ms")]
    Malformed(String),
}

impl JsonSchema for Span {
    fn schema_name() -> Cow<'static, str> {
        "Span".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        let text = "A duration like 30s, 5m, 1h30m or 500ms.";
        json_schema!({ "description": text, "anyOf": [
            { "type": "string", "pattern": r"^(([0-9]+(d|h|m|s|ms))+|0)$" },
            { "const": 0 },
        ] })
    }
}

impl FromStr for Span {
    type Err = InvalidSpan;

    fn from_str(text: &str) -> Result<Self, InvalidSpan> {
        match text.trim().parse::<u64>() {
            Ok(0) => return Ok(Self::default()),
            Ok(number) => return Err(InvalidSpan::NoUnit(number)),
            Err(_) => {}
        }
        parts(text.trim()).map(Self::millis).ok_or_else(|| InvalidSpan::Malformed(text.to_owned()))
    }
}

/// The milliseconds of `1h30m`; `None` when a part has no number or no known unit, or the sum does not fit.
fn parts(mut text: &str) -> Option<u64> {
    let mut total: u64 = 0;
    if text.is_empty() {
        return None;
    }
    while !text.is_empty() {
        let digits = text.find(|c: char| !c.is_ascii_digit())?;
        let (number, rest) = text.split_at(digits);
        let letters = rest.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(rest.len());
        let (unit, rest) = rest.split_at(letters);
        let (_, millis) = UNITS.iter().find(|(name, _)| *name == unit)?;
        total = total.checked_add(number.parse::<u64>().ok()?.checked_mul(*millis)?)?;
        text = rest;
    }
    Some(total)
}

impl Serialize for Span {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Span {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(SpanVisitor)
    }
}

struct SpanVisitor;

impl de::Visitor<'_> for SpanVisitor {
    type Value = Span;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a duration like 30s, 5m, 1h30m or 500ms")
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Span, E> {
        text.parse().map_err(E::custom)
    }

    fn visit_u64<E: de::Error>(self, number: u64) -> Result<Span, E> {
        number.to_string().parse().map_err(E::custom)
    }
}
