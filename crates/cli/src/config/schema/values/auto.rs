//! [`Auto`]: a value that the program may choose itself.

use std::{borrow::Cow, fmt, marker::PhantomData, str::FromStr};

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use crate::config::schema::values::span::Span;

/// `auto`, or a value of the user's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Auto<T> {
    /// The program chooses, and may change its choice while it runs. The default.
    #[default]
    Auto,
    /// This value and no other.
    Fixed(T),
}

/// A type whose value the program may choose.
pub trait Choosable: FromStr {
    /// What a user may write beside `auto`.
    const WRITTEN: &str;
}

impl Choosable for usize {
    const WRITTEN: &str = "a whole number";
}

impl Choosable for Span {
    const WRITTEN: &str = "a duration like 30s";
}

impl<T> Auto<T> {
    /// The user's value, if there is one.
    pub fn fixed(self) -> Option<T> {
        match self {
            Self::Auto => None,
            Self::Fixed(value) => Some(value),
        }
    }
}

impl<T: fmt::Display> fmt::Display for Auto<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Auto => f.write_str("auto"),
            Self::Fixed(value) => value.fmt(f),
        }
    }
}

impl<T: fmt::Display> Serialize for Auto<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<T: JsonSchema> JsonSchema for Auto<T> {
    fn schema_name() -> Cow<'static, str> {
        format!("Auto{}", T::schema_name()).into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let value = generator.subschema_for::<T>();
        json_schema!({ "anyOf": [{ "const": "auto", "description": "The program chooses." }, value] })
    }
}

impl<'de, T: Choosable> Deserialize<'de> for Auto<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(AutoVisitor(PhantomData))
    }
}

struct AutoVisitor<T>(PhantomData<T>);

impl<T: Choosable> de::Visitor<'_> for AutoVisitor<T> {
    type Value = Auto<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`auto` or {}", T::WRITTEN)
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Auto<T>, E> {
        if text == "auto" {
            return Ok(Auto::Auto);
        }
        let invalid = || E::custom(format_args!("`{text}` is not allowed: write `auto` or {}", T::WRITTEN));
        text.parse().map(Auto::Fixed).map_err(|_| invalid())
    }

    fn visit_u64<E: de::Error>(self, number: u64) -> Result<Auto<T>, E> {
        self.visit_str(&number.to_string())
    }
}
