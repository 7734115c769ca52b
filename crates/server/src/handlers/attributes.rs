//! Reading the attributes of a message.

use std::{borrow::Cow, collections::HashMap};

use bytes::Bytes;

use crate::broker::MessageOrigin;
use dms_protocol::{
    internal::json::{Fault, Name, Scan, push_string},
    limits::MAX_NESTING,
    message::{Attributes, MESSAGE_ID},
};

/// The attributes of a message that is sent without any.
pub(crate) const NO_ATTRIBUTES: &[u8] = b"{}";

/// Reads the attributes as they are. Only if a name is repeated, its last value is kept, at the place of the last one (5.3.1).
/// Values are never changed.
///
/// # Errors
/// When they are not an object, or strict JSON parsers could not read them.
pub(crate) fn read<'a>(scan: &mut Scan<'a>) -> Result<Cow<'a, [u8]>, Fault> {
    let start = scan.start();
    let mut members = Vec::<(Name<'a>, &'a [u8])>::new();
    scan.members(|name, scan| {
        members.push((name.clone(), scan.portable(MAX_NESTING, 1)?));
        Ok(())
    })?;
    let whole = scan.since(start);
    Ok(last_of_each(&members).map_or(Cow::Borrowed(whole), Cow::Owned))
}

/// The origin that a copy names in its attributes.
pub(crate) fn origin(attributes: &[u8]) -> Option<MessageOrigin> {
    // Nearly no message has the attribute, so its name is looked for before anything is parsed. Copies do not escape it.
    std::str::from_utf8(attributes).ok().filter(|text| text.contains(MESSAGE_ID))?;
    let attributes = Attributes::trusted(Bytes::copy_from_slice(attributes));
    MessageOrigin::parse(&attributes.get_str(MESSAGE_ID)?)
}

/// The object without repeated names; `None` if no name is repeated.
fn last_of_each(members: &[(Name<'_>, &[u8])]) -> Option<Vec<u8>> {
    if members.len() < 2 {
        return None;
    }
    let last: HashMap<&[u8], usize> = members.iter().enumerate().map(|(at, (name, _))| (&**name, at)).collect();
    if last.len() == members.len() {
        return None;
    }
    let mut text = vec![b'{'];
    for (at, (name, value)) in members.iter().enumerate() {
        if last.get(&**name) == Some(&at) {
            if text.len() > 1 {
                text.push(b',');
            }
            push_string(&mut text, &String::from_utf8_lossy(name));
            text.push(b':');
            text.extend_from_slice(value);
        }
    }
    text.push(b'}');
    Some(text)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn read_text(text: &str) -> String {
        String::from_utf8(Scan::whole(text.as_bytes(), read).unwrap().into_owned()).unwrap()
    }

    #[test]
    fn a_copy_names_its_origin() {
        let id = "m_RjkDiiQaIPJBFSAAAAAAAR";
        let named = |json: &str| origin(json.as_bytes()).map(|origin| origin.to_string());
        assert_eq!(named(&format!(r#"{{"a":"dms-message-id","dms-message-id":"{id}"}}"#)).as_deref(), Some(id));
        for none in
            ["{}", r#"{"dms-message-id":7}"#, r#"{"dms-message-id":"order 5"}"#, r#"{"a":{"dms-message-id":"x"}}"#]
        {
            assert_eq!(named(none), None, "{none}");
        }
    }

    #[test]
    fn attributes_stay_as_they_came() {
        for text in
            ["{}", "{ }", r#"{ "b" : 1e3, "a":[ -0, {"x":1,"x":2}], "\u0063": "\u0000" }"#, r#"{"":0,"a":1,"A":2}"#]
        {
            assert_eq!(read_text(text), text);
        }
    }

    #[test]
    fn the_last_of_equal_names_wins_with_its_value_as_it_came() {
        for (text, kept) in [
            (r#"{"a":1,"a":2}"#, r#"{"a":2}"#),
            (r#"{"\u0061":1,"a":2}"#, r#"{"a":2}"#),
            (r#"{ "a" : 1, "\u0061" : 1e3 , "b":[ -0 ] }"#, r#"{"a":1e3,"b":[ -0 ]}"#),
            (
                r#"{"a":1,"b":2,"a":12345678901234567890123,"c":"\ud83d\ude00"}"#,
                r#"{"b":2,"a":12345678901234567890123,"c":"\ud83d\ude00"}"#,
            ),
            (r#"{"\ud83d\ude00":1,"😀":2}"#, r#"{"😀":2}"#),
        ] {
            assert_eq!(read_text(text), kept);
        }
    }
}
