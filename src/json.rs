//! JSON text: where a value ends, and whether it is one, without making anything of it.
//!
//! Bodies pass through as text, so all that there is to know of most of them is that they are JSON. A parser looks at each byte of a
//! string; here whole strings are searched at a time. What is in any way out of the ordinary is `None`: then a parser says what it is.

use std::{borrow::Cow, str};

use memchr::memchr2;

use crate::limits::MAX_MESSAGES;

/// Text that is read from its beginning to its end.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Scan<'a> {
    text: &'a [u8],
    at: usize,
}

impl<'a> Scan<'a> {
    /// Has a whole text read: what `read` makes of it, when nothing but blanks is left then and all of it is UTF-8.
    pub(crate) fn whole<T>(text: &'a [u8], read: impl FnOnce(&mut Self) -> Option<T>) -> Option<T> {
        let mut scan = Self { text, at: 0 };
        let read = read(&mut scan)?;
        scan.blanks();
        (scan.at == text.len() && is_utf8(text)).then_some(read)
    }

    /// Passes over the next value; its text, when it is one. Numbers may be of any size, and what is nested is nested 128 deep at most.
    /// Strings are not checked to be UTF-8: see [`whole`](Self::whole).
    pub(crate) fn value(&mut self) -> Option<&'a [u8]> {
        self.blanks();
        let start = self.at;
        let mut open = Open::default();
        loop {
            match self.next()? {
                b'"' => self.string()?,
                b'{' if self.eat(b'}') => {}
                b'{' => {
                    open.push(true)?;
                    self.name()?;
                    continue;
                }
                b'[' if self.eat(b']') => {}
                b'[' => {
                    open.push(false)?;
                    self.blanks();
                    continue;
                }
                b't' => self.literal(b"rue")?,
                b'f' => self.literal(b"alse")?,
                b'n' => self.literal(b"ull")?,
                first => self.number(first)?,
            }
            // A value has ended, and with it perhaps some of those that it is in.
            loop {
                let Some(in_object) = open.innermost() else { return self.text.get(start..self.at) };
                if self.eat(b',') {
                    if in_object {
                        self.name()?;
                    } else {
                        self.blanks();
                    }
                    break;
                }
                self.eat(if in_object { b'}' } else { b']' }).then(|| open.pop())?;
            }
        }
    }

    /// Passes over the next string; what it holds, when nothing in it is escaped.
    pub(crate) fn plain_string(&mut self) -> Option<&'a [u8]> {
        self.eat(b'"').then_some(())?;
        let start = self.at;
        let end = start + memchr2(b'"', b'\\', self.text.get(start..)?)?;
        self.at = end + 1;
        let held = self.text.get(start..end)?;
        (self.text.get(end) == Some(&b'"') && !has_controls(held)).then_some(held)
    }

    /// Passes over an object, and has each of its values read by its name.
    pub(crate) fn members(&mut self, mut read: impl FnMut(&'a [u8], &mut Self) -> Option<()>) -> Option<()> {
        self.eat(b'{').then_some(())?;
        if self.eat(b'}') {
            return Some(());
        }
        loop {
            let name = self.plain_string()?;
            self.eat(b':').then_some(())?;
            read(name, self)?;
            if !self.eat(b',') {
                return self.eat(b'}').then_some(());
            }
        }
    }

    /// Passes over an array; what is read of its values.
    pub(crate) fn items<T>(&mut self, mut read: impl FnMut(&mut Self) -> Option<T>) -> Option<Vec<T>> {
        self.eat(b'[').then_some(())?;
        let mut items = Vec::with_capacity(MAX_MESSAGES);
        if self.eat(b']') {
            return Some(items);
        }
        loop {
            items.push(read(self)?);
            if !self.eat(b',') {
                return self.eat(b']').then_some(items);
            }
        }
    }

    /// Passes over this byte, and blanks before it, if it comes next.
    fn eat(&mut self, byte: u8) -> bool {
        self.blanks();
        let is_next = self.text.get(self.at) == Some(&byte);
        self.at += usize::from(is_next);
        is_next
    }

    fn next(&mut self) -> Option<u8> {
        let byte = *self.text.get(self.at)?;
        self.at += 1;
        Some(byte)
    }

    fn blanks(&mut self) {
        while let Some(b' ' | b'\n' | b'\t' | b'\r') = self.text.get(self.at) {
            self.at += 1;
        }
    }

    /// A name of an object, up to where its value begins.
    fn name(&mut self) -> Option<()> {
        self.eat(b'"').then_some(())?;
        self.string()?;
        self.eat(b':').then_some(())?;
        self.blanks();
        Some(())
    }

    /// A string behind its first quote.
    fn string(&mut self) -> Option<()> {
        let start = self.at;
        loop {
            self.at += memchr2(b'"', b'\\', self.text.get(self.at..)?)? + 1;
            if self.text.get(self.at - 1) == Some(&b'"') {
                return (!has_controls(self.text.get(start..self.at)?)).then_some(());
            }
            match self.next()? {
                b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't' => {}
                b'u' => {
                    let digits = self.text.get(self.at..self.at + 4)?;
                    digits.iter().all(u8::is_ascii_hexdigit).then_some(())?;
                    self.at += 4;
                }
                _ => return None,
            }
        }
    }

    fn literal(&mut self, rest: &[u8]) -> Option<()> {
        self.text.get(self.at..)?.starts_with(rest).then(|| self.at += rest.len())
    }

    /// A number behind its first byte.
    fn number(&mut self, first: u8) -> Option<()> {
        let first = if first == b'-' { self.next()? } else { first };
        match first {
            b'0' => {}
            b'1'..=b'9' => self.digits(),
            _ => return None,
        }
        if self.text.get(self.at) == Some(&b'.') {
            self.at += 1;
            self.some_digits()?;
        }
        if let Some(b'e' | b'E') = self.text.get(self.at) {
            self.at += 1;
            if let Some(b'+' | b'-') = self.text.get(self.at) {
                self.at += 1;
            }
            self.some_digits()?;
        }
        // `01` is two values.
        (!self.text.get(self.at).is_some_and(u8::is_ascii_digit)).then_some(())
    }

    fn digits(&mut self) {
        while self.text.get(self.at).is_some_and(u8::is_ascii_digit) {
            self.at += 1;
        }
    }

    fn some_digits(&mut self) -> Option<()> {
        self.next()?.is_ascii_digit().then(|| self.digits())
    }
}

/// The objects and arrays that are open: a bit for each, the innermost lowest, set for an object.
#[derive(Default)]
struct Open {
    objects: u128,
    depth: u32,
}

impl Open {
    fn push(&mut self, object: bool) -> Option<()> {
        self.objects = self.objects << 1 | u128::from(object);
        self.depth += 1;
        (self.depth <= u128::BITS).then_some(())
    }

    fn pop(&mut self) {
        self.objects >>= 1;
        self.depth -= 1;
    }

    /// Whether the innermost is an object; `None` when nothing is open.
    fn innermost(&self) -> Option<bool> {
        (self.depth > 0).then_some(self.objects & 1 == 1)
    }
}

/// Notes the value of a name that stands there once.
pub(crate) fn once<T>(place: &mut Option<T>, value: T) -> Option<()> {
    place.replace(value).is_none().then_some(())
}

/// Appends a string; nearly all that are written have nothing to escape.
pub(crate) fn push_string(json: &mut Vec<u8>, text: &str) {
    if has_controls(text.as_bytes()) || memchr2(b'"', b'\\', text.as_bytes()).is_some() {
        return json.extend_from_slice(serde_json::Value::from(text).to_string().as_bytes());
    }
    json.push(b'"');
    json.extend_from_slice(text.as_bytes());
    json.push(b'"');
}

/// Valid JSON in one line. Line breaks stand between its values alone, since strings have to escape theirs.
#[cfg(feature = "sidecar")]
pub(crate) fn one_line(json: &str) -> Cow<'_, str> {
    if json.contains(['\n', '\r']) { json.replace(['\n', '\r'], " ").into() } else { json.into() }
}

/// Whether there are bytes that a string has to escape beside quotes and backslashes.
fn has_controls(text: &[u8]) -> bool {
    // Without an early end many bytes are looked at in one step.
    text.iter().fold(u8::MAX, |least, &byte| least.min(byte)) < b' '
}

/// Whether this is UTF-8; faster than the standard library where it is ASCII, as most JSON is.
fn is_utf8(text: &[u8]) -> bool {
    text.is_ascii() || str::from_utf8(text).is_ok()
}

/// The `usual` texts are read by a scan, the others not, and what is read is what the parser makes of it.
#[cfg(test)]
pub(crate) fn assert_scanned_as_parsed<'a, T: PartialEq + std::fmt::Debug>(
    usual: &[&'a str],
    unusual: &[&'a str],
    scan: impl Fn(&'a [u8]) -> Option<T>,
    parse: impl Fn(&'a [u8]) -> T,
) {
    for text in usual {
        assert_eq!(scan(text.as_bytes()), Some(parse(text.as_bytes())), "{text}");
    }
    for text in unusual {
        assert_eq!(scan(text.as_bytes()), None, "{text}");
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use proptest::prelude::*;
    use serde_json::value::RawValue;

    use super::*;

    /// What the parser says: the text of the value, where this is one.
    fn parsed(text: &str) -> Option<&str> {
        serde_json::from_str::<&RawValue>(text).ok().map(RawValue::get)
    }

    fn scanned(text: &str) -> Option<&str> {
        Scan::whole(text.as_bytes(), Scan::value).map(|value| str::from_utf8(value).unwrap())
    }

    #[test]
    fn values_are_found_as_the_parser_finds_them() {
        for text in [
            "1",
            "-0",
            "01",
            "-",
            "0.",
            "1.5e+3",
            "1e",
            "1E5",
            "00",
            "-01",
            ".5",
            "+1",
            "1 2",
            "true",
            "tru",
            "nulll",
            "false ",
            "\"\"",
            "\"",
            "\"a\\",
            "\"\\u12\"",
            "\"\\u12g4\"",
            "\"\\ud800\"",
            "\"\\x\"",
            "\"a\nb\"",
            "\"队列\\\"\"",
            "[]",
            "[ ]",
            "[1,]",
            "[,1]",
            "[1 2]",
            "[1,[2,{}],{\"a\":[]}]",
            "{}",
            "{\"a\":1,}",
            "{\"a\"}",
            "{a:1}",
            "{\"a\":1 \"b\":2}",
            " { \"a\" : [ 1 , 2 ] , \"b\" : { } } ",
            "{\"a\":1]",
            "[1}",
            "]",
            "",
            " ",
            "[\"\\\\\"]",
            "\u{7f}",
            "[\u{1}]",
        ] {
            assert_eq!(scanned(text), parsed(text), "{text}");
        }
    }

    #[test]
    fn what_is_nested_deeply_is_left_to_the_parser() {
        let nested = |depth| "[".repeat(depth) + "1" + &"]".repeat(depth);
        assert_eq!(scanned(&nested(128)), Some(nested(128).as_str()));
        assert_eq!(scanned(&nested(129)), None);
    }

    #[test]
    fn members_and_items_are_read_in_their_order() {
        let (mut names, mut items) = (Vec::new(), Vec::new());
        let read = Scan::whole(br#" {"a" : [1, "b"], "c":{} } "#, |scan| {
            scan.members(|name, scan| {
                names.push(name);
                match name {
                    b"a" => scan.items(Scan::value).map(|read| items = read),
                    _ => scan.members(|_, _| None),
                }
            })
        });
        assert!(read.is_some());
        assert_eq!((names, items), (vec![&b"a"[..], b"c"], vec![&b"1"[..], b"\"b\""]));
        assert_eq!(Scan::whole(br#""a\n""#, Scan::plain_string), None, "it is not what it stands for");
        assert!(is_utf8("队".as_bytes()) && !is_utf8(b"\xff"));
    }

    proptest! {
        #[test]
        fn any_text_is_found_as_the_parser_finds_it(text in "[\\[\\]{}\",:\\\\ \\-+.0-9eEutrfalsn\\n队]{0,24}") {
            prop_assert_eq!(scanned(&text), parsed(&text));
        }

        #[test]
        fn strings_are_written_as_the_parser_reads_them(text in any::<String>()) {
            let mut json = Vec::new();
            push_string(&mut json, &text);
            prop_assert_eq!(serde_json::from_slice::<String>(&json).unwrap(), text);
        }

        #[test]
        fn any_value_is_found_whole(text in "\\PC{0,30}", number in any::<f64>(), depth in 0..20_usize) {
            let mut value = serde_json::json!({ &text: [number, null, true, &text] });
            for _ in 0..depth {
                value = serde_json::json!([{ &text: value }, {}]);
            }
            let text = serde_json::to_string_pretty(&value).unwrap();
            prop_assert_eq!(scanned(&text), Some(text.as_str()));
        }
    }
}
