//! The alert rules name existing metrics, and each says what to do. `promtool` tests in `.ci/run` when they fire.

use std::collections::BTreeSet;

use serde_json::Value;

use super::dashboard::{assert_known, names};

fn rules() -> Vec<Value> {
    let groups: Value = yaml_serde::from_str(include_str!("../../../../../deploy/prometheus/alerts.yaml")).unwrap();
    let groups = groups["groups"].as_array().unwrap();
    groups.iter().flat_map(|group| group["rules"].as_array().unwrap().clone()).collect()
}

#[test]
fn every_metric_of_the_alert_rules_is_registered_and_documented() {
    let used: BTreeSet<_> = rules().iter().flat_map(|rule| names(rule["expr"].as_str().unwrap())).collect();
    assert!(used.len() > 10, "{used:?}");
    used.iter().for_each(|name| assert_known(name));
}

#[test]
fn every_alert_rule_says_what_it_is_about_and_is_tested() {
    let tests = include_str!("../../../../../deploy/prometheus/alerts_test.yaml");
    for rule in rules() {
        let name = rule["alert"].as_str().unwrap();
        assert!(["critical", "warning"].map(Value::from).contains(&rule["labels"]["severity"]), "{name}");
        for key in ["summary", "description"] {
            assert!(rule["annotations"][key].as_str().is_some_and(|text| text.len() > 20), "{name}: {key}");
        }
        assert!(tests.contains(&format!("alertname=\"{name}\"")), "{name} is not tested");
    }
}
