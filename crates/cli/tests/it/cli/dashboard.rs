//! The dashboard shows existing metrics with their labels.

use std::collections::BTreeSet;

use serde_json::Value;

/// Where the metrics are registered.
const WORKERS: &str = include_str!("../../../../../src/worker/metrics.rs");
const CONFIGURATION: &str = include_str!("../../../src/sidecar/observe/configuration.rs");
const PRODUCERS: &str = include_str!("../../../../../src/producer/metrics.rs");
const SERVER: [&str; 5] = [
    include_str!("../../../../server/src/metrics/mod.rs"),
    include_str!("../../../../server/src/metrics/broker.rs"),
    include_str!("../../../../server/src/metrics/disk_space.rs"),
    include_str!("../../../../server/src/metrics/groups.rs"),
    include_str!("../../../../server/src/net/connection_limit/metrics.rs"),
];
const OPERATIONS: &str = include_str!("../../../../../docs/operations.md");

fn dashboard() -> Value {
    serde_json::from_str(include_str!("../../../../../deploy/grafana/dms-worker.json")).unwrap()
}

/// Everything that is asked of Prometheus.
fn expressions(dashboard: &Value) -> Vec<String> {
    let panels = dashboard["panels"].as_array().unwrap().iter();
    let targets = panels.flat_map(|panel| panel["targets"].as_array().into_iter().flatten());
    let variables = dashboard["templating"]["list"].as_array().unwrap().iter();
    let queries = variables.filter_map(|variable| variable["query"]["query"].as_str());
    targets.map(|target| target["expr"].as_str().unwrap()).chain(queries).map(str::to_owned).collect()
}

/// The metrics' names in a text.
pub(crate) fn names(text: &str) -> BTreeSet<String> {
    let word = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
    let words = text.split(|c| !word(c)).filter(|word| {
        ["dms_worker_", "dms_producer_", "dms_server_", "dms_connections"].iter().any(|start| word.starts_with(start))
    });
    words.map(str::to_owned).collect()
}

/// The name under which a metric is registered: without what the format adds to it.
fn registered(name: &str) -> &str {
    let ends = ["_total", "_bucket", "_sum", "_count"];
    ends.iter().find_map(|end| name.strip_suffix(end)).unwrap_or(name)
}

/// Panics unless the program has a metric of this name, and the documentation too.
#[track_caller]
pub(crate) fn assert_known(name: &str) {
    let short = registered(name);
    let known = match (short.strip_prefix("dms_worker_"), short.strip_prefix("dms_producer_")) {
        (Some(worker), _) => [WORKERS, CONFIGURATION]
            .iter()
            .any(|source| source.contains(&format!("\"{worker}\"")) || source.contains(&format!("\"{short}\""))),
        (None, Some(producer)) => PRODUCERS.contains(&format!("\"{producer}\"")),
        // A unit may be added to the name.
        (None, None) => [short, short.trim_end_matches("_seconds")]
            .iter()
            .any(|name| SERVER.iter().any(|source| source.contains(&format!("\"{name}\"")))),
    };
    assert!(known, "the program has no metric {name}");
    assert!(OPERATIONS.contains(name.trim_end_matches("_bucket")), "{name} is not in docs/operations.md");
}

#[test]
fn every_metric_of_the_dashboard_is_registered_and_documented() {
    let shown: BTreeSet<_> = expressions(&dashboard()).iter().flat_map(|text| names(text)).collect();
    assert!(shown.len() > 20, "{shown:?}");
    shown.iter().for_each(|name| assert_known(name));
}

#[test]
fn every_documented_metric_is_shown() {
    let shown: BTreeSet<_> = expressions(&dashboard()).iter().flat_map(|text| names(text)).collect();
    let shown: BTreeSet<_> = shown.iter().map(|name| registered(name)).collect();
    let rows = OPERATIONS.lines().filter(|line| line.starts_with("| `dms_"));
    let documented: Vec<_> = rows.filter_map(|row| row.split('`').nth(1)?.split('{').next()).collect();
    assert!(documented.len() > 20, "{documented:?}");
    for name in documented {
        assert!(shown.contains(registered(name)), "{name} is documented and not in the dashboard");
    }
}

/// Grafana shows one of two panels with the same id.
#[test]
fn every_panel_has_an_id_of_its_own() {
    let dashboard = dashboard();
    let panels = dashboard["panels"].as_array().unwrap();
    let ids: BTreeSet<_> = panels.iter().map(|panel| panel["id"].as_u64().unwrap()).collect();
    assert_eq!(ids.len(), panels.len());
}
