//! Which environment variables set which keys.

use super::{layer::Override, path::KeyPath, problem::Origin};

/// What every variable of ours begins with.
const PREFIX: &str = "DMS_WORKER_";
/// The variable that names the configuration file.
pub(crate) const FILE_VARIABLE: &str = "DMS_WORKER_CONFIG";

/// The settings made by `variables`: `DMS_WORKER_` and the key in capitals, `__` between levels, lists by index, as in
/// `DMS_WORKER_WORKERS__0__ACK_WAIT`. Sorted by name, so that lists grow in order.
pub(crate) fn overrides(variables: &[(String, String)]) -> Vec<Override> {
    let mut found: Vec<Override> = variables
        .iter()
        .filter_map(|(name, value)| {
            Some(Override { path: key(name)?, origin: Origin::Variable(name.clone()), value: value.clone() })
        })
        .collect();
    found.sort_by(|a, b| a.path.cmp(&b.path));
    found
}

/// The key that a variable of this name sets.
pub(crate) fn key(name: &str) -> Option<KeyPath> {
    let rest = name.strip_prefix(PREFIX).filter(|_| name != FILE_VARIABLE && !is_service_link(name))?;
    Some(KeyPath::new(rest.to_lowercase().split("__")))
}

/// Kubernetes sets `DMS_WORKER_PORT`, `DMS_WORKER_SERVICE_HOST` and the like in every pod beside a service that is
/// called `dms-worker`. They are not meant for us.
fn is_service_link(name: &str) -> bool {
    let rest = &name[PREFIX.len()..];
    rest == "PORT" || rest.starts_with("PORT_") || rest.starts_with("SERVICE_")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_become_paths_and_links_of_a_service_are_left_alone() {
        let variables = [
            ("DMS_WORKER_WORKERS__0__ACK_WAIT", "60s"),
            ("DMS_WORKER_CONFIG", "/x"),
            ("DMS_WORKER_PORT", "tcp://10.0.0.1:80"),
            ("DMS_WORKER_PORT_9400_TCP_ADDR", "10.0.0.1"),
            ("DMS_WORKER_SERVICE_HOST", "10.0.0.1"),
            ("DMS_WORKER_DMS__PROJECT_ID", "p"),
            ("PATH", "/bin"),
        ];
        let owned: Vec<_> = variables.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect();
        let paths: Vec<_> = overrides(&owned).iter().map(|o| o.path.to_string()).collect();
        assert_eq!(paths, ["dms.project_id", "workers[0].ack_wait"]);
    }
}
