//! Credentials with nothing in them: nobody may be let in by one, or call with one.
//!
//! Checks every written secret, in any section, so that no kind of secret can be left out. Secrets in files are checked when the
//! files are read.

use figment::value::{Dict, Value};

use crate::config::{check::checker::Checker, schema::values::is_secret, source::path::KeyPath};

/// Ways to authenticate in an `Authorization` header.
const SCHEMES: [&str; 2] = ["basic", "bearer"];
/// Headers that carry credentials.
const HEADERS: [&str; 5] = ["authorization", "proxy-authorization", "x-api-key", "x-auth-token", "cookie"];

/// Reports every secret that is empty or blank.
pub(super) fn check(checker: &mut Checker<'_>) {
    let mut blank = Vec::new();
    find_in_section(&KeyPath::default(), checker.tree.settings(), &mut blank);
    for path in blank {
        checker.report(&path, "is empty: set it, or leave it out");
    }
}

fn find_in_section(path: &KeyPath, section: &Dict, blank: &mut Vec<KeyPath>) {
    section.iter().for_each(|(key, value)| find(&path.child(key), value, blank));
}

fn find(path: &KeyPath, value: &Value, blank: &mut Vec<KeyPath>) {
    match value {
        Value::Dict(_, section) => find_in_section(path, section, blank),
        Value::Array(_, items) => {
            items.iter().enumerate().for_each(|(place, item)| find(&path.child(place), item, blank));
        }
        Value::String(_, text) if is_blank(path, text) => blank.push(path.clone()),
        _ => {}
    }
}

/// Whether a place is for a credential, and this text is none.
fn is_blank(path: &KeyPath, text: &str) -> bool {
    let key = path.last().unwrap_or_default();
    if path.parent().is_some_and(|parent| parent.last() == Some("headers")) {
        return HEADERS.iter().any(|name| name.eq_ignore_ascii_case(key)) && is_blank_header(text);
    }
    is_secret(key) && text.trim().is_empty()
}

/// Whether a header has no credentials, as after `Bearer ${TOKEN:-}`.
fn is_blank_header(text: &str) -> bool {
    let text = text.trim();
    text.is_empty() || SCHEMES.iter().any(|scheme| scheme.eq_ignore_ascii_case(text))
}
