//! Error bodies, in the shapes of the service and of its gateways (API reference 3.5, 8.1).

use serde::Deserialize;
use serde_json::Value;

/// The readable parts of an error body.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct ErrorBody {
    /// The code as received, without blanks, such as `DMS.10240401`, `10540010` or `APIGW.0301`.
    pub(crate) code: Option<String>,
    /// The text.
    pub(crate) message: Option<String>,
    /// The request's id in the service's logs.
    pub(crate) request_id: Option<String>,
}

/// The fields of all shapes: `{error_code, error_msg}`, `{code, message}`, `{message, request_id}`, and
/// Keystone's `{error: {code, message}}`.
#[derive(Deserialize)]
struct Shapes {
    error_code: Option<Value>,
    code: Option<Value>,
    error_msg: Option<Value>,
    message: Option<Value>,
    request_id: Option<Value>,
    error: Option<Value>,
}

/// The most text to show of a body that is not JSON.
const MAX_SHOWN: usize = 200;

impl ErrorBody {
    /// Reads a body of any shape. If it is not JSON, it becomes the text; of a web page only the title.
    pub(crate) fn read(body: &[u8]) -> Self {
        let Ok(shapes) = serde_json::from_slice::<Shapes>(body) else {
            let body = String::from_utf8_lossy(body);
            let text: String = match title(&body) {
                Some(title) => format!("a web page with the title {title:?}").chars().take(MAX_SHOWN).collect(),
                None => body.trim().chars().take(MAX_SHOWN).collect(),
            };
            return Self { message: Some(text).filter(|text| !text.is_empty()), ..Self::default() };
        };
        let nested = |name: &str| shapes.error.as_ref().and_then(|error| error.get(name)).cloned();
        Self {
            code: shapes.error_code.or(shapes.code).or_else(|| nested("code")).and_then(code),
            message: shapes.error_msg.or(shapes.message).or_else(|| nested("message")).and_then(text),
            request_id: shapes.request_id.and_then(text),
        }
    }
}

/// The title of a web page, if it has one.
fn title(body: &str) -> Option<&str> {
    if !body.trim_start().starts_with('<') {
        return None;
    }
    // Lower case has the same places, because only ASCII letters change.
    let lower = body.to_ascii_lowercase();
    let from = lower.find("<title>")? + "<title>".len();
    let title = body.get(from..from + lower[from..].find("</title>")?)?.trim();
    Some(title).filter(|title| !title.is_empty())
}

/// A code as text, possibly with blanks (`DMS. 10240013`), or as a number.
pub(super) fn code(value: Value) -> Option<String> {
    text(value).map(|text| text.split_whitespace().collect()).filter(|text: &String| !text.is_empty())
}

fn text(value: Value) -> Option<String> {
    match value {
        Value::Null => None,
        Value::String(text) => Some(text),
        other => Some(other.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(body: &str, code: Option<&str>, message: Option<&str>, request_id: Option<&str>) {
        let owned = |text: Option<&str>| text.map(str::to_owned);
        let expected = ErrorBody { code: owned(code), message: owned(message), request_id: owned(request_id) };
        assert_eq!(ErrorBody::read(body.as_bytes()), expected);
    }

    #[test]
    fn every_documented_shape_is_read() {
        check(r#"{"error_msg":"no","error_code":"DMS.10240401"}"#, Some("DMS.10240401"), Some("no"), None);
        check(r#"{"message":"Connect IAM Timeout","request_id":"r1"}"#, None, Some("Connect IAM Timeout"), Some("r1"));
        check(r#"{"code":10540010,"message":"Invalid"}"#, Some("10540010"), Some("Invalid"), None);
        check(
            r#"{"request_id":"r2","error_code":"APIGW.0301","error_msg":"Incorrect IAM"}"#,
            Some("APIGW.0301"),
            Some("Incorrect IAM"),
            Some("r2"),
        );
        check(r#"{"error":{"code":401,"message":"Unauthorized"}}"#, Some("401"), Some("Unauthorized"), None);
        check(r#"{"error_code":"DMS. 10240013"}"#, Some("DMS.10240013"), None, None);
    }

    #[test]
    fn anything_else_becomes_text() {
        check("<html>502</html>", None, Some("<html>502</html>"), None);
        let page = "<!DOCTYPE HTML>\n<html><head><Title> 502 Bad Gateway </TITLE></head><body>…</body></html>";
        check(page, None, Some("a web page with the title \"502 Bad Gateway\""), None);
        check("<html><title></title></html>", None, Some("<html><title></title></html>"), None);
        check("", None, None, None);
        check("[1]", None, Some("[1]"), None);
        check(r#"{"error_code":null,"error_msg":null,"extra":[]}"#, None, None, None);
    }
}
