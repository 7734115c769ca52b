//! Codes of errors, metrics and addresses that the guide names are those of the program.

use std::collections::BTreeSet;

use super::{page, pages};
use crate::cli::dashboard::{assert_known, names};

#[test]
fn every_metric_of_the_guide_is_registered() {
    let mut seen = BTreeSet::new();
    for page in pages() {
        // A name that ends so stands for several; `dms_worker_cli` is a package.
        let named = names(&page.text).into_iter().filter(|name| !name.ends_with('_') && name != "dms_worker_cli");
        seen.extend(named.inspect(|name| assert_known(name)));
    }
    assert!(seen.len() > 40, "{seen:?}");
}

/// `docs/api.md` has the table of all codes, which a test of the server compares with the code.
#[test]
fn every_error_code_of_the_guide_is_in_the_table_of_codes() {
    let api = page("docs/api.md").text;
    let table = api.split_once("## Error codes").unwrap().1;
    let mut seen = 0;
    for page in pages().into_iter().filter(|page| page.path != "docs/api.md") {
        for start in ["DMS.1", "DMS.0", "APIGW.", "IAM."] {
            for (at, _) in page.text.match_indices(start) {
                let code: String =
                    page.text[at..].chars().take_while(|c| c.is_ascii_alphanumeric() || *c == '.').collect();
                let code = code.trim_end_matches('.');
                if code.ends_with(|c: char| c.is_ascii_digit()) {
                    assert!(table.contains(&format!("| {code} |")), "{}: {code}", page.path);
                    // `503 DMS.10250003`: with its status.
                    let before = page.text[..at].trim_end_matches('`');
                    let status = before.strip_suffix(' ').and_then(|before| before.get(before.len().checked_sub(3)?..));
                    if let Some(status) = status.filter(|status| status.chars().all(|c| c.is_ascii_digit())) {
                        assert!(table.contains(&format!("| {status} | {code} |")), "{}: {status} {code}", page.path);
                    }
                    seen += 1;
                }
            }
        }
    }
    assert!(seen > 10, "{seen}");
}

/// `$ADMIN/readyz` and `POST /pause`: what the guide asks of the admin addresses.
#[test]
fn every_admin_path_of_the_guide_is_documented() {
    let operations = page("docs/operations.md").text;
    let mut seen = BTreeSet::new();
    for page in pages() {
        let after = |start: &str| {
            page.text
                .split(start)
                .skip(1)
                .map(|rest| {
                    let path: String = rest.chars().take_while(|c| c.is_ascii_lowercase()).collect();
                    format!("/{path}")
                })
                .collect::<Vec<_>>()
        };
        let asked = ["$ADMIN/", "127.0.0.1:9401/", "127.0.0.1:9402/"].iter().flat_map(|start| after(start));
        for path in asked.filter(|path| path != "/" && path != "/ui") {
            let is_there = ["GET", "POST"].iter().any(|method| operations.contains(&format!("`{method} {path}")));
            assert!(is_there, "{}: {path}", page.path);
            seen.insert(path);
        }
    }
    assert!(seen.len() >= 4, "{seen:?}");
}

/// Somebody who is woken by an alert finds it in the runbook.
#[test]
fn every_alert_is_in_the_runbook() {
    let runbook = page("docs/runbook.md").text;
    let rules = page("deploy/prometheus/alerts.yaml").text;
    let names: BTreeSet<_> = rules.split("- alert: ").skip(1).map(|rest| rest.lines().next().unwrap().trim()).collect();
    assert!(names.len() > 15, "{names:?}");
    let alert = |text: &str| text.starts_with("Dms") && text.chars().all(|c| c.is_ascii_alphanumeric());
    let table = runbook.split_once("## An alert fired").unwrap().1;
    let listed: BTreeSet<_> = table.split('`').filter(|text| alert(text)).collect();
    assert_eq!(listed, names);
}

/// Figures that other pages repeat are those of `docs/performance.md`, which names the command that measures them.
#[test]
fn every_figure_is_that_of_the_measurements() {
    let measured = page("docs/performance.md").text;
    let figures = [
        ("README.md", "1.43 times the rate of Redis Streams", "| 1.43 x |"),
        ("README.md", "7.12 times the rate of RabbitMQ", "| 7.12 x |"),
        ("README.zh-CN.md", "Redis Streams 的 1.43 倍", "| 1.43 x |"),
        ("README.zh-CN.md", "RabbitMQ quorum queue 的 7.12 倍", "| 7.12 x |"),
        ("docs/choosing.md", "270,797 sends per second", "| dms-worker, on disk | 270,797 "),
        ("docs/capacity.md", "10.7 µs of CPU for a message", "| 10.7 us |"),
        (
            "docs/choosing.md",
            "94,962 messages per second while it delivered as many",
            "| dms-worker, on disk | 94,962 + 94,803 ",
        ),
        (
            "docs/capacity.md",
            "1.13 bytes for each byte",
            "| bytes written for each byte of a body: both at once | 1.13 |",
        ),
        (
            "docs/capacity.md",
            "37 MiB with 10 million waiting messages",
            "| 10 million waiting: the server's memory | 37 MiB |",
        ),
        ("docs/capacity.md", "an idle worker takes 19 MB", "| an idle worker: resident | 19 MB |"),
        (
            "docs/capacity.md",
            "a thousand workers in one process 90 MB",
            "| 1,000 idle workers in a process: resident | 90 MB |",
        ),
    ];
    for (path, figure, row) in figures {
        assert!(page(path).text.contains(figure), "{path} does not say {figure:?}: change this test with it");
        assert!(measured.contains(row), "docs/performance.md has other figures than {path}: {figure:?}");
    }
}
