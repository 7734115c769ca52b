//! Reading the attributes of a message.

use std::{borrow::Cow, collections::HashMap};

use dms_protocol::{
    internal::json::{Fault, Name, Scan, push_string},
    limits::MAX_NESTING,
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
