//! [`Filter`]: which messages a `dlq` command is about.

use clap::Args;
use serde_json::{Value, value::RawValue};

use crate::cli::{
    commands::send,
    support::failure::{ExitKind, Failure},
};
use dms_protocol::{
    internal::json::at,
    message::{Attributes, Body, Message, ReceivedMessage},
};
use dms_worker::{
    Dialect,
    client::{Client, PeekedMessage},
};

/// Conditions that all have to hold.
#[derive(Clone, Debug, Default, Args)]
pub(crate) struct Filter {
    /// Only messages with this attribute; may be repeated
    #[arg(long = "match", value_name = "NAME=VALUE", value_parser = send::attribute)]
    attributes: Vec<(String, Box<RawValue>)>,
    /// Only messages with this label (dead letters of the hosted service carry none); may be repeated
    #[arg(long = "tag", value_name = "LABEL")]
    tags: Vec<String>,
    /// Only messages whose body has this value at this JSON pointer, as in /customer/id=7; may be repeated
    #[arg(long = "match-body", value_name = "POINTER=VALUE", value_parser = pointer)]
    bodies: Vec<(String, Box<RawValue>)>,
}

/// Reads `POINTER=VALUE`.
fn pointer(text: &str) -> Result<(String, Box<RawValue>), String> {
    let (pointer, value) = send::attribute(text).map_err(|_| "write POINTER=VALUE".to_owned())?;
    match pointer.is_empty() || pointer.starts_with('/') {
        true => Ok((pointer, value)),
        false => Err(format!("a JSON pointer begins with `/`: write /{pointer}={value}")),
    }
}

impl Filter {
    /// Whether every message passes.
    pub(crate) fn is_empty(&self) -> bool {
        self.attributes.is_empty() && self.tags.is_empty() && self.bodies.is_empty()
    }

    /// Whether a condition is about attributes or labels.
    pub(crate) fn needs_more_than_bodies(&self) -> bool {
        !self.attributes.is_empty() || !self.tags.is_empty()
    }

    /// Refuses conditions that no message of the client's service can pass.
    ///
    /// # Errors
    /// Over ROMA Connect MQS when there is a condition about labels. A parked message has the attributes of its history.
    pub(crate) fn check_for(&self, client: &Client) -> Result<(), Failure> {
        if self.tags.is_empty() || client.dialect() == Dialect::Dms {
            return Ok(());
        }
        let text = "--tag: messages of ROMA Connect MQS have no labels: choose them with --match-body";
        Err(Failure::of(ExitKind::Usage, text))
    }

    /// Whether a message that was consumed passes.
    pub(crate) fn passes(&self, message: &ReceivedMessage) -> bool {
        self.holds(&message.body, &message.attributes, &message.tags)
    }

    /// Whether a message of a file passes.
    pub(super) fn passes_line(&self, message: &Message) -> bool {
        self.holds(&message.body, &message.attributes, &message.tags)
    }

    /// Whether a message that was shown passes.
    pub(crate) fn passes_peeked(&self, message: &PeekedMessage) -> bool {
        self.holds(&message.body, &message.attributes, &message.tags)
    }

    /// Whether a message of these parts passes.
    fn holds(&self, body: &Body, attributes: &Attributes, tags: &[String]) -> bool {
        let attribute = |(name, wanted): &(String, Box<RawValue>)| {
            attributes.get(name).is_some_and(|found| same(found.get(), wanted.get()))
        };
        self.attributes.iter().all(attribute)
            && self.tags.iter().all(|tag| tags.contains(tag))
            && (self.bodies.is_empty() || self.holds_body(body))
    }

    fn holds_body(&self, body: &Body) -> bool {
        let holds = |(pointer, wanted): &(String, Box<RawValue>)| {
            at(body.as_str(), pointer).is_some_and(|found| same(found, wanted.get()))
        };
        body.fault().is_none() && self.bodies.iter().all(holds)
    }
}

/// `7` on the command line is a number, and stands for a text "7" too.
fn same(found: &str, wanted: &str) -> bool {
    let text = |value: &str| serde_json::from_str(value).unwrap_or_else(|_| value.to_owned());
    if found == wanted || text(found) == text(wanted) {
        return true;
    }
    // Lists and objects may be written in more than one way.
    let is_tree = |value: &str| value.starts_with(['{', '[']);
    let tree = |value: &str| serde_json::from_str::<Value>(value).ok();
    is_tree(found) && is_tree(wanted) && tree(found).is_some_and(|found| Some(found) == tree(wanted))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn every_condition_has_to_hold() {
        let message =
            Message::json(&serde_json::json!({"customer": {"id": 7}})).unwrap().attribute("n", "1").tag("red");
        let passes = |attributes: &[&str], tags: &[&str], bodies: &[&str]| {
            let filter = Filter {
                attributes: attributes.iter().map(|text| send::attribute(text).unwrap()).collect(),
                tags: tags.iter().map(|tag| (*tag).to_owned()).collect(),
                bodies: bodies.iter().map(|text| pointer(text).unwrap()).collect(),
            };
            filter.passes_line(&message)
        };
        assert!(passes(&[], &[], &[]));
        assert!(passes(&["n=1"], &["red"], &["/customer/id=7"]));
        assert!(!passes(&["n=2"], &["red"], &["/customer/id=7"]));
        assert!(!passes(&["n=1"], &["blue"], &[]));
        assert!(!passes(&[], &[], &["/customer/id=8"]));
        assert!(!passes(&[], &[], &["/customer/name=7"]));
        assert!(!passes(&["n=2"], &[], &[]));
        assert!(pointer("customer=1").unwrap_err().contains("write /customer=1"));
    }

    #[test]
    fn numbers_are_compared_with_all_their_digits() {
        let json = r#"{"price":1e400,"ids":[1,12345678901234567890123],"a/b":{"x":[1, 2]}}"#;
        let message = Message::new(Body::raw(json).unwrap());
        let passes =
            |text: &str| Filter { bodies: vec![pointer(text).unwrap()], ..Filter::default() }.passes_line(&message);
        assert!(passes("/ids/1=12345678901234567890123") && passes("/price=1e400"));
        assert!(!passes("/ids/1=12345678901234567890124") && !passes("/ids/x=1") && !passes("/ids/2=1"));
        assert!(passes("/a~1b/x=[1,2]") && passes("/a~1b/x/0=1"));
        assert!(!passes("/a~1b/x/y=1") && !passes("/price/0=1"));
    }
}
