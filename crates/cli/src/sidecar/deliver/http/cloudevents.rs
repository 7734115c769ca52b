//! A message as a CloudEvent in binary mode (CloudEvents 1.0.2, HTTP protocol binding 3.1): its attributes are headers,
//! its data is the body.

use std::{borrow::Cow, collections::BTreeMap};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, header::CONTENT_TYPE};
use serde_json::{Value, value::RawValue};
use sha2::{Digest, Sha256};

use crate::{message_json::object::Object, sidecar::deliver::http::request::put};
use dms_protocol::auth::canonical::hex;
use dms_worker::worker::Delivery;

/// The longest name of an extension by the specification's advice.
const MAX_NAME: usize = 20;

/// Attribute of a message that was an event without data. Its body is `null`, and it leaves as an event without data; an event whose
/// data is `null` has no such attribute.
pub(crate) const NO_DATA: &str = "dms-no-data";

/// Adds the event's headers. `source` is `/dms/PROJECT/QUEUE`.
pub(crate) fn add(headers: &mut HeaderMap, delivery: &Delivery, source: &str) {
    for (name, json) in attributes(delivery, source) {
        let text = serde_json::from_str(&json).unwrap_or(json);
        put(headers, &format!("ce-{name}"), &encode(&text));
    }
}

/// The message as an event in JSON (CloudEvents 1.0.2, JSON event format), for a batch. Its data is the body's own text.
pub(crate) fn event(delivery: &Delivery, source: &str) -> String {
    let mut event = Object::new();
    for (name, json) in attributes(delivery, source) {
        event = event.raw(&name, &json);
    }
    if is_without_data(delivery) {
        return event.finish();
    }
    let content_type = text_type(delivery).unwrap_or("application/json".into());
    event.text("datacontenttype", &content_type).raw("data", delivery.body().as_str()).finish()
}

fn is_without_data(delivery: &Delivery) -> bool {
    delivery.attributes().get(NO_DATA).is_some_and(|flag| flag.get() == "true") && delivery.body().as_str() == "null"
}

/// The event's attributes with their JSON texts.
///
/// Attributes of the message that are called `ce-…` win over ours, so that an event keeps its id and type on its way
/// through a queue. Other attributes become extensions where their name and value can be one.
fn attributes(delivery: &Delivery, source: &str) -> BTreeMap<String, String> {
    let mut event = BTreeMap::new();
    let own = [
        ("specversion", "1.0"),
        ("id", &id(delivery)),
        ("source", source),
        ("type", "dms.message"),
        ("dmsqueue", delivery.queue()),
        ("dmsgroup", delivery.group()),
    ];
    event.extend(own.map(|(name, text)| (name.to_owned(), Value::from(text).to_string())));
    let named =
        |prefixed: bool| delivery.attributes().iter().filter(move |(name, _)| name.starts_with("ce-") == prefixed);
    for (name, value) in named(false).chain(named(true)) {
        let bare = name.strip_prefix("ce-").unwrap_or(name);
        let fits = name.starts_with("ce-") || (bare.len() <= MAX_NAME && !is_reserved(bare));
        // Data and content types have places of their own.
        if is_name(bare) && fits && !matches!(bare, "data" | "datacontenttype") {
            event.extend(scalar(value).map(|json| (bare.to_owned(), json)));
        }
    }
    event
}

/// The data as it goes into the request. Text that came as text leaves as text; everything else is JSON.
pub(crate) fn data(headers: &mut HeaderMap, delivery: &Delivery) -> Bytes {
    if is_without_data(delivery) {
        headers.remove(CONTENT_TYPE);
        return Bytes::new();
    }
    let content_type = text_type(delivery).and_then(|text| HeaderValue::from_str(&text).ok());
    match (content_type, delivery.body().parse::<String>()) {
        (Some(content_type), Ok(text)) => {
            headers.insert(CONTENT_TYPE, content_type);
            text.into()
        }
        _ => delivery.body().as_bytes().clone(),
    }
}

/// The type of an event whose data came as text.
fn text_type(delivery: &Delivery) -> Option<Cow<'_, str>> {
    delivery.attribute("ce-datacontenttype").filter(|text| text.starts_with("text/"))
}

/// The id of the message. Only this project's server sends one; elsewhere the id belongs to this delivery alone. A consumer that
/// drops events with known ids loses no message, because no two deliveries have the same id.
fn id(delivery: &Delivery) -> String {
    let of_delivery = || hex(&Sha256::digest(delivery.handle().as_str())[..16]);
    delivery.id().map_or_else(of_delivery, |id| id.to_string())
}

/// Names of attributes are lower-case letters and digits.
fn is_name(name: &str) -> bool {
    !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit())
}

fn is_reserved(name: &str) -> bool {
    matches!(name, "specversion" | "id" | "source" | "type" | "subject" | "time" | "dataschema" | "data")
}

/// What an attribute can be (CloudEvents 1.0.2, 3.1.1): texts, truth values and whole numbers of 32 bits; other numbers as
/// text, with all their digits.
fn scalar(value: &RawValue) -> Option<String> {
    let json = value.get();
    match json.as_bytes().first()? {
        b'"' | b't' | b'f' => Some(json.to_owned()),
        b'-' | b'0'..=b'9' if json.parse::<i32>().is_ok() => Some(json.to_owned()),
        b'-' | b'0'..=b'9' => Some(format!("\"{json}\"")),
        _ => None,
    }
}

/// Percent-encodes what the binding says: space, `"`, `%`, and everything outside U+0021-7E.
fn encode(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'"' | b'%' => out.push_str(&format!("%{byte:02X}")),
            0x21..=0x7e => out.push(char::from(byte)),
            _ => out.push_str(&format!("%{byte:02X}")),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_encoded_as_the_binding_says() {
        assert_eq!(encode("Euro € 😀"), "Euro%20%E2%82%AC%20%F0%9F%98%80");
        assert_eq!(encode("100% \"x\""), "100%25%20%22x%22");
        assert_eq!(encode("/dms/p/orders"), "/dms/p/orders");
    }

    #[test]
    fn names_of_extensions_are_lower_case_letters_and_digits() {
        assert!(is_name("tenant1"));
        ["", "Tenant", "tenant-id", "a_b"].into_iter().for_each(|name| assert!(!is_name(name), "{name}"));
    }
}
