//! The items of a list, counted before anything is made of them.

use dms_protocol::{internal::json::Scan, message::Message};

/// The most messages of one request.
const MAX_MESSAGES: usize = 10_000;

/// The messages of a request, and whether it was a single message rather than a list.
pub(super) type ParsedRequest = (Vec<Result<Message, String>>, bool);

/// The items of a JSON list as they are written. `what` names such a list in errors.
///
/// # Errors
/// When it is no list, empty, or longer than [`MAX_MESSAGES`].
pub(super) fn items<'a>(json: &'a [u8], what: &str) -> Result<Vec<&'a str>, String> {
    let (mut items, mut count) = (Vec::new(), 0);
    let scanned = Scan::whole(json, |scan| {
        scan.items(|scan| {
            let item = scan.value()?;
            count += 1;
            // Items beyond the limit are counted and not kept, because a megabyte of `1,1,1,…` has half a million items.
            if count <= MAX_MESSAGES {
                items.push(item);
            }
            Ok(())
        })
    });
    match (scanned, count) {
        (Err(fault), _) => Err(format!("the {what} is not a JSON list: {}", fault.explain(json))),
        (Ok(_), 0) => Err(format!("the {what} is empty: at least one message is needed")),
        (Ok(_), 1..=MAX_MESSAGES) => items.into_iter().map(text).collect(),
        (Ok(_), many) => Err(format!("the {what} has {many} messages: at most {MAX_MESSAGES} are allowed")),
    }
}

fn text(item: &[u8]) -> Result<&str, String> {
    std::str::from_utf8(item).map_err(|error| format!("the body is not UTF-8: {error}"))
}

/// The messages of a list; an error names the index of its message.
pub(super) fn placed(messages: impl Iterator<Item = Result<Message, String>>) -> Vec<Result<Message, String>> {
    let named = |(place, message): (usize, Result<Message, String>)| {
        message.map_err(|reason| format!("messages[{place}]: {reason}"))
    };
    messages.enumerate().map(named).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn items_are_counted_and_those_beyond_the_limit_are_not_kept() {
        assert_eq!(items(b" [1, {\"a\": [2]},\"x\" ]", "list").unwrap(), ["1", "{\"a\": [2]}", "\"x\""]);
        let list = |count: usize| format!("[{}1]", "1,".repeat(count - 1));
        assert_eq!(items(list(MAX_MESSAGES).as_bytes(), "list").unwrap().len(), MAX_MESSAGES);
        let many = items(list(4_000_000).as_bytes(), "list").unwrap_err();
        assert_eq!(many, "the list has 4000000 messages: at most 10000 are allowed");
    }

    #[test]
    fn what_is_no_list_or_empty_is_refused() {
        assert_eq!(items(b"[]", "list").unwrap_err(), "the list is empty: at least one message is needed");
        for bad in ["[1", "{}", "[1,]", "[1] 2", "[\u{1}]", "[nul]"] {
            let reason = items(bad.as_bytes(), "batch").unwrap_err();
            assert!(reason.starts_with("the batch is not a JSON list: "), "{reason}");
        }
        assert!(items(b"[\"\xff\"]", "list").is_err());
    }
}
