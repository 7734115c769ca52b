//! Every mistake is found at once, and its message names the place, the key, the value and the remedy.

use super::{mistakes, worker};

#[track_caller]
fn check(yaml: &str, expected: &[&str]) {
    assert_eq!(mistakes(yaml, &[]), expected, "\n{yaml}");
}

#[test]
fn all_mistakes_are_found_at_once() {
    let yaml = "\
dms:
  endpoint: ftp://x
  colour: red
server:
  listen: nowhere
  queues: [{name: orders, groups: [billing]}]
workers:
  - queue: orders
    group: billing
    concurency: 5
    ack_wait: 10s
    ordering: btach
    handler:
      log: {}
  - queue: orders
    group: billing
    name: second
    poll_wait: 20
    concurrency: many
    tags: x
    ack_wait: 30s
    handler: {http: {url: 'http://127.0.0.1:8080', timeout: 29s}}
";
    check(
        yaml,
        &[
            "config.yaml:2: dms.endpoint: `ftp://x` is not allowed: write `embedded`, or an address like https://dms.example.com or http://127.0.0.1:9400",
            "config.yaml:3: dms.colour: unknown key; known here: endpoint, dialect, content, api_version, project_id, auth, ca_file, insecure_skip_verify, connect_timeout",
            "config.yaml:5: server.listen: `nowhere` is not allowed: an address like 127.0.0.1:9400 is needed",
            "config.yaml:10: workers[0].concurency: unknown key; did you mean `concurrency`?",
            "config.yaml:11: workers[0].ack_wait: `10s` is not allowed: whole seconds from 15s to 300s",
            "config.yaml:12: workers[0].ordering: `btach` is not allowed: write none, batch, key_attribute or key_pointer; did you mean `batch`?",
            "config.yaml:18: workers[1].poll_wait: `20` has no unit: write 20s for seconds or 20ms for milliseconds",
            "config.yaml:19: workers[1].concurrency: `many` is not allowed: a whole number from 0 is needed",
            "config.yaml:20: workers[1].tags: `x` is not a list: write [a, b], or one variable per item with __0, __1, ... behind the name",
            "config.yaml:22: workers[1].handler.http.timeout: `29s` is too long for an ack_wait of 30s: a lease cannot be extended, so keep the timeout below 29s or raise ack_wait (at most 300s)",
        ],
    );
}

#[test]
fn an_access_key_that_cannot_stand_in_a_header_is_named_with_its_place() {
    check(
        "dms: {auth: {access_key: 'A,K', secret_key: SK}}\nserver:\n  auth:\n    access_keys:\n      - {access_key: A K, secret_key: SK}\n",
        &[
            "config.yaml:1: dms.auth.access_key: `A,K` is not allowed: visible ASCII characters except the comma are",
            "config.yaml:5: server.auth.access_keys[0].access_key: `A K` is not allowed: visible ASCII characters except the comma are",
        ],
    );
}

/// The library numbers the projects; the configuration has one of them in the keys of the server itself, or none.
#[test]
fn mistakes_of_a_project_are_named_where_it_stands() {
    let further = "projects:\n    - id: q\n      auth: {access_keys: [{access_key: AK}], users: [{user: u}]}\n      \
                   quotas: {queues: 0}\n      queues: [{name: a b}, {name: c, retention: 73h}]\n";
    let of_q = |line: usize| {
        [
            (1, "auth.access_keys[0].secret_key: is missing: set secret_key or secret_key_file"),
            (1, "auth.users[0].password: is missing: set password or password_file"),
            (2, "quotas.queues: `0` is not allowed: 1 or more is needed"),
            (3, "queues: has 2 queues, the quota is 0: raise quotas.queues"),
            (3, "queues[0].name: `a b` is not allowed: 1 to 64 of A-Z a-z 0-9 _ - are allowed"),
            (3, "queues[1].retention: `3d1h` is not allowed: 1s to 72h are"),
        ]
        .map(|(below, text)| format!("config.yaml:{}: server.projects[0].{text}", line + below))
    };
    let mut found = mistakes(&format!("server:\n  {further}"), &[]);
    found.sort();
    let mut expected = of_q(3).to_vec();
    expected.sort();
    assert_eq!(found, expected);

    let found = mistakes(&format!("server:\n  project_id: p\n  queues: [{{name: own}}]\n  {further}"), &[]);
    let unguarded = "config.yaml:3: server.auth: has neither access keys nor users, but other projects have: add some";
    assert_eq!(found.iter().filter(|text| of_q(5).contains(text)).count(), expected.len(), "{found:?}");
    assert!(
        found.iter().any(|text| text.ends_with(&unguarded[15..])) && found.len() == expected.len() + 1,
        "{found:?}"
    );
    check(
        "server:\n  project_id: p q\n  project_name: ''\n",
        &[
            "config.yaml:2: server.project_id: `p q` is not allowed: 1 to 64 of A-Z a-z 0-9 _ - are allowed",
            "config.yaml:3: server.project_name: is empty",
        ],
    );
}

/// A required text that is there and empty is not called missing, whichever section it is in.
#[test]
fn an_empty_text_is_called_empty_and_a_missing_one_missing() {
    let auth = |key: &str| format!("dms:\n  auth: {{{key}}}\n");
    let server = |auth: &str| format!("server:\n  auth: {{{auth}}}\n");
    for (yaml, expected) in [
        (auth("access_key: '', secret_key: s"), "dms.auth.access_key: is empty"),
        (auth("secret_key: s"), "dms.auth.access_key: is required beside secret_key, and missing"),
        (auth("iam: {endpoint: '', user: u, password: p, domain: d}"), "dms.auth.iam.endpoint: is empty"),
        (auth("iam: {user: u, password: p, domain: d}"), "dms.auth.iam.endpoint: is required and missing"),
        (server("access_keys: [{access_key: '', secret_key: s}]"), "server.auth.access_keys[0].access_key: is empty"),
        (server("access_keys: [{secret_key: s}]"), "server.auth.access_keys[0].access_key: is required and missing"),
        (server("users: [{user: ' ', password: p}]"), "server.auth.users[0].user: is empty"),
        (server("users: [{password: p}]"), "server.auth.users[0].user: is required and missing"),
        ("server:\n  tls: {certificate: '', key: Cargo.toml}\n".to_owned(), "server.tls.certificate: is empty"),
        ("server:\n  tls: {key: Cargo.toml}\n".to_owned(), "server.tls.certificate: is required and missing"),
        ("server:\n  queues: [{name: ''}]\n".to_owned(), "server.queues[0].name: is empty"),
    ] {
        check(&yaml, &[&format!("config.yaml:2: {expected}")]);
    }
}

/// A secret that its file does not give is reported there, and not as a missing secret.
#[test]
fn a_secret_whose_file_cannot_be_read_is_reported_once() {
    check(
        "server:\n  listen: 127.0.0.1:1\n  admin: {listen: '10.0.0.1:1', token_file: /no, read_token: R, tls: {certificate: Cargo.toml, key: Cargo.toml}}\n  auth: {access_keys: [{access_key: AK, secret_key_file: /no}]}\n",
        &[
            "config.yaml:3: server.admin.token_file: `/no` cannot be read: No such file or directory (os error 2)",
            "config.yaml:4: server.auth.access_keys[0].secret_key_file: `/no` cannot be read: No such file or directory (os error 2)",
        ],
    );
}

#[test]
fn rights_contain_valid_queue_names() {
    check(
        "server:\n  auth:\n    access_keys:\n      - {access_key: AK, secret_key: SK, rights: {send: ['orders*', '*', 'a b', '']}}\n    users:\n      - {user: u, password: p, rights: {}}\n      - {user: v, password: p, rights: {sned: ['*']}}\n",
        &[
            "config.yaml:4: server.auth.access_keys[0].rights.send[2]: `a b` is not allowed: write a queue's name, with * for any part of it",
            "config.yaml:4: server.auth.access_keys[0].rights.send[3]: `` is not allowed: write a queue's name, with * for any part of it",
            "config.yaml:6: server.auth.users[0].rights: allows nothing: name queues in send, consume or manage, or leave it out for all rights",
            "config.yaml:7: server.auth.users[1].rights.sned: unknown key; did you mean `send`?",
        ],
    );
}

#[test]
fn hosts_are_names_or_addresses_without_ports() {
    check(
        "server: {queues: [{name: q}], hosts: [dms.internal, 'dms:9400']}\nadmin: {hosts: ['http://dms']}\npublishers: [{queue: q, hosts: ['[fd00::1]', '*']}]\n",
        &[
            "config.yaml:1: server.hosts[1]: `dms:9400` is not allowed: write a host name or an address, without a port",
            "config.yaml:2: admin.hosts[0]: `http://dms` is not allowed: write a host name or an address, without a port",
            "config.yaml:3: publishers[0].hosts[1]: `*` is not allowed: write a host name or an address, without a port",
        ],
    );
}

#[test]
fn a_bad_variable_is_named() {
    let variables = [
        ("DMS_WORKER_WORKERS__0__CONCURRENCY", "0"),
        ("DMS_WORKER_WORKERS__0__QEUE", "x"),
        ("DMS_WORKER_WORKERS__7__QUEUE", "x"),
    ];
    assert_eq!(
        mistakes(&worker(""), &variables),
        [
            "DMS_WORKER_WORKERS__7__QUEUE: workers[7].queue: `7` is no place in a list of 1: use 0 to 1",
            "DMS_WORKER_WORKERS__0__QEUE: workers[0].qeue: unknown key; did you mean `queue`?",
            "DMS_WORKER_WORKERS__0__CONCURRENCY: workers[0].concurrency: `0` is not allowed: 1 to 100000 are allowed",
        ]
    );
}

#[test]
fn a_text_that_is_not_yaml_is_refused_with_its_line() {
    let found = mistakes("dms:\n  endpoint: [\n", &[]);
    assert!(found.len() == 1 && found[0].starts_with("config.yaml:"), "{found:?}");
    let found = mistakes("log: {}\ndms: {}\nlog: {}\n", &[]);
    assert!(found[0].contains("duplicate entry with key \"log\""), "{found:?}");
    check("- a\n", &["config.yaml: has no `key: value` lines at its top"]);
}

#[test]
fn a_variable_that_is_not_set_is_named_with_its_line() {
    check(
        "log:\n  filter: ${FILTER}\n",
        &["config.yaml:2: log.filter: environment variable FILTER is not set: set it, or write ${FILTER:-default}"],
    );
}

#[test]
fn missing_keys_of_a_worker_are_named() {
    check(
        "workers:\n  - {}\n",
        &[
            "config.yaml:2: workers[0].queue: is required and missing",
            "config.yaml:2: workers[0].group: is required and missing",
            "config.yaml:2: workers[0].handler: is required and missing: set one of `http: {url: ...}`, `command: [...]` and `log: {}`",
        ],
    );
}

#[test]
fn settings_that_exclude_each_other_are_refused() {
    check(
        &worker("source: dead_letters\n    tags: [a]"),
        &["config.yaml:8: workers[0].tags: dead letters have no labels: leave it out"],
    );
    check(
        &worker("").replace("{log: {}}", "{log: {}, command: [x]}"),
        &["config.yaml:6: workers[0].handler: has command and log: keep one"],
    );
    check(
        &worker("on_failure: {republish: {}}").replace("name: q", "name: q, mode: FIFO"),
        &[
            "config.yaml:7: workers[0].on_failure.republish: queue `q` is FIFO and sending again would break its order: use redeliver",
        ],
    );
    check(
        &worker("on_reject: {park: q}"),
        &["config.yaml:7: workers[0].on_reject.park: `q` is the queue that is consumed: parking there would never end"],
    );
    check(
        &(worker("tags: [a]") + "  - {queue: q, group: g, name: other, handler: {log: {}}}\n"),
        &[
            "config.yaml:8: workers[1].tags: differ from those of worker `q/g`: a group keeps the labels of its first consume permanently",
        ],
    );
    check(
        &(worker("") + "  - {queue: q, group: g, handler: {log: {}}}\n"),
        &["config.yaml:8: workers[1].name: there is another worker `q/g`: give each a different name"],
    );
}

#[test]
fn credentials_are_of_exactly_one_kind() {
    let auth = |auth: &str| format!("dms:\n  endpoint: http://127.0.0.1:1\n  auth: {auth}\n");
    check(
        &auth("{access_key: AK, secret_key: SK, token: T}"),
        &["config.yaml:3: dms.auth: has several kinds of credentials: keep one of access_key, token and iam"],
    );
    check(
        &auth("{access_key: AK}"),
        &["config.yaml:3: dms.auth.secret_key: is missing: set secret_key or secret_key_file"],
    );
    check(
        &auth("{access_key: AK, secret_key_file: /does/not/exist}"),
        &[
            "config.yaml:3: dms.auth.secret_key_file: `/does/not/exist` cannot be read: No such file or directory (os error 2)",
        ],
    );
}

#[test]
fn a_secret_is_not_shown_in_a_message() {
    let found = mistakes("dms:\n  endpoint: http://127.0.0.1:1\n  auth: {access_key: AK, secret_key: 123456}\n", &[]);
    assert_eq!(found[0], "config.yaml:3: dms.auth.secret_key: *** is a number, a text is needed: put it in quotes");
    assert!(!found.concat().contains("123456"));
}

#[test]
fn listeners_without_credentials_are_refused_outside_of_loopback() {
    let found =
        mistakes("server: {listen: '0.0.0.0:9400', admin: '0.0.0.0:9401'}\nadmin: {listen: '0.0.0.0:9402'}\n", &[]);
    assert_eq!(
        found,
        [
            "config.yaml:1: server.listen: `0.0.0.0:9400` can be reached from outside and server.auth is not set: set it, or listen on 127.0.0.1",
            "config.yaml:1: server.admin: `0.0.0.0:9401` can be reached from outside and server.admin_token and server.admin_tls are not set: set them, or listen on 127.0.0.1",
            "config.yaml:2: admin.listen: `0.0.0.0:9402` can be reached from outside and admin.token is not set: set it, or listen on 127.0.0.1",
        ]
    );
}

#[test]
fn an_admin_address_outside_of_loopback_needs_a_token_and_a_certificate() {
    let found = mistakes("server: {admin: '[::]:9401', admin_token: T}\n", &[]);
    let missing = "server.admin_tls is not set: set it, or listen on 127.0.0.1";
    assert_eq!(found, [format!("config.yaml:1: server.admin: `[::]:9401` can be reached from outside and {missing}")]);
    let found =
        mistakes("server: {admin: '10.0.0.1:9401', admin_tls: {certificate: Cargo.toml, key: Cargo.toml}}\n", &[]);
    let missing = "server.admin_token is not set: set it, or listen on 127.0.0.1";
    assert_eq!(
        found,
        [format!("config.yaml:1: server.admin: `10.0.0.1:9401` can be reached from outside and {missing}")]
    );
    let found = mistakes("server: {admin: '127.0.0.1:9401', admin_token: ''}\n", &[]);
    assert_eq!(found, ["config.yaml:1: server.admin_token: is empty: set it, or leave it out"]);
    let found = mistakes("server: {admin_token: T, admin_token_file: Cargo.toml}\n", &[]);
    assert_eq!(found, ["config.yaml:1: server.admin_token_file: `admin_token` is set too: keep one of the two"]);
}

#[test]
fn the_address_of_mqs_follows_the_rules_of_the_api() {
    let found = mistakes("server: {mqs: {listen: '10.0.0.1:9292'}}\n", &[]);
    let message = "can be reached from outside and server.auth is not set: set it, or listen on 127.0.0.1";
    assert_eq!(found, [format!("config.yaml:1: server.mqs.listen: `10.0.0.1:9292` {message}")]);
    let found = mistakes("server: {listen: '127.0.0.1:9292', mqs: {}}\n", &[]);
    let message = "`127.0.0.1:9292` is the address of server.listen too: give each its own";
    assert_eq!(found, [format!("config.yaml:1: server.mqs.listen: {message}")]);
    let found = mistakes("server: {mqs: {auto_creat: true}}\n", &[]);
    assert!(found.len() == 1 && found[0].contains("auto_create"), "{found:?}");
}

#[test]
fn missing_queues_and_groups_of_the_embedded_server_are_named() {
    check(
        &worker("").replace("name: q", "name: other"),
        &["config.yaml:4: workers[0].queue: the embedded server has no queue `q`: add it to server.queues"],
    );
    check(
        &worker("").replace("[g]", "[]"),
        &["config.yaml:5: workers[0].group: queue `q` has no group `g`: add it to its groups in server.queues"],
    );
}

#[test]
fn limits_of_the_service_hold_for_the_queues_of_the_server() {
    check(
        "server:\n  queues:\n    - {name: a b, max_consume_count: 101, groups: [g, g]}\n    - {name: k, mode: KAFKA_HA, max_consume_count: 3}\n",
        &[
            "config.yaml:3: server.queues[0].name: `a b` is not allowed: 1 to 64 of A-Z a-z 0-9 _ - are allowed",
            "config.yaml:3: server.queues[0].max_consume_count: `101` is not allowed: 1 to 100 are allowed",
            "config.yaml:3: server.queues[0].groups[1]: there is another group `g`",
            "config.yaml:4: server.queues[1].max_consume_count: a KAFKA_HA queue has no dead letters: leave it out",
        ],
    );
}

#[test]
fn limits_leave_room_for_the_largest_request_and_batch() {
    check(
        "server:\n  limits: {connections: 0, request_bytes: 1000, polls_per_group: 0, leased_bytes: 1000}\n",
        &[
            "config.yaml:2: server.limits.connections: `0` is not allowed: 1 or more is needed",
            "config.yaml:2: server.limits.polls_per_group: `0` is not allowed: 1 or more is needed",
            "config.yaml:2: server.limits.request_bytes: `1000` is not allowed: 1048576 or more are needed",
            "config.yaml:2: server.limits.leased_bytes: `1000` is not allowed: 524288 or more are needed",
        ],
    );
    check(
        &worker("max_in_flight_bytes: 9\n    unique_attribute: ''"),
        &[
            "config.yaml:7: workers[0].max_in_flight_bytes: `9` is not allowed: 524288 or more are needed, because a poll may return this many",
            "config.yaml:8: workers[0].unique_attribute: needs the name of an attribute: set it, or leave it out",
        ],
    );
}

#[test]
fn values_of_the_wrong_shape_are_named_once() {
    check("workers: 5\n", &["config.yaml:1: workers: `5` is not allowed: a list is needed"]);
    check("dms: {auth: 7}\n", &["config.yaml:1: dms.auth: `7` is not allowed: a map of `key: value` is needed"]);
    check(
        "server: {listen: 9400}\n",
        &["config.yaml:1: server.listen: `9400` is not allowed: an address like 127.0.0.1:9400 is needed"],
    );
    check(
        "log: {format: 3}\n",
        &["config.yaml:1: log.format: `3` is not allowed: one of the words of config.yaml is needed"],
    );
    check(
        &worker("ordering: {key_attribute: [1]}"),
        &["config.yaml:7: workers[0].ordering.key_attribute: a list is not allowed: a text is needed"],
    );
    check(
        &worker("on_failure: {republish: {then: {park: 5}}}"),
        &[
            "config.yaml:7: workers[0].on_failure.republish.then.park: `5` is a number, a text is needed: put it in quotes",
        ],
    );
    check("dms: !foo {project_id: x}\n", &["config.yaml:1: dms: the tag !foo means nothing here: leave it out"]);
}

#[test]
fn a_choice_says_whether_it_takes_a_value() {
    let worker = |choice: &str| format!("workers: [{{queue: q, group: g, handler: {{log: {{}}}}, {choice}}}]\n");
    let said = |choice: &str| mistakes(&worker(choice), &[]).remove(0);
    assert!(
        said("on_reject: park").ends_with("`park` needs a value: write {park: ...}"),
        "{}",
        said("on_reject: park")
    );
    let then = "on_failure: {republish: {max_attempts: 3, then: park}}";
    assert!(said(then).ends_with("`park` needs a value: write {park: ...}"), "{}", said(then));
    assert!(said("on_reject: {discard: x}").ends_with("`discard` takes no value: write it alone"));
}

#[test]
fn mistakes_in_the_section_of_an_admin_address_are_named() {
    check(
        "server: {admin: 9401x}\n",
        &["config.yaml:1: server.admin: `9401x` is not allowed: an address like 127.0.0.1:9400 is needed"],
    );
    check(
        "server: {admin: {listn: '127.0.0.1:1'}}\n",
        &["config.yaml:1: server.admin.listn: unknown key; did you mean `listen`?"],
    );
    check(
        "server: {admin: {read_token: R}}\nadmin: {read_token: R}\n",
        &[
            "config.yaml:1: server.admin.read_token: is set and server.admin.token is not, so everybody may read: set both",
            "config.yaml:2: admin.read_token: is set and admin.token is not, so everybody may read: set both",
        ],
    );
    check(
        "server: {admin: {listen: '127.0.0.1:1', token: T, base_path: dms, trace_url: 'jaeger/{trace_id}'}, admin_token: T}\n",
        &[
            "config.yaml:1: server.admin.token: `server.admin_token` is set too: keep one of the two",
            "config.yaml:1: server.admin.base_path: `dms` is not allowed: write a path such as /dms",
            "config.yaml:1: server.admin.trace_url: `jaeger/{trace_id}` is not allowed: write a URL such as https://jaeger.example/trace/{trace_id}",
        ],
    );
    check(
        "admin: {dashboard: perhaps}\n",
        &["config.yaml:1: admin.dashboard: `perhaps` is not allowed: true, false or {actions: true} is needed"],
    );
}
