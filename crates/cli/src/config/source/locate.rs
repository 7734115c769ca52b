//! Finds the line of a key in a YAML text.
//!
//! The parser's values know no lines, but its errors do: a walk that fails on purpose when it reaches the key makes the
//! parser say where it is.

use std::fmt;

use serde::de::{self, DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};

use crate::config::source::path::{KeyPath, index};

/// The line of `path` in `text`, counted from 1, or of the nearest key around it; `None` where the text has none of
/// them. A key that is merged in by an anchor has no line.
pub(crate) fn line(text: &str, path: &KeyPath) -> Option<usize> {
    (1..=path.steps().len()).rev().find_map(|length| exact(text, &path.steps()[..length]))
}

fn exact(text: &str, path: &[String]) -> Option<usize> {
    let error = Walk { path }.deserialize(yaml_serde::Deserializer::from_str(text)).err()?;
    error.to_string().contains(FOUND).then(|| error.location().map(|location| location.line()))?
}

/// What the walk fails with when it has arrived; the parser puts the path before it.
const FOUND: &str = "arrived at the key";

#[derive(Clone, Copy)]
struct Walk<'a> {
    path: &'a [String],
}

impl Walk<'_> {
    /// Fails when this is the place.
    fn arrive<E: de::Error>(self) -> Result<(), E> {
        if self.path.is_empty() { Err(E::custom(FOUND)) } else { Ok(()) }
    }
}

impl<'de> DeserializeSeed<'de> for Walk<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Walk<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a configuration")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        self.arrive()?;
        let Some((wanted, rest)) = self.path.split_first() else { return Ok(()) };
        while let Some(found) = map.next_key_seed(KeySeed { wanted, last: rest.is_empty() })? {
            if found {
                map.next_value_seed(Walk { path: rest })?;
            } else {
                map.next_value::<IgnoredAny>()?;
            }
        }
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<(), A::Error> {
        self.arrive()?;
        let Some((wanted, rest)) = self.path.split_first() else { return Ok(()) };
        for _ in 0..index(wanted).unwrap_or(usize::MAX) {
            if seq.next_element::<IgnoredAny>()?.is_none() {
                return Ok(());
            }
        }
        seq.next_element_seed(Walk { path: rest })?;
        while seq.next_element::<IgnoredAny>()?.is_some() {}
        Ok(())
    }

    fn visit_str<E: de::Error>(self, _: &str) -> Result<(), E> {
        self.arrive()
    }

    fn visit_bool<E: de::Error>(self, _: bool) -> Result<(), E> {
        self.arrive()
    }

    fn visit_u64<E: de::Error>(self, _: u64) -> Result<(), E> {
        self.arrive()
    }

    fn visit_i64<E: de::Error>(self, _: i64) -> Result<(), E> {
        self.arrive()
    }

    fn visit_f64<E: de::Error>(self, _: f64) -> Result<(), E> {
        self.arrive()
    }

    fn visit_unit<E: de::Error>(self) -> Result<(), E> {
        self.arrive()
    }
}

/// A key of a map: fails on the wanted one when it is the last of the path.
struct KeySeed<'a> {
    wanted: &'a str,
    last: bool,
}

impl<'de> DeserializeSeed<'de> for KeySeed<'_> {
    type Value = bool;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<bool, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl Visitor<'_> for KeySeed<'_> {
    type Value = bool;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a key")
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<bool, E> {
        match text == self.wanted {
            true if self.last => Err(E::custom(FOUND)),
            equal => Ok(equal),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str =
        "dms:\n  endpoint: x\n\nworkers:\n  - queue: a\n    group: g\n  - queue: b\n    tags:\n    - one\n    - two\n";

    fn check(path: &[&str], expected: Option<usize>) {
        assert_eq!(line(TEXT, &KeyPath::new(path.iter().copied())), expected, "{path:?}");
    }

    #[test]
    fn keys_and_items_have_their_line() {
        check(&["dms", "endpoint"], Some(2));
        check(&["workers"], Some(4));
        check(&["workers", "0", "group"], Some(6));
        check(&["workers", "1"], Some(7));
        check(&["workers", "1", "tags", "1"], Some(10));
    }

    #[test]
    fn a_missing_key_has_the_line_of_what_is_around_it() {
        check(&["workers", "1", "ack_wait"], Some(7));
        check(&["log", "filter"], None);
    }
}
