//! Wrapped messages: documents with the body and the attributes of a parked message, for a service whose messages are
//! bodies and nothing else.

use crate::{
    json::{Scan, push_string},
    message::{Attributes, Body, Message, ReceivedMessage},
    worker::attributes::{ORIGIN, REASON},
};

/// A message whose body has the body and the attributes of another one.
pub(crate) fn wrap(copy: &Message) -> Message {
    let attributes = copy.attributes.to_json();
    let mut json = Vec::with_capacity(copy.body.len() + attributes.len() + 32);
    json.extend_from_slice(b"{\"body\":");
    json.extend_from_slice(copy.body.as_bytes());
    json.extend_from_slice(b",\"attributes\":");
    json.extend_from_slice(attributes.as_bytes());
    if !copy.tags.is_empty() {
        json.extend_from_slice(b",\"tags\":[");
        for (index, tag) in copy.tags.iter().enumerate() {
            json.extend_from_slice(if index > 0 { b"," } else { b"" });
            push_string(&mut json, tag);
        }
        json.push(b']');
    }
    json.push(b'}');
    // All parts are JSON.
    Message::new(Body::trusted(json.into()))
}

/// Replaces a document by the message that it has. Leaves any other message as it is.
pub(crate) fn unwrap(message: &mut ReceivedMessage) {
    if message.undecodable().is_none() {
        unwrap_parts(&mut message.body, &mut message.attributes, &mut message.tags);
    }
}

/// The same for the parts of a message.
///
/// A document is an object of `body` and `attributes`, perhaps with `tags`, whose attributes say why and from where the
/// message was parked. A message that has attributes already is none, because a service that carries attributes needs no document.
pub fn unwrap_parts(body: &mut Body, attributes: &mut Attributes, tags: &mut Vec<String>) {
    if attributes.is_empty()
        && let Some(parts) = parts(body)
    {
        (*body, *attributes, *tags) = parts;
    }
}

fn parts(document: &Body) -> Option<(Body, Attributes, Vec<String>)> {
    let text = document.as_bytes();
    let (mut body, mut attributes, mut tags, mut others) = (None, None, Vec::new(), false);
    let read = Scan::whole(text, |scan| {
        scan.members(|name, scan| {
            match &**name {
                b"body" => body = Some(scan.value()?),
                b"attributes" => attributes = Some(scan.value()?),
                b"tags" => tags = scan.items(Scan::owned)?,
                _ => {
                    scan.value()?;
                    others = true;
                }
            }
            Ok(())
        })
    });
    let (Ok(()), Some(body), Some(attributes), false) = (read, body, attributes, others) else { return None };
    let attributes = Attributes::raw(text.slice_ref(attributes)).ok()?;
    let is_parked = attributes.contains(REASON) && attributes.contains(ORIGIN);
    is_parked.then(|| (Body::trusted(text.slice_ref(body)), attributes, tags))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn received(body: &Body) -> ReceivedMessage {
        ReceivedMessage::new(body.clone(), Attributes::new(), Vec::new(), "h")
    }

    #[test]
    fn a_document_has_the_message_in_its_own_text() {
        let copy = Message::new(Body::raw(r#"{ "n": 1.50 }"#).unwrap());
        let copy = copy.attribute(REASON, "failed").attribute(ORIGIN, "orders").tag("a\"b");
        let document = wrap(&copy).body;
        assert_eq!(
            document.as_str(),
            r#"{"body":{ "n": 1.50 },"attributes":{"dms-reason":"failed","dms-origin":"orders"},"tags":["a\"b"]}"#
        );
        let mut found = received(&document);
        unwrap(&mut found);
        assert_eq!((&found.body, &found.attributes, &found.tags), (&copy.body, &copy.attributes, &copy.tags));
        assert_eq!(found.handle.as_str(), "h");
    }

    #[test]
    fn other_messages_are_left_as_they_are() {
        for body in [
            r#"{"body":1}"#,
            r#"{"body":1,"attributes":{}}"#,
            r#"{"body":1,"attributes":{"dms-reason":"failed"}}"#,
            r#"{"body":1,"attributes":{"dms-reason":"failed","dms-origin":"q"},"more":1}"#,
            r#"{"body":1,"attributes":[]}"#,
            "[1]",
            "7",
        ] {
            let mut message = received(&Body::raw(body).unwrap());
            unwrap(&mut message);
            assert_eq!(message.body.as_str(), body);
        }
        let document = r#"{"body":1,"attributes":{"dms-reason":"f","dms-origin":"q"}}"#;
        let mut message = received(&Body::raw(document).unwrap());
        message.attributes.insert("own", 1);
        unwrap(&mut message);
        assert_eq!(message.body.as_str(), document, "it has other attributes");
    }
}
