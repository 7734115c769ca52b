//! `${VAR}` and `${VAR:-default}` inside a scalar.
//!
//! Done on parsed scalars, never on the file's text: a variable's value cannot change the structure of a file.

use dms_protocol::internal::secret_url::MASK;

/// A `${...}` that has no value.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum BadReference {
    /// There is no such variable, and no default.
    #[error("environment variable {0} is not set: set it, or write ${{{0}:-default}}")]
    Unset(String),
    /// The brace is not closed.
    #[error("`{0}` has no closing brace: write ${{NAME}}, or $${{ for the text itself")]
    Open(String),
    /// The text in the braces is not a variable's name.
    #[error("`${{{0}}}` names no variable: write ${{NAME}} or ${{NAME:-default}}")]
    Nameless(String),
}

impl BadReference {
    /// The same for a text that is never shown.
    pub(crate) fn masked(self) -> Self {
        match self {
            Self::Unset(name) => Self::Unset(name),
            Self::Open(_) => Self::Open(MASK.to_owned()),
            Self::Nameless(_) => Self::Nameless(MASK.to_owned()),
        }
    }
}

/// Replaces the variables in `text`; `$${` stands for `${` itself, any other `$` for a dollar.
///
/// # Errors
/// Says which variable is not set, or which reference is malformed, and what to write instead.
pub(crate) fn interpolate(text: &str, lookup: &dyn Fn(&str) -> Option<String>) -> Result<String, BadReference> {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(dollar) = rest.find('$') {
        out.push_str(&rest[..dollar]);
        rest = &rest[dollar..];
        if let Some(after) = rest.strip_prefix("$${") {
            out.push_str("${");
            rest = after;
        } else if let Some(after) = rest.strip_prefix("${") {
            let Some((reference, after)) = after.split_once('}') else {
                return Err(BadReference::Open(rest.to_owned()));
            };
            out.push_str(&resolve(reference, lookup)?);
            rest = after;
        } else {
            out.push('$');
            rest = &rest[1..];
        }
    }
    out.push_str(rest);
    Ok(out)
}

/// The value of `NAME` or `NAME:-default`. An empty variable counts as not set where there is a default.
fn resolve(reference: &str, lookup: &dyn Fn(&str) -> Option<String>) -> Result<String, BadReference> {
    let (name, default) = match reference.split_once(":-") {
        Some((name, default)) => (name, Some(default)),
        None => (reference, None),
    };
    let legal = |c: char| c.is_ascii_alphanumeric() || c == '_';
    if name.is_empty() || !name.chars().all(legal) {
        return Err(BadReference::Nameless(reference.to_owned()));
    }
    match (lookup(name), default) {
        (Some(value), None) => Ok(value),
        (Some(value), Some(_)) if !value.is_empty() => Ok(value),
        (_, Some(default)) => Ok(default.to_owned()),
        (None, None) => Err(BadReference::Unset(name.to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, expected: Result<&str, &str>) {
        let lookup = |name: &str| match name {
            "HOST" => Some("db".to_owned()),
            "EMPTY" => Some(String::new()),
            _ => None,
        };
        assert_eq!(
            interpolate(text, &lookup).map_err(|bad| bad.to_string()),
            expected.map(str::to_owned).map_err(str::to_owned),
            "{text}"
        );
    }

    #[test]
    fn variables_defaults_and_escapes() {
        check("plain", Ok("plain"));
        check("http://${HOST}:80/${PATH_:-x}", Ok("http://db:80/x"));
        check("${EMPTY}", Ok(""));
        check("${EMPTY:-fallback}", Ok("fallback"));
        check("${NONE:-}", Ok(""));
        check("$${HOST} costs $5 or $", Ok("${HOST} costs $5 or $"));
    }

    #[test]
    fn mistakes_say_what_to_write() {
        check("${NONE}", Err("environment variable NONE is not set: set it, or write ${NONE:-default}"));
        check("a ${HOST", Err("`${HOST` has no closing brace: write ${NAME}, or $${ for the text itself"));
        check("${}", Err("`${}` names no variable: write ${NAME} or ${NAME:-default}"));
        check("${A B}", Err("`${A B}` names no variable: write ${NAME} or ${NAME:-default}"));
    }
}
