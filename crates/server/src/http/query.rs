//! [`Query`]: the decoded query string, with typed access to the parameters of the API.

use std::{
    borrow::Cow,
    ops::{Range, RangeInclusive},
    str::{FromStr, Utf8Error},
};

use percent_encoding::percent_decode_str;

use crate::http::{
    codes::{self, Code},
    error::ApiError,
};
use dms_protocol::internal::json::quoted;

/// The parameter whose empty value means a text without characters.
const MAY_BE_EMPTY: &str = "description";

/// The decoded pairs of a query string, in their order.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Query {
    /// The decoded names and values, one after the other.
    text: String,
    /// Where the name and the value of each pair are.
    pairs: Vec<(Range<usize>, Range<usize>)>,
}

impl Query {
    /// Decodes `raw`, including `%XX` and `+`. A `%` without two hex digits stands for itself.
    ///
    /// # Errors
    /// DMS.10540014 when a name or value is not UTF-8.
    pub(crate) fn parse(raw: &str) -> Result<Self, ApiError> {
        let mut query = Self { text: String::with_capacity(raw.len()), pairs: Vec::with_capacity(4) };
        for part in raw.split('&').filter(|part| !part.is_empty()) {
            let (name, value) = part.split_once('=').unwrap_or((part, ""));
            let pair = (query.add(name)?, query.add(value)?);
            query.pairs.push(pair);
        }
        Ok(query)
    }

    /// Decodes a text and adds it. Returns where it is.
    fn add(&mut self, text: &str) -> Result<Range<usize>, ApiError> {
        let not_utf8 = |_| codes::URL_PARAMETER.because(format!("{} is not UTF-8.", quoted(text)));
        let start = self.text.len();
        decode_into(&mut self.text, text).map_err(not_utf8)?;
        Ok(start..self.text.len())
    }

    /// The names and their values.
    fn pairs(&self) -> impl Iterator<Item = (&str, &str)> {
        let text = |place: &Range<usize>| self.text.get(place.clone()).unwrap_or_default();
        self.pairs.iter().map(move |(name, value)| (text(name), text(value)))
    }

    /// Refuses parameters that are not in `names`, that have no value, or that are repeated. For requests in which a mistake
    /// would cost messages. A parameter of [`MAY_BE_EMPTY`] may have an empty value.
    ///
    /// # Errors
    /// DMS.10540014 with the parameter.
    pub(crate) fn only(&self, names: &[&str]) -> Result<(), ApiError> {
        for (place, (name, value)) in self.pairs().enumerate() {
            let shown = quoted(name);
            let text = if !names.contains(&name) {
                format!("{shown} is not a parameter of this request: {} are known.", names.join(", "))
            } else if value.is_empty() && name != MAY_BE_EMPTY {
                format!("{shown} has no value: add one, or omit the parameter.")
            } else if self.pairs().take(place).any(|(before, _)| before == name) {
                format!("{shown} is given twice.")
            } else {
                continue;
            };
            return Err(codes::URL_PARAMETER.because(text));
        }
        Ok(())
    }

    /// The first value of `name`, also an empty one.
    pub(crate) fn given(&self, name: &str) -> Option<&str> {
        self.pairs().find(|(key, _)| *key == name).map(|(_, value)| value)
    }

    /// The first value of `name`. An empty value counts as absent, as the reference says.
    pub(crate) fn first(&self, name: &str) -> Option<&str> {
        self.all(name).next()
    }

    /// All values of `name` that are not empty.
    pub(crate) fn all(&self, name: &str) -> impl Iterator<Item = &str> {
        self.pairs().filter(move |(key, value)| *key == name && !value.is_empty()).map(|(_, value)| value)
    }

    /// A number in `range`, or `default` when absent.
    ///
    /// # Errors
    /// `code` when it is no number or out of range.
    pub(crate) fn number<T>(&self, name: &str, default: T, range: &RangeInclusive<T>, code: Code) -> Result<T, ApiError>
    where
        T: FromStr + PartialOrd + std::fmt::Display,
    {
        let Some(text) = self.first(name) else { return Ok(default) };
        text.parse().ok().filter(|value| range.contains(value)).ok_or_else(|| {
            let (least, most) = (range.start(), range.end());
            code.at(format!("{name} is {}: {least} to {most} are allowed.", quoted(text)))
        })
    }

    /// `true` or `false` in any case, or `default` when absent.
    ///
    /// # Errors
    /// DMS.10540014 when it is neither.
    pub(crate) fn flag(&self, name: &str, default: bool) -> Result<bool, ApiError> {
        match self.first(name) {
            None => Ok(default),
            Some(text) if text.eq_ignore_ascii_case("true") => Ok(true),
            Some(text) if text.eq_ignore_ascii_case("false") => Ok(false),
            Some(text) => {
                let text = quoted(text);
                Err(codes::URL_PARAMETER.at(format!("{name} is {text}: true or false are allowed.")))
            }
        }
    }
}

/// Decodes `%XX`, and `+` as a space.
///
/// # Errors
/// When the bytes are not UTF-8.
fn decode_into(decoded: &mut String, text: &str) -> Result<(), Utf8Error> {
    let spaced = if text.contains('+') { Cow::Owned(text.replace('+', " ")) } else { Cow::Borrowed(text) };
    decoded.push_str(&percent_decode_str(&spaced).decode_utf8()?);
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn repeated_names_keep_their_order_and_empty_values_are_absent() {
        let query = Query::parse("tag=a%20b&time_wait=&tag=c+d&&x&tag=").unwrap();
        assert_eq!(query.all("tag").collect::<Vec<_>>(), ["a b", "c d"]);
        assert_eq!(query.first("time_wait"), None);
        assert_eq!(query.first("x"), None);
    }

    #[test]
    fn a_stray_percent_sign_stands_for_itself() {
        let query = Query::parse("a=100%&b=%zz&c=%4").unwrap();
        assert_eq!((query.first("a"), query.first("b"), query.first("c")), (Some("100%"), Some("%zz"), Some("%4")));
    }

    #[test]
    fn numbers_outside_their_range_get_the_given_code() {
        let query = Query::parse("max_msgs=11").unwrap();
        let error = query.number("max_msgs", 10, &(1..=10), codes::MAX_MSGS).unwrap_err();
        assert_eq!(error.code(), codes::MAX_MSGS);
        assert_eq!(query.number("time_wait", 3, &(1..=60), codes::TIME_WAIT), Ok(3));
    }

    proptest! {
        #[test]
        fn any_text_is_decoded_or_refused(raw in ".{0,200}") {
            let _ = Query::parse(&raw).map(|query| query.number("a", 1_u64, &(1..=10), codes::MAX_MSGS));
        }

        #[test]
        fn any_bytes_percent_encoded_come_back(value in "[^\u{0}]{1,40}") {
            let encoded: String = value.bytes().map(|byte| format!("%{byte:02x}")).collect();
            let query = Query::parse(&format!("v={encoded}")).unwrap();
            prop_assert_eq!(query.first("v"), Some(value.as_str()));
        }
    }
}
