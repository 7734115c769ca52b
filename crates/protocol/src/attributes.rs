//! [`Attributes`]: the named values of a message, kept as JSON text.

use std::{
    borrow::Cow,
    collections::HashSet,
    fmt, mem,
    sync::{Arc, OnceLock},
};

use bytes::Bytes;
use serde::{
    Deserialize, Deserializer, Serialize, Serializer,
    de::{Error as _, MapAccess, Visitor},
    ser::SerializeMap,
};
use serde_json::{Value, value::RawValue};

/// The named values of a message, in addition to its body.
///
/// Each value keeps the JSON text in which it arrived, with every digit of a number, every escape of a string, and
/// repeated names of nested objects. A received object is parsed only when a value is read. Of equal names the last one
/// counts. Cloning is cheap, because clones share the text.
///
/// # Examples
/// ```
/// use dms_protocol::message::Attributes;
///
/// let mut attributes = Attributes::raw(r#"{"price":1.10,"customer":"a"}"#)?;
/// attributes.insert("attempt", 2);
/// assert_eq!(attributes.get("price").map(|price| price.get()), Some("1.10"));
/// assert_eq!(attributes.get_str("customer").as_deref(), Some("a"));
/// assert_eq!(serde_json::to_string(&attributes)?, r#"{"price":1.10,"customer":"a","attempt":2}"#);
/// # Ok::<(), serde_json::Error>(())
/// ```
#[derive(Clone, Default)]
pub struct Attributes {
    /// The JSON object as received; `None` without attributes and after a change.
    text: Option<Bytes>,
    /// The values with their names, in order of arrival. Filled when the first value is read.
    entries: OnceLock<Arc<Vec<Entry>>>,
}

#[derive(Clone)]
struct Entry {
    name: Box<str>,
    value: Box<RawValue>,
}

impl Attributes {
    /// Creates an empty list of attributes.
    pub fn new() -> Self {
        Self::default()
    }

    /// Uses the text of a JSON object unchanged.
    ///
    /// # Errors
    /// When the text is not exactly one JSON object.
    pub fn raw(text: impl Into<Bytes>) -> Result<Self, serde_json::Error> {
        let text = text.into();
        let object: &RawValue = serde_json::from_slice(&text)?;
        let entries = parse(object.get().as_bytes())?;
        let whole = (!entries.is_empty()).then(|| text.slice_ref(object.get().as_bytes()));
        Ok(Self { text: whole, entries: OnceLock::from(Arc::new(entries)) })
    }

    /// Uses the text of an object whose grammar and names were checked before. Nothing is checked again, so any other text is sent
    /// as it is, and its values cannot be read.
    #[inline]
    pub fn trusted(text: Bytes) -> Self {
        Self { text: Some(text), entries: OnceLock::new() }
    }

    /// Sets an attribute. It replaces one of the same name, at its position. A `f64` that JSON cannot write (NaN, infinite) becomes
    /// `null`.
    pub fn insert(&mut self, name: impl Into<String>, value: impl Into<Value>) {
        // Values are always valid JSON, so their text cannot be refused.
        if let Ok(value) = serde_json::value::to_raw_value(&value.into()) {
            self.insert_raw(name, value);
        }
    }

    /// Sets an attribute to a JSON text. It replaces one of the same name, at its position.
    pub fn insert_raw(&mut self, name: impl Into<String>, value: Box<RawValue>) {
        let name = name.into().into_boxed_str();
        self.change(|entries| match entries.iter_mut().find(|entry| entry.name == name) {
            Some(entry) => entry.value = value,
            None => entries.push(Entry { name, value }),
        });
    }

    /// The JSON text of an attribute, byte for byte as it was received or set.
    pub fn get(&self, name: &str) -> Option<&RawValue> {
        self.entries().iter().find(|entry| &*entry.name == name).map(|entry| &*entry.value)
    }

    /// The content of an attribute that is a string. `None` for other values, and if there is no such attribute.
    pub fn get_str(&self, name: &str) -> Option<Cow<'_, str>> {
        self.get(name).and_then(string)
    }

    /// The value of an attribute that is an integer from 0 to 2^64 - 1. `None` for other values, also for strings of digits.
    pub fn get_u64(&self, name: &str) -> Option<u64> {
        serde_json::from_str(self.get(name)?.get()).ok()
    }

    /// An attribute as text: the content of a string, or the JSON text of any other value.
    pub fn text(&self, name: &str) -> Option<Cow<'_, str>> {
        self.get(name).map(text)
    }

    /// An attribute as a parsed value. In contrast to [`get`](Self::get) this loses digits that a `u64`, `i64` or `f64`
    /// cannot hold, and all but the last of equal names in nested objects. Returns `None` also for numbers that do not
    /// fit, such as `1e400`.
    pub fn value(&self, name: &str) -> Option<Value> {
        serde_json::from_str(self.get(name)?.get()).ok()
    }

    /// All attributes as parsed values, with the losses of [`value`](Self::value).
    pub fn to_values(&self) -> serde_json::Map<String, Value> {
        let parsed =
            |(name, value): (&str, &RawValue)| Some((name.to_owned(), serde_json::from_str(value.get()).ok()?));
        self.iter().filter_map(parsed).collect()
    }

    /// Removes an attribute and returns its JSON text. `None` if there is no such attribute.
    pub fn remove(&mut self, name: &str) -> Option<Box<RawValue>> {
        let at = self.entries().iter().position(|entry| &*entry.name == name)?;
        Some(self.change(|entries| entries.remove(at)).value)
    }

    /// Keeps the attributes for whose names `keep` returns true.
    pub fn retain(&mut self, keep: impl Fn(&str) -> bool) {
        if !self.entries().iter().all(|entry| keep(&entry.name)) {
            self.change(|entries| entries.retain(|entry| keep(&entry.name)));
        }
    }

    /// Returns whether an attribute of this name exists.
    pub fn contains(&self, name: &str) -> bool {
        self.get(name).is_some()
    }

    /// The number of attributes.
    pub fn len(&self) -> usize {
        self.entries().len()
    }

    /// Returns whether there are no attributes.
    pub fn is_empty(&self) -> bool {
        self.entries().is_empty()
    }

    /// The names with their JSON texts, in order of arrival.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (&str, &RawValue)> {
        self.entries().iter().map(|entry| (&*entry.name, &*entry.value))
    }

    /// The JSON object; the received text if nothing was changed.
    pub fn to_json(&self) -> Cow<'_, str> {
        match &self.text {
            // The text is valid JSON, and JSON is UTF-8.
            Some(text) => String::from_utf8_lossy(text),
            None => Cow::Owned(written(self.entries())),
        }
    }

    fn entries(&self) -> &[Entry] {
        match &self.text {
            None => self.entries.get().map_or(&[], |entries| entries),
            Some(text) => self.entries.get_or_init(|| Arc::new(parse(text).unwrap_or_default())),
        }
    }

    /// Changes the entries and drops the received text, which no longer matches.
    fn change<T>(&mut self, change: impl FnOnce(&mut Vec<Entry>) -> T) -> T {
        self.entries();
        self.text = None;
        let mut entries = self.entries.take().unwrap_or_default();
        let changed = change(Arc::make_mut(&mut entries));
        self.entries = OnceLock::from(entries);
        changed
    }
}

/// The content of a string; `None` for other values, and for half a surrogate pair, which is no character.
fn string(value: &RawValue) -> Option<Cow<'_, str>> {
    #[derive(Deserialize)]
    struct Text<'a>(#[serde(borrow)] Cow<'a, str>);
    serde_json::from_str(value.get()).ok().map(|Text(text)| text)
}

fn text(value: &RawValue) -> Cow<'_, str> {
    string(value).unwrap_or(Cow::Borrowed(value.get()))
}

/// The members of an object, the last of each name.
fn parse(object: &[u8]) -> Result<Vec<Entry>, serde_json::Error> {
    struct Members(Vec<Entry>);
    impl<'de> Deserialize<'de> for Members {
        fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
            struct Visit;
            impl<'de> Visitor<'de> for Visit {
                type Value = Members;

                fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                    f.write_str("an object of attributes")
                }

                fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Members, A::Error> {
                    let mut members = Vec::new();
                    while let Some((name, value)) = map.next_entry()? {
                        members.push(Entry { name, value });
                    }
                    Ok(Members(members))
                }
            }
            deserializer.deserialize_map(Visit)
        }
    }
    let Members(mut entries) = serde_json::from_slice(object)?;
    let mut seen = HashSet::with_capacity(entries.len());
    let last: Vec<bool> = entries.iter().rev().map(|entry| seen.insert(&*entry.name)).collect();
    if seen.len() < entries.len() {
        let mut last = last.into_iter().rev();
        entries = mem::take(&mut entries).into_iter().filter(|_| last.next().unwrap_or(true)).collect();
    }
    Ok(entries)
}

fn written(entries: &[Entry]) -> String {
    let mut json = String::from("{");
    for (index, entry) in entries.iter().enumerate() {
        json.push_str(if index > 0 { "," } else { "" });
        json.push_str(&Value::from(&*entry.name).to_string());
        json.push(':');
        json.push_str(entry.value.get());
    }
    json.push('}');
    json
}

impl fmt::Debug for Attributes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Logs show the names only, because values are the users' data.
        f.write_str("Attributes")?;
        f.debug_set().entries(self.iter().map(|(name, _)| name)).finish()
    }
}

/// Equal when the same names have the same JSON texts, in any order.
impl PartialEq for Attributes {
    fn eq(&self, other: &Self) -> bool {
        let text = |value: Option<&RawValue>| value.map(|value| value.get().to_owned());
        self.len() == other.len() && self.iter().all(|(name, value)| text(other.get(name)) == text(Some(value)))
    }
}

impl Eq for Attributes {}

impl<N: Into<String>, V: Into<Value>> FromIterator<(N, V)> for Attributes {
    fn from_iter<T: IntoIterator<Item = (N, V)>>(pairs: T) -> Self {
        let mut attributes = Self::new();
        attributes.extend(pairs);
        attributes
    }
}

impl<N: Into<String>, V: Into<Value>> Extend<(N, V)> for Attributes {
    fn extend<T: IntoIterator<Item = (N, V)>>(&mut self, pairs: T) {
        pairs.into_iter().for_each(|(name, value)| self.insert(name, value));
    }
}

impl Serialize for Attributes {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.len()))?;
        for (name, value) in self.iter() {
            map.serialize_entry(name, value)?;
        }
        map.end()
    }
}

/// Works with `serde_json` only, because other formats have no JSON text.
impl<'de> Deserialize<'de> for Attributes {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = Box::<RawValue>::deserialize(deserializer)?;
        Self::raw(String::from(Box::<str>::from(text))).map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use serde_json::json;

    use super::*;

    /// Values that a tree of parsed values would change.
    const ODD: &str =
        r#"{"e":1e3,"z":-0,"i":123456789012345678901234567890,"f":1.10,"s":"\u00e9\/","n":{"a":1,"a":2},"l":[1, 2]}"#;

    #[test]
    fn values_keep_their_text() {
        let attributes: Attributes = serde_json::from_str(ODD).unwrap();
        assert_eq!(attributes.to_json(), ODD);
        assert_eq!(serde_json::to_string(&attributes).unwrap(), ODD);
        let mut changed = attributes.clone();
        changed.insert("new", "x");
        assert_eq!(changed.to_json(), ODD.replace("]}", r#"],"new":"x"}"#));
        changed.remove("new");
        assert_eq!((changed.to_json().as_ref(), &changed), (ODD, &attributes));
        assert_eq!(attributes.get("i").unwrap().get().len(), 30);
        assert_eq!(attributes.get_str("s").as_deref(), Some("é/"));
    }

    #[test]
    fn an_attribute_is_read_by_its_type() {
        let attributes = Attributes::raw(r#" {"n":7,"t":"7","big":1e400,"half":"\ud83d","no":null} "#).unwrap();
        assert_eq!((attributes.get_u64("n"), attributes.get_u64("t")), (Some(7), None));
        assert_eq!((attributes.get_str("n"), attributes.get_str("t").as_deref()), (None, Some("7")));
        assert_eq!((attributes.value("n"), attributes.value("big")), (Some(json!(7)), None));
        assert_eq!((attributes.value("no"), attributes.value("gone")), (Some(Value::Null), None));
        assert_eq!((attributes.get_str("half"), attributes.text("half").as_deref()), (None, Some(r#""\ud83d""#)));
        assert_eq!(attributes.text("n").as_deref(), Some("7"));
        assert_eq!(format!("{attributes:?}"), r#"Attributes{"n", "t", "big", "half", "no"}"#);
    }

    #[test]
    fn of_equal_names_the_last_counts_and_the_text_stays() {
        let text = r#"{"a":1,"b":2,"\u0061":3}"#;
        let mut attributes = Attributes::raw(text).unwrap();
        assert_eq!((attributes.len(), attributes.get_u64("a"), attributes.to_json().as_ref()), (2, Some(3), text));
        attributes.insert("b", 4);
        assert_eq!(attributes.to_json(), r#"{"b":4,"a":3}"#);
    }

    #[test]
    fn what_is_no_object_is_refused() {
        for text in ["", "null", "[]", "{", "{} {}", r#"{"a":}"#, "1"] {
            assert!(Attributes::raw(text).is_err(), "{text}");
        }
        for empty in [Attributes::new(), Attributes::raw(" { } ").unwrap()] {
            assert!(empty.is_empty() && empty == Attributes::new());
        }
    }

    #[test]
    fn attributes_are_kept_by_their_names() {
        let mut attributes = Attributes::from_iter([("a", 1), ("b", 2), ("c", 3)]);
        attributes.retain(|name| name != "b");
        assert_eq!(attributes.to_json(), r#"{"a":1,"c":3}"#);
        assert!(attributes.contains("a") && !attributes.contains("b"));
        assert_eq!(attributes, Attributes::from_iter([("c", 3), ("a", 1)]));
        assert_ne!(attributes, Attributes::from_iter([("c", 3), ("a", 2)]));
    }
}
