//! Each key set alone, at its minimum and maximum: it is accepted, or refused with a text that names key, value and limit. No
//! default of another key makes it invalid.

use dms_worker_cli::{
    config::{Loaded, Span},
    sidecar,
};

use super::{mistakes, read};

/// What a key is set to, and `None` where that is accepted, or else what the refusal says of the limit.
type Case = (&'static str, Option<&'static str>);

#[track_caller]
fn check(frame: impl Fn(&str) -> String, key: &str, cases: &[Case]) {
    for (value, limit) in cases {
        let yaml = frame(&format!("{key}: {value}"));
        match limit {
            None => accepted(&yaml),
            Some(limit) => refused(&yaml, key, value, limit),
        }
    }
}

#[track_caller]
fn accepted(yaml: &str) {
    let loaded = read(yaml, &[]).unwrap_or_else(|error| panic!("{error}\n{yaml}"));
    settles(&loaded, yaml);
}

/// A configuration that passes `check` also passes the checks of the workers.
#[track_caller]
fn settles(loaded: &Loaded, yaml: &str) {
    sidecar::check(&loaded.config).unwrap_or_else(|error| panic!("{error}\n{yaml}"));
}

#[track_caller]
fn refused(yaml: &str, key: &str, value: &str, limit: &str) {
    let found = mistakes(yaml, &[]);
    let [only] = found.as_slice() else { panic!("one mistake is expected: {found:?}\n{yaml}") };
    let names = |part: &str| only.contains(part);
    let written = names(value) || value.parse::<Span>().is_ok_and(|span| names(&span.to_string()));
    assert!(names(&format!("{key}: ")) && written && names(limit), "{key}: {value}: {only}");
}

const HTTP: &str = "http: {url: 'http://127.0.0.1:1'}";

/// A worker with this handler and this setting.
fn worker(handler: &str, setting: &str) -> String {
    format!(
        "server:\n  queues: [{{name: q, groups: [g], max_consume_count: 3}}, {{name: p}}]\nworkers:\n  - queue: q\n    group: g\n    handler: {{{handler}}}\n    {setting}\n"
    )
}

fn section(name: &'static str) -> impl Fn(&str) -> String {
    move |setting| format!("{name}:\n  {setting}\n")
}

#[test]
fn settings_of_a_worker_have_limits() {
    let cases: &[(&str, &[Case])] = &[
        (
            "ack_wait",
            &[
                ("15s", None),
                ("300s", None),
                ("auto", None),
                ("14s", Some("15s to 300s")),
                ("301s", Some("15s to 300s")),
            ],
        ),
        ("poll_wait", &[("1s", None), ("60s", None), ("0s", Some("1s to 60s")), ("61s", Some("1s to 60s"))]),
        ("concurrency", &[("1", None), ("100000", None), ("0", Some("1 to 100000")), ("100001", Some("1 to 100000"))]),
        ("max_in_flight_bytes", &[("524288", None), ("1099511627776", None), ("524287", Some("524288"))]),
        ("max_messages", &[("1", None), ("10", None), ("0", Some("1 to 10")), ("11", Some("1 to 10"))]),
        ("weight", &[("1", None), ("1000", None), ("0", Some("1 to 1000")), ("1001", Some("1 to 1000"))]),
        ("pollers", &[("1", None), ("1000", None), ("0", Some("1 to 1000")), ("1001", Some("1 to 1000"))]),
        ("rate_limit", &[("1/h", None), ("1000000/s", None), ("4294967295/h", Some("a million a second"))]),
        ("ordering", &[("batch", None), ("{key_attribute: k}", None), ("{key_pointer: /k}", None)]),
        ("source", &[("dead_letters", None)]),
        ("tag_type", &[("and", None)]),
        ("on_failure", &[("{republish: {}}", None)]),
        ("on_reject", &[("discard", None), ("{park: p}", None)]),
        ("max_attempts", &[("1", None), ("4294967295", None), ("0", Some("1 or more"))]),
        (
            "retry",
            &[
                ("{}", None),
                ("{max_attempts: 1}", None),
                ("{max_attempts: 4294967295}", None),
                ("{backoff: 1ms}", None),
                ("{backoff: 300s}", None),
            ],
        ),
        (
            "deduplicate",
            &[
                ("{key: k}", None),
                ("{key: /order/id, keep: 1ms}", None),
                ("{key: k, store: memory, scope: s}", None),
                ("{key: k, store: {postgres: {url: 'host=db'}}}", None),
                ("{key: k, store: {redis: {url: 'rediss://:pw@cache/1'}}}", None),
            ],
        ),
        ("remember_finished", &[("false", None)]),
        ("unique_attribute", &[("k", None)]),
        ("unique_pointer", &[("/k", None)]),
    ];
    let collects =
        [HTTP.to_owned(), HTTP.replace('}', ", batch: {collect: {}}}"), HTTP.replace('}', ", batch: consumed}")];
    let commands = ["log: {}", "command: ['true']"].map(str::to_owned);
    for handler in commands.iter().chain(&collects) {
        for (key, cases) in cases {
            if ["retry", "deduplicate"].contains(key) && handler.contains("batch") {
                continue; // Layers handle one message at a time.
            }
            check(|setting| worker(handler, setting), key, cases);
        }
    }
}

#[test]
fn the_key_and_the_store_of_deduplication_are_checked() {
    for (settings, key, reason) in [
        ("{}", "key", "is required"),
        ("{key: k, keep: 0s}", "keep", "above zero"),
        ("{key: k, store: {postgres: {}}}", "store.postgres.url", "is required"),
        ("{key: k, store: {postgres: {url: 'host=db', schema: S}}}", "store.postgres.schema", "lowercase"),
        ("{key: k, store: {postgres: {url: 'host=db sslmode=require'}}}", "store.postgres.url", "ca_file"),
        ("{key: k, store: {postgres: {url: 'host=db', ca_file: /no.pem}}}", "store.postgres.ca_file", "/no.pem"),
        ("{key: k, store: {redis: {}}}", "store.redis.url", "is required"),
        ("{key: k, store: {redis: {url: 'http://cache'}}}", "store.redis.url", "cannot be used"),
        ("{key: k, store: {redis: {url: 'redis://cache', ca_file: /no.pem}}}", "store.redis.ca_file", "rediss://"),
        ("{key: k, store: {redis: {url: 'rediss://cache', ca_file: /no.pem}}}", "store.redis.ca_file", "/no.pem"),
    ] {
        let found = mistakes(&worker("log: {}", &format!("deduplicate: {settings}")), &[]);
        let [only] = found.as_slice() else { panic!("{settings}: one mistake is expected: {found:?}") };
        assert!(only.contains(&format!("deduplicate.{key}: ")) && only.contains(reason), "{settings}: {only}");
    }
    let batch = worker(&HTTP.replace('}', ", batch: consumed}"), "deduplicate: {key: k}");
    assert!(mistakes(&batch, &[])[0].contains("deduplicate: works with single messages"));
}

#[test]
fn the_database_of_an_outbox_is_checked() {
    for (settings, key, reason) in [
        ("{}", "postgres.url", "is required"),
        ("{postgres: {url: 'host=db', schema: S}}", "postgres.schema", "lowercase"),
        ("{postgres: {url: 'nonsense'}}", "postgres.url", "connection string"),
        ("{postgres: {url: 'host=db'}, poll_interval: 0s}", "poll_interval", "above zero"),
    ] {
        let found = mistakes(&format!("outboxes: [{settings}]\n"), &[]);
        let [only] = found.as_slice() else { panic!("{settings}: one mistake is expected: {found:?}") };
        assert!(only.contains(&format!("outboxes[0].{key}: ")) && only.contains(reason), "{settings}: {only}");
    }
    accepted("outboxes: [{postgres: {url: 'host=db'}}]\n");
}

#[test]
fn settings_of_a_handler_have_limits() {
    let http = |setting: &str| worker(&HTTP.replace('}', &format!(", {setting}}}")), "");
    check(
        http,
        "timeout",
        &[("1ms", None), ("29s", None), ("298s", None), ("0s", Some("above zero")), ("299s", Some("300s"))],
    );
    check(http, "connect_timeout", &[("1ms", None), ("1h", None), ("0s", Some("above zero"))]);
    check(http, "health_interval", &[("1ms", None), ("1h", None), ("0s", Some("above zero"))]);
    check(http, "format", &[("cloudevents", None)]);
    check(http, "batch", &[("consumed", None), ("{collect: {}}", None)]);

    let collect = |setting: &str| http(&format!("batch: {{collect: {{{setting}}}}}"));
    check(
        collect,
        "max_messages",
        &[("1", None), ("100000", None), ("0", Some("1 to 100000")), ("100001", Some("1 to 100000"))],
    );
    check(collect, "linger", &[("0s", None), ("28s", None), ("297s", None), ("300s", Some("300s"))]);
    let timeout = |setting: &str| http(&format!("batch: {{collect: {{}}}}, {setting}"));
    check(timeout, "timeout", &[("1ms", None), ("28s", None), ("298s", None)]);

    let command = |setting: &str| worker(&format!("command: {{run: ['true'], {setting}}}"), "");
    check(
        command,
        "timeout",
        &[("1ms", None), ("40s", None), ("298s", None), ("0s", Some("above zero")), ("299s", Some("300s"))],
    );
    check(command, "mode", &[("json_lines", None)]);
}

#[test]
fn delays_between_attempts_have_limits() {
    let republish = |setting: &str| worker("log: {}", &format!("on_failure: {{republish: {{{setting}}}}}"));
    check(republish, "backoff", &[("0s", None), ("2h", None), ("7d", None), ("8d", Some("at most 7d"))]);
    check(republish, "max_backoff", &[("0s", None), ("1s", None), ("7d", None), ("8d", Some("at most 7d"))]);
    check(republish, "max_attempts", &[("1", None), ("4294967295", None), ("0", Some("1 or more"))]);
}

#[test]
fn settings_of_the_service_and_the_server_have_limits() {
    check(section("dms"), "connect_timeout", &[("1ms", None), ("1h", None), ("0s", Some("above zero"))]);
    check(section("dms"), "api_version", &[("v1.0", None)]);
    check(section("server"), "create_delay", &[("0s", None), ("1h", None)]);
    check(section("server"), "token_lifetime", &[("1s", None), ("3650d", None), ("0s", Some("above zero"))]);
    let queue = |setting: &str| format!("server:\n  queues: [{{name: q, {setting}}}]\n");
    let retention = &[("1s", None), ("72h", None), ("999ms", Some("1s to 72h")), ("73h", Some("1s to 72h"))];
    check(section("server"), "retention", retention);
    check(queue, "retention", retention);
    check(queue, "delete_when_settled", &[("true", None), ("false", None)]);
    check(
        queue,
        "max_consume_count",
        &[("1", None), ("100", None), ("0", Some("1 to 100")), ("101", Some("1 to 100"))],
    );
    let kafka = |setting: &str| format!("server:\n  queues: [{{name: q, mode: KAFKA_HA, {setting}}}]\n");
    check(kafka, "retention_hours", &[("1", None), ("72", None), ("0", Some("1 to 72")), ("73", Some("1 to 72"))]);
    let limits = |setting: &str| format!("server:\n  limits: {{{setting}}}\n");
    check(limits, "connections", &[("1", None), ("0", Some("1 or more"))]);
    check(limits, "polls_per_group", &[("1", None), ("0", Some("1 or more"))]);
    check(limits, "request_bytes", &[("1048576", None), ("1048575", Some("1048576"))]);
    check(limits, "leased_bytes", &[("524288", None), ("524287", Some("524288"))]);
    check(section("shutdown"), "grace", &[("0s", None), ("365d", None)]);
    let shared = |setting: &str| worker("log: {}", &format!("weight: 1\nlimits: {{{setting}}}"));
    check(shared, "in_flight", &[("1", None), ("1000000", None), ("0", Some("1 or more"))]);
    check(shared, "bytes", &[("524288", None), ("1099511627776", None), ("524287", Some("524288"))]);
    let publisher =
        |setting: &str| format!("server: {{queues: [{{name: q}}]}}\npublishers:\n  - queue: q\n    {setting}\n");
    check(publisher, "linger", &[("0s", None), ("60s", None), ("61s", Some("at most 1m"))]);
    check(
        publisher,
        "max_pending",
        &[("1", None), ("1000000", None), ("0", Some("1 to 1000000")), ("1000001", Some("1 to 1000000"))],
    );
}

/// More queues and groups than the default quotas allow, and a project that only one of the two sections names.
#[test]
fn default_quotas_and_projects_follow_the_configuration() {
    let queues: Vec<String> = (0..31).map(|number| format!("{{name: q{number}, groups: [a, b, c, d]}}")).collect();
    accepted(&format!("server:\n  queues: [{}]\n", queues.join(", ")));
    accepted(&format!("server:\n  projects: [{{id: p, queues: [{}]}}]\n", queues.join(", ")));
    let quota = format!("server:\n  quotas: {{queues: 30}}\n  queues: [{}]\n", queues.join(", "));
    assert!(mistakes(&quota, &[])[0].contains("has 31 queues, the quota is 30"), "one that is set holds");

    for project in ["dms: {project_id: mine}\n", "server: {project_id: mine, queues: [{name: q, groups: [g]}]}\n"] {
        let yaml = worker("log: {}", "");
        let yaml = match project.starts_with("server") {
            true => {
                yaml.replace("server:\n  queues: [{name: q, groups: [g], max_consume_count: 3}, {name: p}]\n", project)
            }
            false => format!("{project}{yaml}"),
        };
        let config = read(&yaml, &[]).unwrap().config;
        assert_eq!((config.dms.project_id.as_str(), config.server.project_id.as_str()), ("mine", "mine"));
    }
}

/// A listener may take the default address of a server that the process does not start.
#[test]
fn addresses_of_another_process_are_not_compared() {
    accepted("dms: {endpoint: 'http://dms.example'}\nadmin: {listen: '127.0.0.1:9400'}\n");
    let clash = mistakes("admin: {listen: '127.0.0.1:9400'}\n", &[]);
    assert_eq!(clash.len(), 1, "{clash:?}");
}

/// What follows is shown, and by its usual value where that fits.
#[test]
fn defaults_follow_what_is_set() {
    let of = |handler: &str, setting: &str| read(&worker(handler, setting), &[]).unwrap().config.workers.remove(0);
    let timeout = |worker: &dms_worker_cli::config::Worker| worker.handler.timeout().unwrap().to_string();
    let short = of(HTTP, "ack_wait: 15s");
    assert_eq!((timeout(&short).as_str(), short.ack_wait().as_secs()), ("13s", 15));
    let long = of(&HTTP.replace('}', ", timeout: 40s}"), "");
    assert_eq!((timeout(&long).as_str(), long.ack_wait().as_secs()), ("40s", 42));
    let usual = of(HTTP, "ack_wait: 25s");
    assert_eq!(timeout(&usual), "20s");
    let variable = [("DMS_WORKER_WORKERS__0__ACK_WAIT", "15s")];
    assert_eq!(timeout(&read(&worker(HTTP, ""), &variable).unwrap().config.workers[0]), "13s");
}
