//! [`Object`]: a JSON object that is written member by member, with values that keep their own text.

use dms_protocol::internal::{json::push_string, text::lossy};

/// A JSON object under construction.
///
/// Values are spliced in as they are. Nothing is parsed, so nothing can be lost, rounded or replaced by a default.
pub(crate) struct Object(Vec<u8>);

impl Object {
    /// An object without members.
    pub(crate) fn new() -> Self {
        Self(vec![b'{'])
    }

    /// Adds a member whose value is this JSON text.
    pub(crate) fn raw(mut self, name: &str, json: &str) -> Self {
        self.member(name);
        self.0.extend_from_slice(json.as_bytes());
        self
    }

    /// Adds a member whose value is this string.
    pub(crate) fn text(mut self, name: &str, text: &str) -> Self {
        self.member(name);
        push_string(&mut self.0, text);
        self
    }

    /// Adds a member whose value is this string, if there is one.
    pub(crate) fn some_text(self, name: &str, text: Option<&str>) -> Self {
        match text {
            Some(text) => self.text(name, text),
            None => self,
        }
    }

    /// Adds a member whose value is a list of these strings.
    pub(crate) fn texts(mut self, name: &str, texts: &[String]) -> Self {
        self.member(name);
        self.0.push(b'[');
        for (place, text) in texts.iter().enumerate() {
            if place > 0 {
                self.0.push(b',');
            }
            push_string(&mut self.0, text);
        }
        self.0.push(b']');
        self
    }

    fn member(&mut self, name: &str) {
        if self.0.len() > 1 {
            self.0.push(b',');
        }
        push_string(&mut self.0, name);
        self.0.push(b':');
    }

    /// The JSON text.
    pub(crate) fn finish(mut self) -> String {
        self.0.push(b'}');
        lossy(self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_keep_their_text() {
        assert_eq!(Object::new().finish(), "{}");
        let object =
            Object::new().raw("a\"", "[1e400, 01]").text("b", "é\n").texts("c", &["x".to_owned(), "\"".to_owned()]);
        assert_eq!(object.finish(), r#"{"a\"":[1e400, 01],"b":"é\n","c":["x","\""]}"#);
    }
}
