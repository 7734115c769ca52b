//! Which layer takes precedence, and how values are written.

use std::time::Duration;

use dms_worker_cli::config::{AdminSection, Auto, Config, Dashboard, Request, Secret, load};

use super::{read, worker};

#[test]
fn an_empty_configuration_has_the_defaults() {
    assert_eq!(load(&Request::new()).unwrap().config, Config::default());
    assert_eq!(read("", &[]).unwrap().config, Config::default());
    assert_eq!(read("server:\nlog:\n  filter:\n", &[]).unwrap().config, Config::default());
}

#[test]
fn flags_override_variables_and_variables_the_file() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("config.yaml");
    std::fs::write(&file, "server: {listen: 127.0.0.1:1, data_dir: /file, project_name: file}\n").unwrap();
    let variables = [("DMS_WORKER_SERVER__LISTEN", "127.0.0.1:2"), ("DMS_WORKER_SERVER__DATA_DIR", "/env")];
    let variables = variables.map(|(name, value)| (name.to_owned(), value.to_owned()));
    let request = Request::new().file(file).variables(variables).flag("--listen", "server.listen", "127.0.0.1:3");
    let server = load(&request).unwrap().config.server;
    assert_eq!(server.listen.port(), 3);
    assert_eq!(server.data_dir.unwrap().to_str(), Some("/env"));
    assert_eq!(server.project_name.as_deref(), Some("file"));
}

#[test]
fn a_variable_changes_one_key_of_a_list_item_and_adds_items() {
    let variables = [("DMS_WORKER_WORKERS__0__CONCURRENCY", "64"), ("DMS_WORKER_WORKERS__0__PUBLISH", "")];
    let config = read(&worker("tags: [a]"), &variables[..1]).unwrap().config;
    assert_eq!(config.workers[0].concurrency, 64);
    assert_eq!(config.workers[0].tags, ["a"]);

    let variables = [
        ("DMS_WORKER_WORKERS__0__TAGS__1", "b"),
        ("DMS_WORKER_SERVER__FIFO_BLOCKS", "false"),
        ("DMS_WORKER_PUBLISHERS__0__QUEUE", "q"),
    ];
    let config = read(&worker("tags: [a]"), &variables).unwrap().config;
    assert_eq!(config.workers[0].tags, ["a", "b"]);
    assert!(!config.server.fifo_blocks);
    assert_eq!(config.publishers[0].queue, "q");
}

#[test]
fn values_that_look_like_numbers_stay_text() {
    let yaml = "dms: {endpoint: 'http://127.0.0.1:1', auth: {access_key: AK, secret_key: '0123'}}\n";
    let variables = [("DMS_WORKER_DMS__AUTH__SECRET_KEY", "0123456")];
    let auth = read(yaml, &[]).unwrap().config.dms.auth.unwrap();
    assert_eq!(auth.secret_key.unwrap().expose(), "0123");
    let auth = read(yaml, &variables).unwrap().config.dms.auth.unwrap();
    assert_eq!(auth.secret_key.unwrap().expose(), "0123456");
}

#[test]
fn variables_are_put_into_scalars_of_any_type() {
    let yaml = worker("concurrency: ${N}\n    poll_wait: ${WAIT:-7s}\n    name: \"a: ${NAME}\"");
    let worker = read(&yaml, &[("N", "5"), ("NAME", "x: [")]).unwrap().config.workers.remove(0);
    assert_eq!((worker.concurrency, worker.poll_wait.get()), (5, Duration::from_secs(7)));
    assert_eq!(worker.name.unwrap(), "a: x: [", "a variable's text cannot change the structure of the file");
}

#[test]
fn anchors_and_merge_keys_share_settings() {
    let yaml = "server:\n  queues: [{name: q, groups: [g, h]}]\nworkers:\n  - &base\n    queue: q\n    group: g\n    ack_wait: 60s\n    handler: {log: }\n  - <<: *base\n    group: h\n";
    let workers = read(yaml, &[]).unwrap().config.workers;
    assert_eq!(workers[1].group, "h");
    assert_eq!(workers[1].ack_wait(), Duration::from_secs(60));
    assert!(workers[1].handler.log.is_some(), "`log:` is `log: {{}}`");
}

#[test]
fn a_secret_comes_from_the_file_beside_its_key() {
    let dir = tempfile::tempdir().unwrap();
    let secret = dir.path().join("secret");
    std::fs::write(&secret, "s3cret\n").unwrap();
    let yaml = format!(
        "dms: {{endpoint: 'http://127.0.0.1:1', auth: {{access_key: AK, secret_key_file: '{}'}}}}\n",
        secret.display()
    );
    let auth = read(&yaml, &[]).unwrap().config.dms.auth.unwrap();
    assert_eq!(auth.secret_key.unwrap().expose(), "s3cret");
}

#[test]
fn a_variable_overrides_a_secret_whichever_of_its_two_keys_the_file_has() {
    let dir = tempfile::tempdir().unwrap();
    let secret = dir.path().join("secret");
    std::fs::write(&secret, "of the file\n").unwrap();
    let auth = |yaml: &str, variable: (&str, &str)| {
        let yaml = format!("dms: {{endpoint: 'http://127.0.0.1:1', auth: {{access_key: AK, {yaml}}}}}\n");
        let auth = read(&yaml, &[variable]).unwrap().config.dms.auth.unwrap();
        (auth.secret_key.unwrap().expose().to_owned(), auth.secret_key_file)
    };
    let variable = ("DMS_WORKER_DMS__AUTH__SECRET_KEY", "of the variable");
    // The file is not read, and a missing one is no mistake: nothing of it is in force.
    assert_eq!(auth("secret_key_file: /missing", variable), ("of the variable".to_owned(), None));
    let variable = ("DMS_WORKER_DMS__AUTH__SECRET_KEY_FILE", secret.to_str().unwrap());
    assert_eq!(auth("secret_key: inline", variable), ("of the file".to_owned(), Some(secret.clone())));
}

#[test]
fn a_command_is_a_list_or_a_map() {
    let short = worker("").replace("{log: {}}", "{command: [./handle.sh, --fast]}");
    let long = worker("").replace("{log: {}}", "{command: {run: [./handle.sh], timeout: 5s, mode: json_lines}}");
    let command = |yaml: &str| read(yaml, &[]).unwrap().config.workers.remove(0).handler.command.unwrap();
    assert_eq!(command(&short).run, ["./handle.sh", "--fast"]);
    assert_eq!(command(&long).timeout.unwrap().to_string(), "5s");
}

#[test]
fn an_automatic_lease_covers_the_handlers_timeout() {
    let yaml = worker("ack_wait: auto").replace("{log: {}}", "{http: {url: 'http://127.0.0.1:1', timeout: 100s}}");
    let worker = read(&yaml, &[]).unwrap().config.workers.remove(0);
    assert_eq!(worker.ack_wait, Auto::Auto);
    assert!(worker.ack_wait() > Duration::from_secs(101), "{:?}", worker.ack_wait());
}

#[test]
fn every_setting_knows_its_origin_and_secrets_are_masked() {
    let yaml = "dms:\n  endpoint: http://127.0.0.1:1\n  auth: {access_key: AK, secret_key: hunter2}\n";
    let loaded = read(yaml, &[("DMS_WORKER_LOG__FILTER", "debug")]).unwrap();
    let settings = loaded.settings();
    let find = |key: &str| settings.iter().find(|setting| setting.key == key).unwrap();
    assert!(find("dms.endpoint").origin.to_string().ends_with("config.yaml:2"));
    assert_eq!(find("log.filter").origin.to_string(), "DMS_WORKER_LOG__FILTER");
    assert_eq!(find("shutdown.grace").origin.to_string(), "default");
    assert_eq!(find("shutdown.grace").value, "25s");
    assert_eq!(find("dms.auth.secret_key").value, "***");
    assert!(!format!("{settings:?}{:?}", loaded.config).contains("hunter2"));
}

/// The project of the vendor's own variables counts where the configuration names none, and the server is not our own.
#[test]
fn the_vendors_project_is_the_default_of_a_remote_service() {
    let project = |yaml: &str| {
        let vendor = [("HUAWEICLOUD_SDK_PROJECT_ID", "b78a90ae2a134b4b8b2ba30acab4e23a")];
        super::read(yaml, &vendor).unwrap().config.dms.project_id
    };
    assert_eq!(project("dms: {endpoint: \"https://dms.example\"}"), "b78a90ae2a134b4b8b2ba30acab4e23a");
    assert_eq!(project("dms: {endpoint: \"https://dms.example\", project_id: mine}"), "mine");
    assert_eq!(project("dms: {endpoint: embedded}"), "local");
}

/// `server.admin` is an address or a section, and later layers may use either form.
#[test]
fn the_admin_address_is_an_address_or_a_section() {
    let address = "127.0.0.1:9401".parse().unwrap();
    let section = "server: {admin: {listen: '127.0.0.1:9401', token: T, read_token: R, dashboard: {actions: true}}}\n";
    let admin = |yaml: &str, variables: &[(&str, &str)]| read(yaml, variables).unwrap().config.server.admin.0;

    assert_eq!(
        admin("server: {admin: '127.0.0.1:9401'}\n", &[]),
        AdminSection { listen: Some(address), ..AdminSection::default() }
    );
    let read = admin(section, &[]);
    assert_eq!((read.listen, read.dashboard), (Some(address), Dashboard { enabled: true, actions: true }));
    assert_eq!(read.token.as_ref().map(Secret::expose), Some("T"));

    // An address in a later layer keeps the tokens of the section.
    let read = admin(section, &[("DMS_WORKER_SERVER__ADMIN", "127.0.0.1:1")]);
    assert_eq!((read.listen.unwrap().port(), read.token.is_some(), read.read_token.is_some()), (1, true, true));
    // A token in a later layer keeps the address.
    let later = [("DMS_WORKER_SERVER__ADMIN__TOKEN", "T"), ("DMS_WORKER_SERVER__ADMIN__DASHBOARD", "false")];
    let read = admin("server: {admin: '127.0.0.1:9401'}\n", &later);
    assert_eq!((read.listen, read.token.is_some(), read.dashboard.enabled), (Some(address), true, false));
}
