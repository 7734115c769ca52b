//! The health checks of the files under `deploy/`, against programs that run with the configurations beside them.

use std::process::{Command, Stdio};

use serde_json::Value;

use super::{
    Program, Running,
    deploy::{Shipped, configurations, pods, with_environment},
};

/// A program that runs with a shipped configuration, on addresses of the test.
struct Started {
    program: Program,
    process: Running,
    config: String,
    /// What stands in the place of addresses of the file, for the program and for its health check.
    changes: Vec<(&'static str, String)>,
    admin: String,
}

impl Started {
    fn new(shipped: &Shipped, command: &str, mut changes: Vec<(&'static str, String)>) -> Self {
        let program = Program::new();
        changes.push(("DMS_WORKER_SERVER__DATA_DIR", program.dir().join("data").display().to_string()));
        let config = shipped.install(&program);
        let mut start = program.command(&[command, "-c", &config]);
        with_environment(&mut start, &program).envs(changes.iter().cloned());
        let process = Running::start(start.stdin(Stdio::null()).stdout(Stdio::null()));
        let admin = process.url("admin on ");
        let bare = admin.split_once("://").unwrap().1.to_owned();
        let key = if command == "serve" { "DMS_WORKER_SERVER__ADMIN" } else { "DMS_WORKER_ADMIN__LISTEN" };
        changes.retain(|(name, _)| *name != key);
        changes.push((key, bare));
        Self { program, process, config, changes, admin }
    }

    fn serve(shipped: &Shipped) -> Self {
        let any = || "127.0.0.1:0".to_owned();
        let changes = vec![("DMS_WORKER_SERVER__LISTEN", any()), ("DMS_WORKER_SERVER__ADMIN", any())];
        Self::new(shipped, "serve", changes)
    }

    /// Runs a worker for the queues of `server`, whose live probe stands for the application's.
    fn run(shipped: &Shipped, server: &Self) -> Self {
        let app = format!("{}/livez", server.admin);
        let changes = vec![
            ("DMS_WORKER_DMS__ENDPOINT", server.process.url("serving on ")),
            ("DMS_WORKER_WORKERS__0__HANDLER__HTTP__URL", app.clone()),
            ("DMS_WORKER_WORKERS__0__HANDLER__HTTP__HEALTH_URL", app),
            // It is ready once a poll is answered, and these queues are empty.
            ("DMS_WORKER_WORKERS__0__POLL_WAIT", "1s".to_owned()),
            ("DMS_WORKER_ADMIN__LISTEN", "127.0.0.1:0".to_owned()),
        ];
        Self::new(shipped, "run", changes)
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = self.program.command(args);
        with_environment(&mut command, &self.program).envs(self.changes.iter().cloned());
        command.env("DMS_WORKER_CONFIG", &self.config);
        command
    }

    /// Asks until the program is ready: each try takes a process, and there is an end to them.
    #[track_caller]
    fn passes(&self, args: &[&str]) {
        let mut tries = (0..200).map(|_| self.command(args).output().unwrap());
        if !tries.any(|output| output.status.success()) {
            panic!("{args:?} does not pass: {:?}", self.command(args).output());
        }
    }
}

fn shipped(file: &str) -> Shipped {
    let found = configurations().into_iter().find(|shipped| shipped.file.ends_with(file));
    found.unwrap_or_else(|| panic!("no configuration in {file}"))
}

/// The health check of the image, which Compose uses too, with each configuration.
#[test]
fn the_images_health_check_passes() {
    let dockerfile = include_str!("../../../../../deploy/Dockerfile");
    assert!(dockerfile.contains(r#"CMD ["dms-worker", "health"]"#) && dockerfile.contains("HEALTHCHECK"));
    for place in ["compose", "systemd"] {
        let server = Started::serve(&shipped(&format!("{place}/server.yaml")));
        server.passes(&["health"]);
        Started::run(&shipped(&format!("{place}/worker.yaml")), &server).passes(&["health"]);
    }
}

/// Every probe of a container of ours.
fn probes(pod: &Value) -> Vec<Value> {
    let containers = pod["containers"].as_array().unwrap().iter();
    let ours = containers.filter(|container| container["image"].as_str().unwrap().starts_with("dms-worker:"));
    let kinds = ["startupProbe", "readinessProbe", "livenessProbe"];
    ours.flat_map(|container| kinds.map(|kind| container[kind].clone())).collect()
}

/// A probe as the node makes it: it believes any certificate, and follows the scheme of the manifest.
fn answers(url: &str) -> u16 {
    let client = reqwest::Client::builder().no_proxy().tls_danger_accept_invalid_certs(true).build().unwrap();
    let get = async { client.get(url).send().await.unwrap().status().as_u16() };
    tokio::runtime::Runtime::new().unwrap().block_on(get)
}

#[test]
fn the_probes_of_the_manifests_pass() {
    let server = Started::serve(&shipped("kubernetes/server.yaml"));
    let plain = Started::serve(&shipped("compose/server.yaml"));
    let sidecar = Started::run(&shipped("kubernetes/sidecar.yaml"), &plain);
    let mut asked = 0;
    for pod in pods() {
        let is_server = pod["containers"][0]["name"] == "server";
        let started = if is_server { &server } else { &sidecar };
        started.passes(&["health"]);
        for probe in probes(&pod) {
            let get = &probe["httpGet"];
            assert_eq!(get["port"], "admin", "{probe}");
            let scheme = get["scheme"].as_str().unwrap_or("HTTP").to_lowercase();
            let bare = started.admin.split_once("://").unwrap().1;
            let url = format!("{scheme}://{bare}{}", get["path"].as_str().unwrap());
            assert_eq!(answers(&url), 200, "{url}");
            asked += 1;
        }
    }
    assert_eq!(asked, 9);
}
