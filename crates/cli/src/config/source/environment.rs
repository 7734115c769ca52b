//! Which environment variables set which keys.

use std::net::IpAddr;

use crate::config::source::{layer::Override, path::KeyPath, problem::Origin};

/// What every variable of ours begins with.
const PREFIX: &str = "DMS_WORKER_";
/// The variable that names the configuration file.
pub(crate) const FILE_VARIABLE: &str = "DMS_WORKER_CONFIG";
/// The variable that names a saved context; no setting.
const CONTEXT_VARIABLE: &str = "DMS_WORKER_CONTEXT";
/// The protocols of a port in Kubernetes.
const PROTOCOLS: [&str; 3] = ["TCP", "UDP", "SCTP"];

/// The settings made by `variables`: `DMS_WORKER_` and the key in capitals, `__` between levels, lists by index, as in
/// `DMS_WORKER_WORKERS__0__ACK_WAIT`. Sorted by name, so that lists grow in order.
pub(crate) fn overrides(variables: &[(String, String)]) -> Vec<Override> {
    let mut found: Vec<Override> = variables
        .iter()
        .filter_map(|(name, value)| {
            let path = key(name, value)?;
            Some(Override { path, origin: Origin::Variable(name.clone()), value: value.clone() })
        })
        .collect();
    found.sort_by(|a, b| a.path.cmp(&b.path));
    found
}

/// The variables that look like ours and are service links of Kubernetes, sorted.
pub(crate) fn passed_over(variables: &[(String, String)]) -> Vec<String> {
    let links = variables.iter().filter(|(name, value)| is_service_link(name, value));
    let mut names: Vec<String> = links.map(|(name, _)| name.clone()).collect();
    names.sort();
    names
}

/// The key that a variable of this name and value sets.
pub(crate) fn key(name: &str, value: &str) -> Option<KeyPath> {
    let rest = name.strip_prefix(PREFIX)?;
    let ours = name != FILE_VARIABLE && name != CONTEXT_VARIABLE && !is_service_link(name, value);
    ours.then(|| KeyPath::new(rest.to_lowercase().split("__")))
}

/// Whether Kubernetes set a variable: beside a Service `dms-worker-admin` every pod has `DMS_WORKER_ADMIN_PORT`,
/// `DMS_WORKER_ADMIN_SERVICE_HOST` and the like, and `DMS_WORKER_PORT` beside one that is called `dms-worker`.
///
/// The value has to be one that Kubernetes writes, so that a mistyped key is still reported. A header may have any name.
fn is_service_link(name: &str, value: &str) -> bool {
    let Some(rest) = name.strip_prefix(PREFIX).filter(|rest| !rest.contains("__HEADERS__")) else { return false };
    let words: Vec<&str> = rest.split('_').collect();
    match words.as_slice() {
        [.., "SERVICE", "HOST"] => is_host(value),
        [.., "PORT", port, protocol, "ADDR"] if is_port(port) && is_protocol(protocol) => is_host(value),
        [.., "PORT", port, protocol, "PROTO"] if is_port(port) => value.eq_ignore_ascii_case(protocol),
        [.., "PORT", port, protocol] if is_port(port) && is_protocol(protocol) => is_address(value),
        [.., "PORT", port, protocol, "PORT"] if is_protocol(protocol) && value == *port => is_port(port),
        [.., "PORT"] if is_address(value) => true,
        // `DMS_WORKER_ADMIN_SERVICE_PORT`, and with the name of a port `DMS_WORKER_ADMIN_SERVICE_PORT_HTTP_METRICS`.
        words => words.windows(2).any(|pair| pair == ["SERVICE", "PORT"]) && is_port(value),
    }
}

fn is_port(text: &str) -> bool {
    text.parse::<u16>().is_ok()
}

fn is_host(text: &str) -> bool {
    text.parse::<IpAddr>().is_ok()
}

fn is_protocol(word: &str) -> bool {
    PROTOCOLS.contains(&word)
}

/// Whether a text is like `tcp://10.0.0.1:80`.
fn is_address(text: &str) -> bool {
    let scheme = text.split_once("://").map(|(scheme, _)| scheme.to_ascii_uppercase());
    scheme.is_some_and(|scheme| is_protocol(&scheme))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn owned(variables: &[(&str, &str)]) -> Vec<(String, String)> {
        variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn names_become_paths() {
        let variables = owned(&[
            ("DMS_WORKER_WORKERS__0__ACK_WAIT", "60s"),
            ("DMS_WORKER_CONFIG", "/x"),
            ("DMS_WORKER_DMS__PROJECT_ID", "p"),
            ("PATH", "/bin"),
        ]);
        let paths: Vec<_> = overrides(&variables).iter().map(|o| o.path.to_string()).collect();
        assert_eq!(paths, ["dms.project_id", "workers[0].ack_wait"]);
    }

    /// What Kubernetes 1.37 sets for a Service with a named and an unnamed port, for names of all kinds.
    #[test]
    fn links_of_any_service_are_passed_over() {
        for service in ["", "ADMIN_", "QUEUE_", "WORKERS__0_", "SERVER_PORT_", "X_SERVICE_", "CONFIG_", "PORT_9_TCP_"] {
            let link = |rest: &str, value: &str| (format!("DMS_WORKER_{service}{rest}"), value.to_owned());
            let links = [
                link("PORT", "tcp://10.0.0.1:80"),
                link("PORT_53_UDP", "udp://10.0.0.1:53"),
                link("PORT_53_UDP_ADDR", "10.0.0.1"),
                link("PORT_53_UDP_PORT", "53"),
                link("PORT_53_UDP_PROTO", "udp"),
                link("PORT_80_TCP", "tcp://[fd00::1]:80"),
                link("PORT_80_TCP_ADDR", "fd00::1"),
                link("SERVICE_HOST", "10.0.0.1"),
                link("SERVICE_PORT", "80"),
                link("SERVICE_PORT_HTTP_METRICS", "9402"),
            ];
            assert_eq!(overrides(&links), [], "{service}");
            assert_eq!(passed_over(&links).len(), links.len(), "{service}");
        }
    }

    #[test]
    fn mistyped_keys_are_no_links() {
        let variables = owned(&[
            ("DMS_WORKER_ADMIN_LISTEN", "127.0.0.1:9402"),
            ("DMS_WORKER_ADMIN_PORT", "9402"),
            ("DMS_WORKER_ADMIN__PORT", "9402"),
            ("DMS_WORKER_SERVICE_HOST", "dms.example"),
            ("DMS_WORKER_WORKERS__0__HANDLER__HTTP__HEADERS__X_SERVICE_HOST", "10.0.0.1"),
        ]);
        assert_eq!(overrides(&variables).len(), variables.len());
        assert_eq!(passed_over(&variables), [""; 0]);
    }
}
