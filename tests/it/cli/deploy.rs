//! The files under `deploy/`: they parse, and the configurations in them are right.

use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde_json::Value;

use super::Program;

fn files(folder: &str) -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy").join(folder);
    std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect()
}

fn documents(file: &Path) -> Vec<Value> {
    let text = std::fs::read_to_string(file).unwrap();
    yaml_serde::Deserializer::from_str(&text).map(|document| Value::deserialize(document).unwrap()).collect()
}

#[test]
fn manifests_parse_and_their_configurations_are_right() {
    let program = Program::new();
    let mut checked = 0;
    for file in files("kubernetes") {
        for document in documents(&file) {
            assert!(
                document["kind"].is_string() && document["metadata"]["name"].is_string(),
                "{}: {document}",
                file.display()
            );
            let Some(text) = document["data"]["config.yaml"].as_str() else { continue };
            let path = program.file("config.yaml", text);
            let mut command = program.command(&["check", "-c", &path]);
            command.env("DMS_ACCESS_KEY", "AK").env("DMS_SECRET_KEY", "SK").env("DMS_ADMIN_TOKEN", "T");
            let output = command.output().unwrap();
            assert!(output.status.success(), "{}: {}", file.display(), String::from_utf8_lossy(&output.stderr));
            checked += 1;
        }
    }
    assert_eq!(checked, 2);
}

#[test]
fn units_start_commands_that_exist() {
    let program = Program::new();
    for file in files("systemd") {
        let text = std::fs::read_to_string(&file).unwrap();
        let start = text.lines().find_map(|line| line.strip_prefix("ExecStart=/usr/bin/dms-worker ")).unwrap();
        let command = start.split(' ').next().unwrap();
        let help = program.run(&[command, "--help"]).ok();
        for flag in start.split(' ').filter(|word| word.starts_with('-')) {
            assert!(help.contains(flag), "{}: {command} has no {flag}", file.display());
        }
        assert!(text.contains("Type=notify") && text.contains("RestartPreventExitStatus=2 78\n"));
    }
}
