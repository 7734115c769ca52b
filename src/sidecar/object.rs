//! [`Object`]: a JSON object that is written member by member, with values that keep their own text.

use crate::json::push_string;

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
        if self.0.len() > 1 {
            self.0.push(b',');
        }
        push_string(&mut self.0, name);
        self.0.push(b':');
        self.0.extend_from_slice(json.as_bytes());
        self
    }

    /// Adds a member whose value is this string.
    pub(crate) fn text(self, name: &str, text: &str) -> Self {
        self.raw(name, &string(text))
    }

    /// Adds a member whose value is a list of these strings.
    pub(crate) fn texts(self, name: &str, texts: &[String]) -> Self {
        let strings: Vec<_> = texts.iter().map(|text| string(text)).collect();
        self.raw(name, &format!("[{}]", strings.join(",")))
    }

    /// The JSON text.
    pub(crate) fn finish(mut self) -> String {
        self.0.push(b'}');
        // Put together from texts alone.
        String::from_utf8_lossy(&self.0).into_owned()
    }
}

/// A text as a JSON string.
fn string(text: &str) -> String {
    serde_json::Value::from(text).to_string()
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
