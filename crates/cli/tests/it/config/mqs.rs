//! `dms.dialect: mqs`: what ROMA Connect MQS cannot do is refused, with the alternative. Every key is either in the table of what
//! is refused, or known to work.

use std::collections::BTreeSet;

use super::{mistakes, read};

const DMS: &str = "dms: {endpoint: 'https://mqs.test:9292', dialect: mqs, auth: {access_key: u, secret_key: p}}\n";

/// Keys of a worker that cannot work: how one sets them, and what the mistake says, with the alternative.
const REFUSED: &[(&str, &str, &str)] = &[
    ("source", "source: dead_letters", "let on_reject park messages in a topic, and consume that"),
    ("poll_wait", "poll_wait: 31s", "1s to 30s"),
    ("ack_wait", "ack_wait: 301s", "1s to 300s"),
    ("ordering", "ordering: {key_attribute: customer}", "with by_pointer or key_pointer"),
    ("tags", "tags: [a]", "filter in the handler"),
    ("on_failure", "on_failure: {republish: {}}", "use redeliver"),
    ("max_attempts", "max_attempts: 3", "let on_reject park or discard it"),
    ("deduplicate", "deduplicate: {key: order_id}", "use a pointer into the body, such as /order/id"),
    ("unique_attribute", "unique_attribute: id", "use unique_pointer"),
];

/// Keys of a worker that work, in the form that needs thought.
const WORKS: &[(&str, &str)] = &[
    ("name", "name: w"),
    ("queue", ""),
    ("group", ""),
    ("handler", ""),
    ("max_messages", "max_messages: 10"),
    ("poll_wait", "poll_wait: 30s"),
    ("ack_wait", "ack_wait: 1s"),
    ("ack_wait", "ack_wait: auto"),
    ("concurrency", "concurrency: 7"),
    ("max_in_flight_bytes", "max_in_flight_bytes: 10485760"),
    ("weight", "weight: 2"),
    ("pollers", "pollers: 2"),
    ("ordering", "ordering: batch"),
    ("ordering", "ordering: {key_pointer: /customer/id}"),
    // Has no effect without labels, with any service.
    ("tag_type", "tag_type: and"),
    ("on_failure", "on_failure: redeliver"),
    ("on_reject", "on_reject: {park: parked}"),
    ("on_reject", "on_reject: discard"),
    ("max_attempts", "max_attempts: 3, on_reject: {park: parked}"),
    ("retry", "retry: {max_attempts: 2}"),
    ("deduplicate", "deduplicate: {key: /order/id}"),
    ("rate_limit", "rate_limit: 10/s"),
    ("remember_finished", "remember_finished: false"),
    ("unique_pointer", "unique_pointer: /order/id"),
];

fn worker(setting: &str) -> String {
    let comma = if setting.is_empty() { "" } else { ", " };
    format!("{DMS}workers:\n- {{queue: t, group: g, handler: {{log: {{}}}}{comma}{setting}}}\n")
}

#[test]
fn every_key_of_a_worker_works_or_is_refused_with_the_alternative() {
    let schema = dms_worker_cli::config::schema();
    let keys = schema["$defs"]["Worker"]["properties"].as_object().unwrap();
    let known: BTreeSet<_> = REFUSED.iter().map(|(key, ..)| *key).chain(WORKS.iter().map(|(key, _)| *key)).collect();
    assert_eq!(keys.keys().map(String::as_str).collect::<BTreeSet<_>>(), known, "a new key needs a line here");
    for (key, setting, alternative) in REFUSED {
        let found = mistakes(&worker(setting), &[]);
        assert!(
            found.len() == 1 && found[0].contains(&format!("workers[0].{key}")) && found[0].contains(alternative),
            "{setting}: {found:?}"
        );
    }
    for (_, setting) in WORKS {
        assert!(read(&worker(setting), &[]).is_ok(), "{setting}: {:?}", mistakes(&worker(setting), &[]));
    }
}

#[test]
fn settings_of_the_service_that_mqs_does_not_have_are_refused() {
    let outbox = "outboxes: [{postgres: {url: 'host=db'}}]\n";
    for (yaml, expected) in [
        ("dms: {dialect: mqs}\n".to_owned(), "needs the address of a service in dms.endpoint"),
        ("dms: {endpoint: 'http://m:1', dialect: mqs, api_version: v1.0}\n".to_owned(), "has one version: leave it out"),
        ("dms: {endpoint: 'http://m:1', dialect: mqs, auth: {token: t}}\n".to_owned(), "set its SASL user as access_key"),
        (
            "dms: {endpoint: 'http://m:1', dialect: mqs, auth: {iam: {endpoint: 'https://i', user: u, password: p, domain: d, project: p}}}\n"
                .to_owned(),
            "set its SASL user as access_key",
        ),
        ("dms: {endpoint: 'http://m:1', content: {send: text}}\n".to_owned(), "set dms.dialect to mqs"),
        (format!("{DMS}{outbox}"), "use the DMS API"),
    ] {
        let found = mistakes(&yaml, &[]);
        assert!(found.iter().any(|mistake| mistake.contains(expected)), "{yaml}: {found:?}");
    }
    for content in [
        "{send: json, receive: auto}",
        "{send: text, receive: text}",
        "{send: base64, receive: base64}",
        "{receive: json}",
    ] {
        let yaml = DMS.replace("dialect: mqs,", &format!("dialect: mqs, content: {content},"));
        assert!(read(&yaml, &[]).is_ok(), "{content}");
    }
    assert!(read(&format!("{DMS}publishers: [{{queue: t, queues: [u], ordered: true}}]\n"), &[]).is_ok());
}

/// The keys of the service and of publishers. Those that cannot work are refused above.
#[test]
fn every_key_of_the_service_and_of_publishers_is_known_here() {
    let schema = dms_worker_cli::config::schema();
    for (section, works, refused) in [
        (
            "Dms",
            // `api_version: v1.0` is refused, and the client warns about a `project_id`.
            [
                "endpoint",
                "dialect",
                "content",
                "project_id",
                "auth",
                "ca_file",
                "insecure_skip_verify",
                "connect_timeout",
            ]
            .as_slice(),
            ["api_version"].as_slice(),
        ),
        (
            "Auth",
            &["access_key", "secret_key", "secret_key_file"],
            &["token", "token_file", "security_token", "security_token_file", "iam"],
        ),
        (
            "Publisher",
            &["listen", "hosts", "tls", "queue", "queues", "ordered", "max_pending", "linger", "token", "token_file"],
            &[],
        ),
    ] {
        let keys = schema["$defs"][section]["properties"].as_object().unwrap();
        let known: BTreeSet<_> = works.iter().chain(refused).copied().collect();
        assert_eq!(keys.keys().map(String::as_str).collect::<BTreeSet<_>>(), known, "a new key needs a line here");
    }
    for key in ["security_token: t", "security_token_file: /x"] {
        let yaml = DMS.replace("secret_key: p", &format!("secret_key: p, {key}"));
        let found = mistakes(&yaml, &[]);
        assert!(found.iter().any(|mistake| mistake.contains("ROMA Connect MQS knows no tokens")), "{found:?}");
    }
}
