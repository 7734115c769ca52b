//! The files under `deploy/`: they parse, and their configurations are valid.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use serde::Deserialize;
use serde_json::Value;

use super::Program;
use crate::pki::Pki;

/// A configuration that is given away.
pub(super) struct Shipped {
    /// The file that it is in.
    pub(super) file: PathBuf,
    pub(super) text: String,
}

pub(super) fn files(folder: &str) -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").join("deploy").join(folder);
    let mut files: Vec<_> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files
}

pub(super) fn documents(file: &Path) -> Vec<Value> {
    let text = fs::read_to_string(file).unwrap();
    yaml_serde::Deserializer::from_str(&text).map(|document| Value::deserialize(document).unwrap()).collect()
}

/// Every configuration: in files of their own, and in config maps.
pub(super) fn configurations() -> Vec<Shipped> {
    let yaml = |folder| files(folder).into_iter().filter(|file| file.extension().is_some_and(|end| end == "yaml"));
    let own = yaml("systemd").chain(yaml("compose").filter(|file| !file.ends_with("compose.yaml")));
    let own = own.map(|file| Shipped { text: fs::read_to_string(&file).unwrap(), file });
    let in_maps = yaml("kubernetes").flat_map(|file| {
        let texts: Vec<_> =
            documents(&file).iter().filter_map(|map| map["data"]["config.yaml"].as_str().map(str::to_owned)).collect();
        texts.into_iter().map(move |text| Shipped { file: file.clone(), text })
    });
    own.chain(in_maps).collect()
}

impl Shipped {
    /// Writes it for a program, with its secrets in the program's directory.
    pub(super) fn install(&self, program: &Program) -> String {
        for secret in ["secret_key", "admin_token"] {
            for name in [secret.to_owned(), format!("dms-server.{secret}"), format!("dms-worker.{secret}")] {
                program.file(&name, &format!("the {secret}\n"));
            }
        }
        let pki = Pki::new();
        for name in ["tls.crt", "tls.key"] {
            program.file(name, &fs::read_to_string(pki.path(name)).unwrap());
        }
        program.file("ca.crt", &fs::read_to_string(pki.path("ca.pem")).unwrap());
        program.file("url", "postgres://dms:password@pg-primary/dms\n");
        let dir = program.dir().display().to_string();
        let places =
            ["/run/secrets/dms", "/run/secrets/tls", "/run/secrets/postgres", "/run/secrets/hop", "/run/secrets"];
        program.file("config.yaml", &places.iter().fold(self.text.clone(), |text, place| text.replace(place, &dir)))
    }
}

/// What manifests and units set in the environment.
pub(super) fn with_environment<'a>(command: &'a mut Command, program: &Program) -> &'a mut Command {
    command.env("DMS_ACCESS_KEY", "orders").env("CREDENTIALS_DIRECTORY", program.dir()).env("POD_IP", "10.0.0.7")
}

#[test]
fn every_configuration_passes_the_check() {
    let shipped = configurations();
    assert!(shipped.len() == 7, "{:?}", shipped.iter().map(|shipped| &shipped.file).collect::<Vec<_>>());
    for shipped in shipped {
        let program = Program::new();
        let path = shipped.install(&program);
        let output = with_environment(&mut program.command(&["check", "-c", &path]), &program).output().unwrap();
        assert!(output.status.success(), "{}: {}", shipped.file.display(), String::from_utf8_lossy(&output.stderr));
    }
}

#[test]
fn manifests_are_valid_kubernetes_objects() {
    for file in files("kubernetes") {
        for document in documents(&file) {
            let named = document["kind"].is_string() && document["metadata"]["name"].is_string();
            assert!(named, "{}: {document}", file.display());
        }
    }
}

/// The specifications of the pods in the manifests.
pub(super) fn pods() -> Vec<Value> {
    let documents = files("kubernetes").into_iter().flat_map(|file| documents(&file));
    documents.map(|document| document["spec"]["template"]["spec"].clone()).filter(Value::is_object).collect()
}

#[test]
fn pods_have_only_the_privileges_they_need() {
    let pods = pods();
    assert_eq!(pods.len(), 3);
    for pod in pods {
        assert_eq!(pod["automountServiceAccountToken"], false, "{pod}");
        assert_eq!(pod["enableServiceLinks"], false, "{pod}");
        assert_eq!(pod["securityContext"]["runAsNonRoot"], true, "{pod}");
        assert_eq!(pod["securityContext"]["seccompProfile"]["type"], "RuntimeDefault", "{pod}");
        for container in pod["containers"].as_array().unwrap() {
            let (context, resources) = (&container["securityContext"], &container["resources"]);
            assert_eq!(context["allowPrivilegeEscalation"], false, "{container}");
            assert_eq!(context["readOnlyRootFilesystem"], true, "{container}");
            assert_eq!(context["capabilities"]["drop"][0], "ALL", "{container}");
            assert!(
                resources["requests"]["cpu"].is_string() && resources["requests"]["memory"].is_string(),
                "{container}"
            );
            assert!(resources["limits"]["cpu"].is_string() && resources["limits"]["memory"].is_string(), "{container}");
        }
    }
}

#[test]
fn units_start_commands_that_exist() {
    let program = Program::new();
    for file in files("systemd").into_iter().filter(|file| file.extension().is_some_and(|end| end == "service")) {
        let text = fs::read_to_string(&file).unwrap();
        let start = text.lines().find_map(|line| line.strip_prefix("ExecStart=/usr/bin/dms-worker ")).unwrap();
        let command = start.split(' ').next().unwrap();
        let help = program.run(&[command, "--help"]).ok();
        for flag in start.split(' ').filter(|word| word.starts_with('-')) {
            assert!(help.contains(flag), "{}: {command} has no {flag}", file.display());
        }
        for line in ["Type=notify", "RestartPreventExitStatus=2 78", "MemoryDenyWriteExecute=yes", "LimitCORE=0"] {
            assert!(text.lines().any(|found| found == line), "{}: {line}", file.display());
        }
    }
}

/// What a configuration reads from the directory of credentials is what its unit puts there.
#[test]
fn units_load_the_credentials_of_their_configurations() {
    for (unit, configuration) in [("dms-server.service", "server.yaml"), ("dms-worker.service", "worker.yaml")] {
        let read = |name: &str| {
            fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").join("deploy/systemd").join(name))
                .unwrap()
        };
        let (unit, configuration) = (read(unit), read(configuration));
        let named: Vec<_> = configuration.split("${CREDENTIALS_DIRECTORY}/").skip(1).collect();
        assert!(!named.is_empty());
        for rest in named {
            let name = rest.split_whitespace().next().unwrap();
            assert!(unit.lines().any(|line| line == format!("LoadCredential={name}")), "{name}");
        }
    }
}
