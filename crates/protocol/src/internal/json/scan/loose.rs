//! Values whose text need not be JSON: where they end by their brackets and quotes alone.

use memchr::memchr2;

use super::Scan;
use crate::internal::json::Fault;

impl<'a> Scan<'a> {
    /// Reads a value by `read`. What `read` makes nothing of is passed over by its brackets and quotes alone: the inner result.
    ///
    /// # Errors
    /// Where not even the end of the value can be found.
    pub fn part<T>(&mut self, read: impl FnOnce(&mut Self) -> Result<T, Fault>) -> Result<Result<T, Fault>, Fault> {
        let before = *self;
        let read = read(self);
        if read.is_err() {
            *self = before;
            self.loose()?;
        }
        Ok(read)
    }

    /// Passes over the next value by its brackets and quotes alone, up to the next `,`, `}` or `]`, and returns its text.
    ///
    /// # Errors
    /// When the text ends before.
    pub fn loose(&mut self) -> Result<&'a [u8], Fault> {
        self.blanks();
        let start = self.at;
        let mut depth = 0_usize;
        loop {
            match self.peek() {
                None => return Err(Fault::syntax("the end of a value", self.at)),
                Some(b'"') => self.loose_string()?,
                Some(b',' | b'}' | b']') if depth == 0 => return Ok(self.since(start).trim_ascii_end()),
                Some(byte) => {
                    self.at += 1;
                    match byte {
                        b'{' | b'[' => depth += 1,
                        b'}' | b']' => depth -= 1,
                        _ => {}
                    }
                }
            }
        }
    }

    /// Passes over a string whatever it holds, up to the next quote that is not escaped.
    fn loose_string(&mut self) -> Result<(), Fault> {
        self.at += 1;
        loop {
            let rest = self.text.get(self.at..).unwrap_or_default();
            let Some(found) = memchr2(b'"', b'\\', rest) else {
                return Err(Fault::syntax("`\"`", self.text.len()));
            };
            let is_escape = rest.get(found) == Some(&b'\\');
            self.at += found + 1 + usize::from(is_escape);
            if !is_escape {
                return Ok(());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn values_end_where_their_brackets_and_quotes_say() {
        for value in [
            "1",
            "tru",
            "",
            "01x",
            r#""\ud83d \x \" ] }""#,
            "{\"a\":,}",
            "[1 2]",
            "{[}]",
            "\"a\"b",
            "{\"a\":\"}\"}",
            "[[[",
            "\"a",
        ] {
            let text = format!("[ {value} , 2]");
            let mut found = None;
            let read = Scan::whole(text.as_bytes(), |scan| {
                scan.items(|scan| {
                    found.get_or_insert(scan.loose()?);
                    Ok(())
                })
            });
            match value {
                "[[[" | "\"a" => assert!(read.is_err() && found.is_none(), "{value}"),
                _ => assert_eq!((found, read.is_ok()), (Some(value.as_bytes()), true), "{value}"),
            }
        }
    }
}
