//! JSON pointers (RFC 6901) into a text, without building a tree.

use std::{borrow::Cow, str};

use super::Scan;

/// The value at a JSON pointer, in its own text: numbers keep all their digits. The empty pointer is the whole text.
pub fn at<'a>(json: &'a str, pointer: &str) -> Option<&'a str> {
    let steps = pointer.split('/').skip(1).map(|step| match step.contains('~') {
        true => Cow::Owned(step.replace("~1", "/").replace("~0", "~")),
        false => Cow::Borrowed(step),
    });
    let found = steps.into_iter().try_fold(json.as_bytes(), |value, step| inside(value, &step))?;
    str::from_utf8(found).ok()
}

/// The text or the number at a JSON pointer; `None` for any other value.
pub fn text_at<'a>(json: &'a str, pointer: &str) -> Option<Cow<'a, str>> {
    let found = at(json, pointer)?.trim();
    match found.as_bytes().first()? {
        b'"' => Scan::whole(found.as_bytes(), Scan::string).ok(),
        b'-' | b'0'..=b'9' => Some(found.into()),
        _ => None,
    }
}

/// Whether a text is a JSON pointer to a part of a value.
pub fn is_pointer(text: &str) -> bool {
    text.starts_with('/')
}

/// The member of an object, or the item of a list; of equal names the last one counts.
fn inside<'a>(value: &'a [u8], step: &str) -> Option<&'a [u8]> {
    let mut found = None;
    let read = Scan::whole(value, |scan| match scan.first() {
        Some(b'{') => scan.members(|name, scan| {
            let value = scan.value()?;
            if **name == *step.as_bytes() {
                found = Some(value);
            }
            Ok(())
        }),
        Some(b'[') => {
            let items = scan.items(Scan::value)?;
            found = step.parse::<usize>().ok().and_then(|index| items.get(index).copied());
            Ok(())
        }
        _ => Ok(()),
    });
    read.ok().and(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pointer_finds_members_and_items() {
        let json = r#" {"order": {"id": "o-7", "a/b": 1, "~": [10, 2e3]}, "n": 1.50, "order2": null} "#;
        for (pointer, expected) in [
            ("/order/id", Some("\"o-7\"")),
            ("/order/a~1b", Some("1")),
            ("/order/~0/1", Some("2e3")),
            ("/n", Some("1.50")),
            ("/order2", Some("null")),
            ("/order/id/x", None),
            ("/order/~0/2", None),
            ("/other", None),
        ] {
            assert_eq!(at(json, pointer), expected, "{pointer}");
        }
        assert_eq!(at("7", ""), Some("7"));
    }

    #[test]
    fn only_texts_and_numbers_are_keys() {
        for (json, expected) in [
            (r#"{"k":"a\"b"}"#, Some("a\"b")),
            (r#"{"k": -7 }"#, Some("-7")),
            (r#"{"k":true}"#, None),
            (r#"{"k":null}"#, None),
            (r#"{"k":{}}"#, None),
            (r#"["k"]"#, None),
            (r#"{"k":"a""#, None),
        ] {
            assert_eq!(text_at(json, "/k").as_deref(), expected, "{json}");
        }
    }
}
