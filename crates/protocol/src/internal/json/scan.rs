//! [`Scan`]: the grammar of JSON, which reads a text from start to end.

mod loose;

use std::{borrow::Cow, str};

use memchr::memchr2;

use super::{
    Fault, has_controls, is_utf8,
    name::Name,
    open::Open,
    unescape::{is_high, is_low, unescape},
};
use crate::limits::MAX_MESSAGES;

/// The longest number without an exponent that is always finite.
const SURELY_FINITE: usize = 308;

/// The length up to which strings are read eight bytes at a time. Names, ids and acknowledgement tokens are shorter.
const SHORT: usize = 40;

/// The number of bytes before the first quote, backslash or control character.
#[inline]
fn plain_len(text: &[u8]) -> usize {
    const ONES: u64 = u64::MAX / 255;
    const HIGHS: u64 = ONES * 0x80;
    // The highest bit of each byte that is below `least`; of bytes after the first such byte, perhaps wrongly.
    let below = |word: u64, least: u64| word.wrapping_sub(ONES * least) & !word & HIGHS;
    let (words, rest) = text.as_chunks::<8>();
    for (index, word) in words.iter().enumerate() {
        let word = u64::from_le_bytes(*word);
        let ends =
            below(word, 0x20) | below(word ^ (ONES * u64::from(b'"')), 1) | below(word ^ (ONES * u64::from(b'\\')), 1);
        if ends != 0 {
            return index * 8 + ends.trailing_zeros() as usize / 8;
        }
    }
    let is_plain = |byte: &&u8| **byte >= b' ' && !matches!(**byte, b'"' | b'\\');
    text.len() - rest.len() + rest.iter().take_while(is_plain).count()
}

/// A reader of a JSON text, from start to end.
#[derive(Clone, Copy, Debug)]
pub struct Scan<'a> {
    text: &'a [u8],
    /// The offset of the next byte.
    at: usize,
    /// Whether values have to be readable by strict parsers; see [`portable`](Self::portable).
    portable: bool,
}

impl<'a> Scan<'a> {
    /// Reads a whole text with `read`. The text has to be UTF-8.
    ///
    /// # Errors
    /// The first error of the text. An error of the grammar precedes an unexpected type of a value.
    pub fn whole<T>(text: &'a [u8], read: impl FnOnce(&mut Self) -> Result<T, Fault>) -> Result<T, Fault> {
        let mut scan = Self { text, at: 0, portable: false };
        let whole = read(&mut scan).and_then(|read| scan.end().map(|()| read));
        whole.map_err(|fault| match fault.is_shape() {
            true => Self::whole(text, Self::value).err().unwrap_or(fault),
            false => fault,
        })
    }

    /// Skips the next value, of any kind, size and depth, and returns its text. Does not check that strings are UTF-8,
    /// because [`whole`](Self::whole) checks the whole text.
    ///
    /// # Errors
    /// When the text is not JSON.
    #[inline]
    pub fn value(&mut self) -> Result<&'a [u8], Fault> {
        self.nested(usize::MAX, 0)
    }

    /// Skips the next value as [`value`](Self::value) does, and requires that strict parsers can read it: no half
    /// surrogate pairs, no numbers beyond an IEEE double, and at most `levels` of nesting, including the `around`
    /// levels around it.
    ///
    /// # Errors
    /// When the text is not JSON, or breaks one of these rules.
    pub fn portable(&mut self, levels: usize, around: usize) -> Result<&'a [u8], Fault> {
        self.portable = true;
        let value = self.nested(levels, around);
        self.portable = false;
        value
    }

    fn nested(&mut self, levels: usize, around: usize) -> Result<&'a [u8], Fault> {
        self.blanks();
        let start = self.at;
        let mut open = Open::default();
        loop {
            match self.next() {
                Some(b'"') => drop(self.string_end()?),
                Some(b'{') => {
                    self.within(levels, around + open.depth())?;
                    if !self.eat(b'}') {
                        open.push(true);
                        self.name()?;
                        continue;
                    }
                }
                Some(b'[') => {
                    self.within(levels, around + open.depth())?;
                    if !self.eat(b']') {
                        open.push(false);
                        self.blanks();
                        continue;
                    }
                }
                Some(b't') => self.literal(b"rue")?,
                Some(b'f') => self.literal(b"alse")?,
                Some(b'n') => self.literal(b"ull")?,
                Some(first @ (b'-' | b'0'..=b'9')) => drop(self.number_end(first)?),
                found => return Err(self.expected("a value", self.at - usize::from(found.is_some()))),
            }
            // A value has ended, and perhaps some of the values around it.
            loop {
                let Some(in_object) = open.innermost() else { return Ok(self.since(start)) };
                if self.eat(b',') {
                    if in_object {
                        self.name()?;
                    } else {
                        self.blanks();
                    }
                    break;
                }
                if !self.eat(if in_object { b'}' } else { b']' }) {
                    return Err(self.expected(if in_object { "`,` or `}`" } else { "`,` or `]`" }, self.at));
                }
                open.pop();
            }
        }
    }

    /// Skips `null` if it is next.
    #[inline]
    pub fn null(&mut self) -> Result<bool, Fault> {
        if !self.eat(b'n') {
            return Ok(false);
        }
        self.literal(b"ull").map(|()| true)
    }

    /// Reads a value unless it is `null`.
    pub fn nullable<T>(&mut self, read: impl FnOnce(&mut Self) -> Result<T, Fault>) -> Result<Option<T>, Fault> {
        if self.null()? { Ok(None) } else { read(self).map(Some) }
    }

    /// Reads a string and resolves its escapes.
    #[inline]
    pub fn string(&mut self) -> Result<Cow<'a, str>, Fault> {
        let text = match self.plain_or_unescaped("a string")? {
            Cow::Borrowed(held) => str::from_utf8(held).ok().map(Cow::Borrowed),
            Cow::Owned(held) => String::from_utf8(held).ok().map(Cow::Owned),
        };
        text.ok_or_else(|| self.not_utf8())
    }

    /// Reads a string as an owned text.
    #[inline]
    pub fn owned(&mut self) -> Result<String, Fault> {
        self.string().map(Cow::into_owned)
    }

    /// Skips a number and returns its text.
    pub fn number(&mut self) -> Result<&'a str, Fault> {
        self.blanks();
        let start = self.at;
        match self.next() {
            Some(first @ (b'-' | b'0'..=b'9')) => self.number_end(first)?,
            _ => return Err(Fault::shape("a number", start)),
        }
        // The grammar of numbers is ASCII.
        Ok(str::from_utf8(self.since(start)).unwrap_or_default())
    }

    /// Reads an object: calls `read` with the name of each value.
    pub fn members(&mut self, mut read: impl FnMut(&Name<'a>, &mut Self) -> Result<(), Fault>) -> Result<(), Fault> {
        if !self.eat(b'{') {
            return Err(Fault::shape("an object", self.at));
        }
        if self.eat(b'}') {
            return Ok(());
        }
        loop {
            self.blanks();
            let at = self.at;
            if self.peek() != Some(b'"') {
                return Err(self.expected("a name in quotes", at));
            }
            let name = Name::new(self.plain_or_unescaped("a name")?, at);
            self.colon()?;
            read(&name, self)?;
            if !self.eat(b',') {
                break;
            }
        }
        if self.eat(b'}') { Ok(()) } else { Err(self.expected("`,` or `}`", self.at)) }
    }

    /// Reads an object that must have one certain member, and returns its value.
    pub fn only<T>(
        &mut self,
        member: &'static str,
        mut read: impl FnMut(&mut Self) -> Result<T, Fault>,
    ) -> Result<T, Fault> {
        let start = self.start();
        let mut value = None;
        self.members(|name, scan| match &**name {
            found if found == member.as_bytes() => name.once(&mut value, read(scan)?),
            _ => scan.value().map(drop),
        })?;
        value.ok_or_else(|| Fault::missing(member, start))
    }

    /// Reads an array and returns its values.
    pub fn items<T>(&mut self, mut read: impl FnMut(&mut Self) -> Result<T, Fault>) -> Result<Vec<T>, Fault> {
        if !self.eat(b'[') {
            return Err(Fault::shape("an array", self.at));
        }
        if self.eat(b']') {
            return Ok(Vec::new());
        }
        let mut items = Vec::with_capacity(MAX_MESSAGES);
        loop {
            items.push(read(self)?);
            if !self.eat(b',') {
                break;
            }
        }
        if self.eat(b']') { Ok(items) } else { Err(self.expected("`,` or `]`", self.at)) }
    }

    /// The next byte after blanks.
    #[inline]
    pub fn first(&mut self) -> Option<u8> {
        self.blanks();
        self.peek()
    }

    /// The offset of the next value, after blanks.
    #[inline]
    pub fn start(&mut self) -> usize {
        self.blanks();
        self.at
    }

    /// The text that was read since this offset.
    #[inline]
    pub fn since(&self, start: usize) -> &'a [u8] {
        self.text.get(start..self.at).unwrap_or_default()
    }

    #[inline]
    fn end(&mut self) -> Result<(), Fault> {
        match self.first() {
            Some(_) => Err(self.expected("the end", self.at)),
            None if is_utf8(self.text) => Ok(()),
            None => Err(self.not_utf8()),
        }
    }

    #[cold]
    fn expected(&self, what: &'static str, at: usize) -> Fault {
        // Bytes that are not UTF-8 also break the grammar, but their own error is easier to understand.
        match self.text.get(at) {
            Some(byte) if !byte.is_ascii() && !is_utf8(self.text) => self.not_utf8(),
            _ => Fault::syntax(what, at),
        }
    }

    #[cold]
    fn not_utf8(&self) -> Fault {
        let good = str::from_utf8(self.text).map_or_else(|error| error.valid_up_to(), str::len);
        Fault::not_utf8(good)
    }

    /// Skips blanks and then this byte, if it is next.
    #[inline]
    fn eat(&mut self, byte: u8) -> bool {
        self.blanks();
        let is_next = self.peek() == Some(byte);
        self.at += usize::from(is_next);
        is_next
    }

    #[inline]
    fn peek(&self) -> Option<u8> {
        self.text.get(self.at).copied()
    }

    #[inline]
    fn next(&mut self) -> Option<u8> {
        let byte = self.peek()?;
        self.at += 1;
        Some(byte)
    }

    #[inline]
    fn blanks(&mut self) {
        while let Some(b' ' | b'\n' | b'\t' | b'\r') = self.peek() {
            self.at += 1;
        }
    }

    /// Checks that a level more than `open` is allowed. Its bracket was just skipped.
    fn within(&self, levels: usize, open: usize) -> Result<(), Fault> {
        if open < levels { Ok(()) } else { Err(Fault::depth(levels, self.at - 1)) }
    }

    /// A name of an object, up to where its value begins.
    #[inline]
    fn name(&mut self) -> Result<(), Fault> {
        if !self.eat(b'"') {
            return Err(self.expected("a name in quotes", self.at));
        }
        self.string_end()?;
        self.colon()
    }

    #[inline]
    fn colon(&mut self) -> Result<(), Fault> {
        if !self.eat(b':') {
            return Err(self.expected("`:`", self.at));
        }
        self.blanks();
        Ok(())
    }

    /// A string as bytes, which were not checked to be UTF-8.
    #[inline]
    fn plain_or_unescaped(&mut self, what: &'static str) -> Result<Cow<'a, [u8]>, Fault> {
        if !self.eat(b'"') {
            return Err(Fault::shape(what, self.at));
        }
        let start = self.at;
        let escaped = self.string_end()?;
        let held = self.text.get(start..self.at - 1).unwrap_or_default();
        if !escaped {
            return Ok(Cow::Borrowed(held));
        }
        unescape(held).map(Cow::Owned).map_err(|half| Fault::surrogate(start + half))
    }

    /// Skips a string after its opening quote. Returns whether it has escapes.
    #[inline]
    fn string_end(&mut self) -> Result<bool, Fault> {
        let start = self.at;
        let rest = self.text.get(start..).unwrap_or_default();
        // For a short string, two searches would take longer.
        let short = plain_len(&rest[..rest.len().min(SHORT)]);
        if rest.get(short) == Some(&b'"') {
            self.at = start + short + 1;
            return Ok(false);
        }
        let mut escaped = false;
        loop {
            let Some(found) = memchr2(b'"', b'\\', self.text.get(self.at..).unwrap_or_default()) else {
                return Err(self.unclosed(start));
            };
            self.at += found + 1;
            if self.text.get(self.at - 1) == Some(&b'"') {
                return if has_controls(self.since(start)) { Err(self.unclosed(start)) } else { Ok(escaped) };
            }
            escaped = true;
            self.escape()?;
        }
    }

    /// The error of a string with a control character or without an end.
    #[cold]
    fn unclosed(&self, start: usize) -> Fault {
        let rest = self.text.get(start..).unwrap_or_default();
        match rest.iter().position(|byte| *byte < b' ') {
            Some(control) => Fault::control(start + control),
            None => Fault::syntax("`\"`", self.text.len()),
        }
    }

    /// Skips an escape after its backslash.
    fn escape(&mut self) -> Result<(), Fault> {
        let at = self.at - 1;
        match self.next() {
            Some(b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't') => Ok(()),
            Some(b'u') => {
                let unit = self.unit(at)?;
                if !self.portable || !(is_high(unit) || is_low(unit)) {
                    return Ok(());
                }
                // Only a high surrogate followed by a low one is a character.
                if is_low(unit) || self.next() != Some(b'\\') || self.next() != Some(b'u') || !is_low(self.unit(at)?) {
                    return Err(Fault::surrogate(at));
                }
                Ok(())
            }
            _ => Err(Fault::escape(at)),
        }
    }

    /// Four hexadecimal digits of the escape that starts there.
    fn unit(&mut self, escape: usize) -> Result<u16, Fault> {
        let digits = self.text.get(self.at..self.at + 4).and_then(super::unescape::unit);
        self.at += 4;
        digits.ok_or_else(|| Fault::escape(escape))
    }

    fn literal(&mut self, rest: &[u8]) -> Result<(), Fault> {
        if !self.text.get(self.at..).unwrap_or_default().starts_with(rest) {
            return Err(self.expected("a value", self.at - 1));
        }
        self.at += rest.len();
        Ok(())
    }

    /// Skips a number after its first byte.
    fn number_end(&mut self, first: u8) -> Result<(), Fault> {
        let start = self.at - 1;
        match if first == b'-' { self.next() } else { Some(first) } {
            Some(b'0') => {}
            Some(b'1'..=b'9') => self.digits(),
            _ => return Err(Fault::number(start)),
        }
        if self.peek() == Some(b'.') {
            self.at += 1;
            self.some_digits(start)?;
        }
        let mut surely_finite = self.at - start <= SURELY_FINITE;
        if let Some(b'e' | b'E') = self.peek() {
            self.at += 1;
            if let Some(b'+' | b'-') = self.peek() {
                self.at += 1;
            }
            self.some_digits(start)?;
            surely_finite = false;
        }
        match self.peek() {
            // `01` would be two values.
            Some(b'0'..=b'9') => Err(Fault::number(start)),
            _ if self.portable && !surely_finite && !is_finite(self.since(start)) => Err(Fault::infinite(start)),
            _ => Ok(()),
        }
    }

    fn digits(&mut self) {
        while self.peek().is_some_and(|byte| byte.is_ascii_digit()) {
            self.at += 1;
        }
    }

    fn some_digits(&mut self, start: usize) -> Result<(), Fault> {
        match self.next() {
            Some(b'0'..=b'9') => {
                self.digits();
                Ok(())
            }
            _ => Err(Fault::number(start)),
        }
    }
}

/// Returns whether a number is finite as an IEEE double. Very small numbers become zero.
fn is_finite(number: &[u8]) -> bool {
    str::from_utf8(number).ok().and_then(|text| text.parse::<f64>().ok()).is_some_and(f64::is_finite)
}

#[cfg(test)]
mod tests {
    use super::plain_len;

    /// Every byte at every place of a word, with each kind of byte around it.
    #[test]
    fn the_plain_start_of_a_string_ends_where_byte_by_byte_reading_ends() {
        let is_plain = |byte: &u8| *byte >= b' ' && !matches!(*byte, b'"' | b'\\');
        for at in 0..20 {
            for byte in 0..=u8::MAX {
                for after in [b'x', b'!', b'"', b'\\', 0, 0x1f, 0x7f, 0x80, 0xff] {
                    let mut text = [b'x'; 20];
                    text[at] = byte;
                    text[at + 1..].fill(after);
                    let expected = text.iter().take_while(|byte| is_plain(byte)).count();
                    assert_eq!(plain_len(&text), expected, "{byte:#x} at {at}, then {after:#x}");
                }
            }
        }
    }
}
