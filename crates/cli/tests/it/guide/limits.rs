//! Limits, defaults and required versions in the READMEs and the guide are those of the code.

use std::time::Duration;

use dms_protocol::{auth::signer::MAX_SKEW, limits};
use dms_worker_cli::config::{Config, Worker};
use serde_json::Value;

use super::page;

/// A number as prose writes it: 65,536.
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// What pages say, with the values of the code. A page that says it otherwise is wrong, or this test has to change with it.
#[test]
fn every_limit_and_default_of_the_guide_is_that_of_the_code() {
    let days = |duration: Duration| duration.as_secs() / 86_400;
    let (messages, kib, labels) = (limits::MAX_MESSAGES, limits::MAX_BYTES / 1024, limits::MAX_LABELS);
    let (delay, long, retention) =
        (days(limits::MAX_DELAY), days(limits::MAX_LONG_DELAY), limits::RETENTION_HOURS.end());
    let (least, lease) = (limits::ACK_WAIT_SECS.start(), limits::ACK_WAIT_SECS.end());
    let (poll, mqs_poll) = (limits::POLL_WAIT_SECS.end(), limits::MQS_POLL_WAIT_SECS.end());
    let window = (limits::MIN_DEDUPLICATION_WINDOW.as_secs(), days(limits::MAX_DEDUPLICATION_WINDOW));

    let worker = serde_json::to_value(Worker::default()).unwrap();
    let config = serde_json::to_value(Config::default()).unwrap();
    let number = |value: &Value| value.as_u64().unwrap_or_else(|| panic!("{value} is no number"));
    let text = |value: &Value| value.as_str().unwrap_or_else(|| panic!("{value} is no text")).to_owned();
    // `30s` of the configuration is `30 s` in prose.
    let spaced = |value: &Value| text(value).replace('s', " s");
    let mib = |value: &Value| number(value) / (1 << 20);
    let (concurrency, ack_wait, poll_wait) =
        (number(&worker["concurrency"]), spaced(&worker["ack_wait"]), spaced(&worker["poll_wait"]));
    let (server, quotas) = (&config["server"]["limits"], &config["server"]["quotas"]);
    let (queues, groups) = (number(&quotas["queues"]), number(&quotas["groups_per_queue"]));
    let (leased, requests) = (mib(&server["leased_bytes"]), mib(&server["request_bytes"]));
    let (connections, polls) = (grouped(number(&server["connections"])), grouped(number(&server["polls_per_group"])));

    let token = dms_server::ServerConfig::default().token_lifetime;
    let manifest = page("Cargo.toml").text;
    let rust = manifest.split_once("rust-version = \"").unwrap().1.split('"').next().unwrap();
    let spelled = ["no", "one", "two", "three", "four"][labels];
    let tens = if messages == 10 { "ten" } else { "another number of" };

    let said = [
        ("README.md", format!("Rust {rust} or newer")),
        ("README.zh-CN.md", format!("Rust {rust} 或更高版本")),
        ("docs/upgrading.md", format!("| Rust | {rust} or newer |")),
        (
            "README.md",
            format!(
                "{messages} messages and {kib} KiB per request, {labels} labels, {delay} days of delay ({long} on this project's server), {retention} hours of retention"
            ),
        ),
        ("README.md", format!("`ack_wait` (at most {lease} s)")),
        ("README.md", format!("messages for longer than {retention} hours")),
        ("README.md", format!("messages above {kib} KiB")),
        (
            "README.zh-CN.md",
            format!(
                "每个请求最多 {messages} 条消息、{kib} KiB，最多 {labels} 个标签，延时最长 {delay} 天（本项目的服务端 {long} 天），消息最多保留 {retention} 小时"
            ),
        ),
        ("README.zh-CN.md", format!("`ack_wait`（最长 {lease} 秒）")),
        ("README.zh-CN.md", format!("消息要保存 {retention} 小时以上")),
        ("README.zh-CN.md", format!("单条消息超过 {kib} KiB")),
        ("docs/choosing.md", format!("messages stay for at most [{retention} hours]")),
        ("docs/choosing.md", format!("messages above {kib} KiB")),
        ("docs/choosing.md", format!("a lease has at most {lease} s")),
        ("docs/concepts/queues.md", format!("up to {spelled} labels (*tags*)")),
        ("docs/concepts/queues.md", format!("up to {tens} messages and {kib} KiB")),
        ("docs/concepts/queues.md", format!("their retention ends: {retention} hours")),
        ("docs/concepts/lease.md", format!("up to {tens} messages")),
        (
            "docs/concepts/lease.md",
            format!("{least} to {lease} seconds, {} by default", ack_wait.trim_end_matches(" s")),
        ),
        ("docs/images/concept-lease.svg", format!("{least} s to {lease} s, {ack_wait} by default")),
        ("docs/rust/first-worker.md", format!("| `concurrency` | {concurrency} |")),
        ("docs/rust/first-worker.md", format!("| `ack_wait` | {ack_wait} |")),
        ("docs/rust/first-worker.md", format!("{least} to {lease} s")),
        ("docs/rust/first-worker.md", format!("| `poll_wait` | {poll_wait} |")),
        ("docs/faq.md", format!("{queues} queues of a project and {groups} groups of a queue by default")),
        ("docs/faq.md", format!("A handler has at most {lease} s")),
        ("docs/faq.md", format!("up to {delay} days, or {long} days on this project's server")),
        ("docs/migrating/sqs.md", format!("`poll_wait` (up to {poll} s)")),
        ("docs/migrating/sqs.md", format!("`ack_wait`, {least} s to {lease} s")),
        ("docs/migrating/sqs.md", format!("a window of {} s to {} days", window.0, window.1)),
        ("docs/migrating/sqs.md", format!("`delay_time`, {delay} days; {long} days on this project's server")),
        ("docs/migrating/sqs.md", format!("{kib} KiB for all bodies of a request, {tens} messages")),
        ("docs/migrating/sqs.md", format!("up to {retention} hours")),
        ("docs/migrating/rabbitmq.md", format!("of up to {lease} s")),
        ("docs/migrating/redis-streams.md", format!("up to {retention} hours")),
        ("docs/mqs.md", format!("`poll_wait` 1 s to {mqs_poll} s")),
        (
            "docs/schedules.md",
            format!(
                "{} schedules for each queue; a message of at most {} bytes",
                limits::MAX_SCHEDULES,
                grouped(limits::MAX_SCHEDULED_BYTES as u64)
            ),
        ),
        ("docs/capacity.md", format!("at most {leased} MiB of leased messages (`server.limits.leased_bytes`)")),
        ("docs/capacity.md", format!("{requests} MiB of request bodies (`server.limits.request_bytes`)")),
        ("docs/capacity.md", format!("{connections} by default (`server.limits.connections`), {polls} waiting calls")),
        ("docs/capacity.md", format!("({} MiB by default)", mib(&worker["max_in_flight_bytes"]))),
        ("docs/runbook.md", format!("more than {polls} waiting calls, or {leased} MiB of leased messages")),
        ("docs/runbook.md", format!("off by more than {} minutes", MAX_SKEW.as_secs() / 60)),
        ("docs/security.md", format!("{} minutes of validity", MAX_SKEW.as_secs() / 60)),
        ("docs/security.md", format!("a token of 256 random bits ({} hours)", token.as_secs() / 3600)),
    ];
    for (path, promised) in said {
        assert!(page(path).text.contains(&promised), "{path} does not say {promised:?}");
    }
}

/// Defaults adapt to the values that are set.
#[test]
fn the_adapted_timeout_of_the_guide_is_that_of_the_program() {
    let program = crate::cli::Program::new();
    let config = "dms: {endpoint: embedded}\nserver: {queues: [{name: q, groups: [g]}]}\nworkers: [{queue: q, group: g, ack_wait: 15s, handler: {http: {url: 'http://127.0.0.1:1/'}}}]\n";
    let shown = program.run(&["config", "show", "-c", &program.file("config.yaml", config)]).ok();
    let line = shown.lines().find_map(|line| line.strip_prefix("workers[0].handler.http.timeout")).unwrap();
    let promised = format!("`ack_wait: 15s` alone makes the handler's `timeout` {}", line.trim().replace('s', " s"));
    assert!(page("docs/configuration.md").text.contains(&promised), "docs/configuration.md does not say {promised:?}");
}

/// The answers of applications and programs are read in private code.
#[test]
fn every_answer_of_an_application_is_read_as_the_guide_says() {
    let http = page("crates/cli/src/sidecar/deliver/http/answer.rs").text;
    assert!(http.contains("408 | 425 | 429 | 500..=599 => true,"));
    let program = page("crates/cli/src/sidecar/deliver/program/command.rs").text;
    assert!(program.contains("EX_TEMPFAIL: i32 = 75;") && program.contains("EX_DATAERR: i32 = 65;"));
    for (path, said) in [
        ("README.md", "| 408, 425, 429, 5xx, or nothing in time | is redelivered"),
        ("README.zh-CN.md", "| 408、425、429、5xx，或超时未应答 | 重新投递"),
        ("docs/languages/programs.md", "0 done, 65 rejected, 75 and any other code failed"),
    ] {
        assert!(page(path).text.contains(said), "{path} does not say {said:?}");
    }
}
