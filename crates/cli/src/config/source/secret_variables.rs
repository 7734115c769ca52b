//! Which variables of the environment hold secrets. Programs that a worker starts do not inherit them.

use std::collections::BTreeSet;

use crate::config::{
    schema::values::is_secret,
    source::{environment::key, interpolate::interpolate, path::KeyPath},
};
use dms_protocol::internal::secret_url::credentials;

/// How the names of others' variables with secrets begin: credentials of the vendor's SDKs, and headers for a collector of traces.
const FOREIGN: [&str; 3] = ["HUAWEICLOUD_SDK_", "OTEL_EXPORTER_OTLP_HEADERS", "OTEL_EXPORTER_OTLP_TRACES_HEADERS"];

/// Whether a variable with this name and value is a secret of this process, independent of the configuration file.
pub(crate) fn is_secret_variable(name: &str, value: &str) -> bool {
    FOREIGN.iter().any(|beginning| name.starts_with(beginning))
        || key(name, value).is_some_and(|path| is_secret_place(&path) || !credentials(value).is_empty())
}

/// The variables that a setting takes a secret from: all that it names where the setting is a secret or a header, and otherwise those
/// that are the password or the query of a URL.
pub(crate) fn secret_references(
    path: &KeyPath,
    text: &str,
    lookup: &dyn Fn(&str) -> Option<String>,
) -> BTreeSet<String> {
    let all = references(text, lookup);
    if is_secret_place(path) {
        return all;
    }
    let mut secret: BTreeSet<String> = credentials(text).iter().flat_map(|part| references(part, lookup)).collect();
    secret.extend(all.into_iter().filter(|name| lookup(name).is_some_and(|value| !credentials(&value).is_empty())));
    secret
}

/// The connection string of a database, which contains its password.
fn is_connection_string(path: &KeyPath) -> bool {
    path.last() == Some("url")
        && path.parent().is_some_and(|parent| matches!(parent.last(), Some("postgres" | "redis")))
}

/// Whether what stands at a place is never shown.
pub(crate) fn is_secret_place(path: &KeyPath) -> bool {
    path.last().is_some_and(is_secret)
        || is_connection_string(path)
        || path.steps().iter().any(|step| step == "headers")
}

/// The variables that a text names.
fn references(text: &str, lookup: &dyn Fn(&str) -> Option<String>) -> BTreeSet<String> {
    let names = std::cell::RefCell::new(BTreeSet::new());
    let noted = |name: &str| {
        names.borrow_mut().insert(name.to_owned());
        lookup(name)
    };
    // A bad reference is reported where the text itself is read.
    let _ = interpolate(text, &noted);
    names.into_inner()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variables_of_this_process_with_secrets_are_known_by_their_names() {
        for name in [
            "DMS_WORKER_DMS__AUTH__SECRET_KEY",
            "DMS_WORKER_ADMIN__TOKEN",
            "DMS_WORKER_WORKERS__0__HANDLER__HTTP__HEADERS__AUTHORIZATION",
            "HUAWEICLOUD_SDK_SK",
            "OTEL_EXPORTER_OTLP_HEADERS",
        ] {
            assert!(is_secret_variable(name, "x"), "{name}");
        }
        for name in
            ["DMS_WORKER_CONFIG", "DMS_WORKER_DMS__ENDPOINT", "DMS_WORKER_DMS__AUTH__SECRET_KEY_FILE", "PATH", "TOKEN"]
        {
            assert!(!is_secret_variable(name, "x"), "{name}");
        }
        assert!(is_secret_variable("DMS_WORKER_WORKERS__0__HANDLER__HTTP__URL", "http://u:p@app/"));
    }

    #[test]
    fn variables_in_secret_places_are_found() {
        let lookup = |name: &str| Some(if name == "WHOLE" { "http://u:p@h/" } else { "v" }.to_owned());
        let found = |key: &str, text: &str| {
            secret_references(&KeyPath::dotted(key), text, &lookup).into_iter().collect::<Vec<_>>().join(" ")
        };
        assert_eq!(found("admin.token", "${A}${B:-x}"), "A B");
        assert_eq!(found("workers.0.handler.http.headers.authorization", "Bearer ${A}"), "A");
        assert_eq!(found("workers.0.handler.http.url", "https://${U}:${P}@${HOST}/${PATH_}?key=${K}"), "K P U");
        assert_eq!(found("workers.0.handler.http.url", "${WHOLE}"), "WHOLE");
        assert_eq!(found("workers.0.queue", "${A}"), "");
        assert_eq!(found("admin.token", "$${A}"), "");
    }
}
