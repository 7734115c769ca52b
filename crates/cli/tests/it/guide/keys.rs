//! Every configuration of the guide is one: its keys and values fit the schema, on a page or in its own file.

use boon::{Compiler, Schemas};
use serde_json::Value;

use super::pages;

const SECTIONS: [&str; 12] = [
    "dms",
    "server",
    "workers",
    "publishers",
    "outboxes",
    "admin",
    "shutdown",
    "log",
    "limits",
    "reload",
    "on_worker_failure",
    "schedules",
];

#[test]
fn every_configuration_of_the_guide_fits_the_schema() {
    let (mut schemas, mut compiler) = (Schemas::new(), Compiler::new());
    compiler.add_resource("config.json", dms_worker_cli::config::schema()).unwrap();
    let index = compiler.compile("config.json", &mut schemas).unwrap();
    let mut checked = 0;
    for block in pages().iter().flat_map(super::Page::blocks).filter(|block| block.language == "yaml") {
        let config: Value =
            yaml_serde::from_str(&block.text).unwrap_or_else(|error| panic!("{}: {error}", block.place));
        let is_configuration =
            config.as_object().is_some_and(|map| map.keys().all(|key| SECTIONS.contains(&key.as_str())));
        assert!(is_configuration, "{}: no section is called so", block.place);
        if let Err(error) = schemas.validate(&config, index) {
            panic!("{}: {error}", block.place);
        }
        checked += 1;
    }
    assert!(checked >= 12, "{checked}");
}
