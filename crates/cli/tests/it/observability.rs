//! The pages of `docs` and for contributors match the code: events, metrics, reasons, tests and paths.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
};

use dms_worker::{
    queue::NewQueue,
    testing::TestServer,
    worker::{Delivery, HandlerError, MessageAck, Redelivery, WorkerMetrics, handler_fn},
};

fn file(path: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").join(path)).unwrap()
}

/// A field of this name would be a second `message` in the JSON log, beside the text of the event.
#[test]
fn no_log_line_has_a_field_that_is_called_message() {
    let mut folders = vec!["src".to_owned(), "crates".to_owned()];
    let mut seen = 0;
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").join(&folder)).unwrap() {
            let path = format!("{folder}/{}", entry.unwrap().file_name().display());
            if Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").join(&path).is_dir() {
                folders.push(path);
            } else if path.ends_with(".rs") && path.contains("src/") {
                seen += 1;
                let text = file(&path);
                let field = text.lines().find(|line| {
                    let line = line.trim_start().trim_start_matches(['%', '?']);
                    line.starts_with("message = ") && !line.contains('"') && line.ends_with(',')
                });
                assert_eq!(field, None, "{path}");
            }
        }
    }
    assert!(seen > 100);
}

/// The sources of all packages.
fn sources() -> Vec<(String, String)> {
    let mut folders = vec!["src".to_owned(), "crates".to_owned()];
    let mut sources = Vec::new();
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").join(&folder)).unwrap() {
            let entry = entry.unwrap();
            let path = format!("{folder}/{}", entry.file_name().display());
            if entry.file_type().unwrap().is_dir() {
                folders.push(path);
            } else if path.ends_with(".rs") && path.contains("src/") {
                let text = file(&path);
                sources.push((path, text));
            }
        }
    }
    sources
}

/// Log lines are for people: a value is shown by its `Display`, not by its `Debug`.
#[test]
fn no_log_line_shows_debug_output() {
    let sources = sources();
    let mut seen = 0;
    for (path, text) in &sources {
        for level in ["error", "warn", "info", "debug", "trace"] {
            for (at, call) in text.match_indices(&format!("tracing::{level}!(")) {
                seen += 1;
                // Up to the end of the call, as rustfmt ends it.
                let rest = &text[at + call.len()..];
                let end = rest.find(");").or(rest.find("),")).or(rest.find(")\n")).unwrap_or(rest.len());
                let fields = &rest[..end];
                let shows =
                    [" ?", "(?", "\n?", ":?}"].iter().any(|debug| fields.contains(debug)) || fields.starts_with('?');
                assert!(!shows, "{path}: {fields}");
            }
        }
    }
    assert!(sources.len() > 100 && seen > 100, "{} {seen}", sources.len());
}

/// The rows of the tables of a section, without their heads: the cells of each, without backticks.
fn rows(path: &str, section: &str) -> Vec<Vec<String>> {
    let text = file(path);
    let begin = text.find(&format!("\n## {section}\n")).unwrap_or_else(|| panic!("no section {section}"));
    let section = &text[begin + 4..];
    let section = &section[..section.find("\n## ").unwrap_or(section.len())];
    let lines: Vec<&str> = section.lines().collect();
    let mut rows = Vec::new();
    for (at, line) in lines.iter().enumerate() {
        let is_head = lines.get(at + 1).is_some_and(|next| next.starts_with("|---"));
        if line.starts_with('|') && !line.starts_with("|---") && !is_head {
            let cells = line.trim_matches('|').split('|');
            rows.push(cells.map(|cell| cell.trim().replace('`', "")).collect());
        }
    }
    rows
}

/// The variants of an enumeration, as its source has them.
fn variants(path: &str, name: &str) -> BTreeSet<String> {
    let text = file(path);
    let begin = text.find(&format!("pub enum {name}")).unwrap();
    let body = &text[begin..begin + text[begin..].find("\n}").unwrap()];
    let variant = |line: &str| {
        let line = line.strip_prefix("    ")?;
        let name: String = line.chars().take_while(char::is_ascii_alphanumeric).collect();
        line.starts_with(|c: char| c.is_ascii_uppercase()).then_some(name)
    };
    body.lines().filter_map(variant).collect()
}

#[test]
fn every_event_is_documented_and_none_is_stale() {
    let events = rows("docs/observability.md", "Events").into_iter().filter(|row| row.len() == 4);
    let documented: BTreeSet<_> = events.map(|row| row[0].clone()).collect();
    assert_eq!(documented, variants("src/worker/observe/event.rs", "Event"));
}

#[test]
fn every_reason_is_documented_in_its_own_words() {
    let rows = rows("docs/observability.md", "Why a message was redelivered");
    let documented: BTreeMap<_, _> = rows.into_iter().map(|row| (row[0].clone(), row[1].clone())).collect();
    let known = Redelivery::ALL.iter().map(|reason| (reason.name().to_owned(), reason.to_string())).collect();
    assert_eq!(documented, known);
}

/// The metrics of an exposition by name, with their kinds.
fn exposed(text: &str) -> BTreeMap<String, String> {
    let kinds = text.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split_once(' '));
    let sample = |name: &str, kind: &str| if kind == "counter" { format!("{name}_total") } else { name.to_owned() };
    kinds.map(|(name, kind)| (sample(name, kind), kind.to_owned())).collect()
}

#[tokio::test(start_paused = true)]
async fn every_metric_of_a_worker_is_documented_and_none_is_stale() {
    let server = TestServer::start().await;
    let group = server.group(NewQueue::new("orders").dead_letters_after(2), "billing").await;
    group.send(["fine", "bad"]).await;
    let metrics = WorkerMetrics::new();
    let worker = group.worker(handler_fn(|delivery: Delivery| async move {
        if delivery.json::<String>()? == "bad" { Err(HandlerError::retry("no")) } else { Ok(()) }
    }));
    let worker = worker.observer(metrics.observer("w", "orders", "billing")).build().unwrap();
    metrics.watch(worker.handle());
    let handle = worker.handle();
    let watch = async {
        group.until_idle(std::time::Duration::from_secs(60)).await;
        handle.stop();
    };
    tokio::join!(worker.run(std::future::pending()), watch).0.unwrap();
    let exposed = exposed(&metrics.encode());
    let rows = rows("docs/operations.md", "Metrics");
    // Those of the configuration are the sidecar's.
    let of_workers =
        rows.iter().filter(|row| row[0].starts_with("dms_worker_") && !row[0].starts_with("dms_worker_config_reload_"));
    let documented: BTreeMap<_, _> = of_workers.map(|row| (row[0].clone(), row[1].clone())).collect();
    assert_eq!(documented, exposed);
    let names = |row: &Vec<String>| row[3].split(", ").map(str::to_owned).collect::<Vec<_>>();
    let events = self::rows("docs/observability.md", "Events").into_iter().filter(|row| row.len() == 4);
    let caused: BTreeSet<_> = events.flat_map(|row| names(&row)).filter(|name| !name.is_empty()).collect();
    let counted: BTreeSet<_> = exposed.into_iter().filter(|(_, kind)| kind != "gauge").map(|(name, _)| name).collect();
    assert_eq!(caused, counted, "what the events make, and what there is");
}

#[test]
fn the_labels_of_acknowledged_messages_are_documented() {
    let rows = rows("docs/operations.md", "Metrics");
    let row = rows.iter().find(|row| row[0] == "dms_worker_message_acks_total").unwrap();
    let names: Vec<_> = MessageAck::ALL.iter().map(|result| result.name()).collect();
    assert_eq!(row[2], format!("result: {}", names.join(", ")));
}

/// "What happens when…" and "Faults that are survived": every statement names tests that are there.
#[test]
fn every_statement_names_its_test() {
    let mut named = 0;
    let faults = rows("docs/storage.md", "Faults that are survived");
    assert!(faults.len() > 10, "{}", faults.len());
    for row in rows("docs/what-happens-when.md", "What happens when…").into_iter().chain(faults) {
        for tests in row[2].split("; ") {
            let (path, names) = tests.split_once(' ').unwrap_or_else(|| panic!("{tests}"));
            let text = file(path);
            for name in names.split(", ") {
                let is_there = ["fn ", "def ", "class "].iter().any(|kind| text.contains(&format!("{kind}{name}(")));
                assert!(is_there, "{path} has no test {name}");
                named += 1;
            }
        }
    }
    assert!(named > 50, "{named}");
}

/// Words of a Markdown text that name files of this project and do not exist: in backticks or links by their whole path, in drawings
/// by the end of one.
fn missing_paths(text: &str, files: &BTreeSet<String>) -> Vec<String> {
    let is_there = |path: &str| {
        let path = path.trim_end_matches('/');
        files.contains(path) || files.iter().any(|file| file.starts_with(&format!("{path}/")))
    };
    let mut missing = Vec::new();
    let mut in_drawing = false;
    for line in text.lines() {
        if line.trim_start().starts_with("```") {
            in_drawing = !in_drawing && line.trim() == "```text";
        } else if in_drawing {
            let words = line.split(|c: char| !(c.is_ascii_alphanumeric() || "_./".contains(c)));
            let named = words.filter(|word| word.ends_with(".rs"));
            missing.extend(
                named.filter(|word| !files.iter().any(|file| file.ends_with(&format!("/{word}")))).map(str::to_owned),
            );
        } else {
            let in_backticks = line.split('`').skip(1).step_by(2);
            let is_path = |word: &&str| {
                let is_name = word.chars().all(|c| c.is_ascii_alphanumeric() || "_./-".contains(c));
                is_name
                    && !word.starts_with('/')
                    && (word.contains('/') || word.ends_with(".rs") || word.ends_with(".md"))
            };
            let links = line.split("](").skip(1).filter_map(|rest| rest.split([')', '#']).next());
            let named =
                in_backticks.filter(is_path).chain(links.filter(|link| !link.is_empty() && !link.contains(':')));
            missing.extend(named.filter(|path| !is_there(path)).map(str::to_owned));
        }
    }
    missing
}

/// All files below the root, without build results and hidden folders.
fn files_of_the_project() -> BTreeSet<String> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().unwrap();
    let mut folders = vec![root.clone()];
    let mut files = BTreeSet::new();
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap().map(Result::unwrap) {
            let name = entry.file_name().into_string().unwrap();
            if entry.file_type().unwrap().is_dir() {
                if !["target", ".git"].contains(&name.as_str()) {
                    folders.push(entry.path());
                }
            } else {
                files.insert(entry.path().strip_prefix(&root).unwrap().to_str().unwrap().to_owned());
            }
        }
    }
    files
}

#[test]
fn every_path_in_the_pages_for_contributors_exists() {
    let files = files_of_the_project();
    let wrong = "`src/gone.rs`, `src/lib.rs`, `crates/server/src`, [page](docs/gone.md), `/readyz`\n```text\npipeline/gone.rs lib.rs\n```\n";
    assert_eq!(missing_paths(wrong, &files), ["src/gone.rs", "docs/gone.md", "pipeline/gone.rs"]);
    for page in ["ARCHITECTURE.md", "CONTRIBUTING.md", "SECURITY.md"] {
        assert_eq!(missing_paths(&file(page), &files), [""; 0], "{page}");
    }
}

/// The crates whose types the public API of the libraries names are those that CONTRIBUTING.md permits.
#[test]
fn only_the_permitted_foreign_crates_are_in_the_public_api() {
    let text = file("CONTRIBUTING.md");
    let rule = text.split_once("Signatures of the public API name types of these crates").unwrap().1;
    let rule = rule.split_once("A user has most").unwrap().0;
    let mut permitted: BTreeSet<_> = rule.split('`').skip(1).step_by(2).map(str::to_owned).collect();
    permitted.extend(["core", "alloc", "std", "crate"].map(str::to_owned));
    let mut named = BTreeSet::new();
    for list in ["dms-protocol", "dms-server", "dms-worker"] {
        let text = file(&format!("api/{list}.txt"));
        let is_path = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == ':';
        for path in text.split(|c| !is_path(c)).filter(|path| path.contains("::") && !path.starts_with(':')) {
            let root = path.split("::").next().unwrap();
            if root == "tokio" {
                assert_eq!(path, "tokio::time::instant::Instant", "{list}");
            }
            // A path after `dyn` or a lifetime may begin with a type of this project.
            if root.starts_with(|c: char| c.is_ascii_lowercase()) && !root.starts_with("dms_") {
                named.insert(root.to_owned());
            }
        }
    }
    assert!(named.contains("bytes") && named.contains("http"), "{named:?}");
    let others: Vec<_> = named.difference(&permitted).collect();
    assert!(others.is_empty(), "these crates are in api/*.txt and not in CONTRIBUTING.md: {others:?}");
}
