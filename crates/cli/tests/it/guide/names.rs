//! Names in the guide are those of the code: items of the libraries, requests, headers, variables, exit codes, messages, and the files of the repository.

use std::{collections::BTreeSet, fs};

use super::{Page, page, pages, root};

/// The text of all files below a folder that end in `.rs`.
fn code(folder: &str) -> String {
    text_of(folder, &["rs"])
}

/// The text of all files below a folder with these endings.
fn text_of(folder: &str, endings: &[&str]) -> String {
    let mut open = vec![root().join(folder)];
    let mut text = String::new();
    while let Some(path) = open.pop() {
        if path.is_dir() {
            open.extend(fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
        } else if path.extension().is_some_and(|extension| endings.iter().any(|ending| extension == *ending)) {
            text += &fs::read_to_string(&path).unwrap();
        }
    }
    text
}

fn all_code() -> String {
    ["src", "crates/protocol/src", "crates/server/src", "crates/cli/src"].map(code).concat()
}

/// What a text has after each `start`, as long as `is_part` allows, with the start.
fn names<'a>(text: &'a str, start: &'a str, is_part: fn(char) -> bool) -> impl Iterator<Item = &'a str> {
    text.match_indices(start).filter_map(move |(at, _)| {
        let is_word = text[..at].chars().next_back().is_none_or(|c| !c.is_alphanumeric() && !"-_".contains(c));
        let tail = &text[at..];
        let length = tail.find(|c| !is_part(c)).unwrap_or(tail.len());
        is_word.then(|| &tail[..length])
    })
}

/// `Client::send`, `WorkerHandle::stop_now()`.
#[test]
fn every_item_of_the_libraries_that_the_guide_names_is_public() {
    let lists = ["protocol", "server", "worker"].map(|name| page(&format!("api/dms-{name}.txt")).text).concat();
    let mut seen = BTreeSet::new();
    for page in pages() {
        for text in page.inline() {
            let name: String = text.chars().take_while(|c| c.is_alphanumeric() || "_:".contains(*c)).collect();
            let Some((owner, item)) = name.split_once("::") else { continue };
            if owner.starts_with(|c: char| c.is_ascii_uppercase()) && !item.is_empty() {
                let is_listed = lists.match_indices(&format!("::{name}")).any(|(at, found)| {
                    lists[at + found.len()..].chars().next().is_none_or(|c| !c.is_alphanumeric() && c != '_')
                });
                assert!(is_listed, "{}: {name} is no public item", page.path);
                seen.insert(name);
            }
        }
    }
    assert!(seen.len() > 40, "{seen:?}");
}

/// A path as a list of parts, without parameters. A part in braces stands for any name.
fn parts(path: &str) -> Vec<String> {
    let path = path.split('?').next().unwrap().replace("{v}", "/{version}/{project}");
    path.split('/').map(|part| if part.starts_with('{') { "{}".to_owned() } else { part.to_owned() }).collect()
}

/// `GET /admin/queues`, `POST {v}/queues`.
#[test]
fn every_request_of_the_guide_is_one() {
    let openapi = page("docs/openapi.yaml").text;
    let mut known: BTreeSet<(String, Vec<String>)> = BTreeSet::new();
    let mut path = None;
    for line in openapi.split_once("\npaths:").unwrap().1.split("\ncomponents:").next().unwrap().lines() {
        match line.strip_prefix("  ").map(|line| (line.strip_prefix('/'), line.strip_prefix("  "))) {
            Some((Some(found), _)) => path = Some(format!("/{}", found.trim_end_matches(':'))),
            Some((_, Some(method))) if !method.starts_with(' ') => {
                let method = method.trim_end_matches(':').to_uppercase();
                known.insert((method, parts(path.as_deref().unwrap())));
            }
            _ => (),
        }
    }
    assert!(known.len() > 40, "{}", known.len());
    // Routes of the sidecar's admin address, as its sources register them.
    let routes = ["crates/cli/src/sidecar/admin", "crates/server/src"].map(code).concat();
    for (at, _) in routes.match_indices('"') {
        let text = routes[at + 1..].split('"').next().unwrap();
        if text.starts_with('/') && text.chars().all(|c| c.is_ascii_alphanumeric() || "/{}_-.".contains(c)) {
            known.extend(["GET", "POST"].map(|method| (method.to_owned(), parts(text))));
        }
    }
    // The publishers take any queue.
    known.extend(["/", "/QUEUE"].map(|path| ("POST".to_owned(), parts(path))));

    let mut seen = BTreeSet::new();
    for page in pages() {
        for text in page.inline() {
            let Some((method, path)) = text.split_once(' ') else { continue };
            if ["GET", "POST", "PUT", "DELETE", "PATCH"].contains(&method) && path.starts_with(['/', '{']) {
                assert!(known.contains(&(method.to_owned(), parts(path))), "{}: there is no request {text}", page.path);
                seen.insert(text);
            }
        }
    }
    assert!(seen.len() > 50, "{}", seen.len());
}

/// The label `operation` of metrics, which is also the name in fault plans.
#[test]
fn the_guide_lists_every_operation() {
    let code = page("crates/server/src/http/operation.rs").text;
    let row = |line: &'_ str| Some(line.trim().strip_prefix("(Operation::")?.split('"').nth(1)?.to_owned());
    let known: BTreeSet<String> = code.lines().filter_map(row).collect();
    let text = page("docs/operations.md").text;
    let list = text.split_once("The values of `operation` are").unwrap().1.split_once("as in").unwrap().0;
    let listed: BTreeSet<String> = list.split('`').skip(1).step_by(2).map(str::to_owned).collect();
    assert!(!known.is_empty());
    assert_eq!(listed, known);
}

/// `Dms-Message-Id`, `x-dms-extensions`, `dms-reason`: headers, and the attributes of the same kind.
#[test]
fn every_header_of_the_guide_is_in_the_code() {
    let code = all_code().to_lowercase();
    let mut seen = BTreeSet::new();
    for page in pages() {
        for text in page.inline() {
            for start in ["Dms-", "x-dms-", "dms-"] {
                let is_header = |name: &&str| text == **name || text.starts_with(&format!("{name}:"));
                let found = names(&text, start, |c| c.is_ascii_alphanumeric() || c == '-');
                // Packages, folders and units have names of this kind, too.
                let known = ["dms-worker", "dms-worker-cli", "dms-server", "dms-protocol", "dms-data"];
                for name in found.filter(is_header).filter(|name| !known.contains(name)) {
                    assert!(code.contains(&format!("\"{}\"", name.to_lowercase())), "{}: {name}", page.path);
                    seen.insert(name.to_owned());
                }
            }
        }
    }
    assert!(seen.len() > 20, "{seen:?}");
}

/// `DMS_WORKER_CONFIG`, `DMS_WORKER_DMS__ENDPOINT`.
#[test]
fn every_variable_of_the_guide_is_read() {
    let code = all_code() + &page("tests/sidecar/test_languages.py").text;
    let keys = page("config.yaml").text;
    let mut seen = BTreeSet::new();
    for page in pages() {
        for start in ["DMS_", "HUAWEICLOUD_SDK_"] {
            for name in names(&page.text, start, |c| c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_') {
                // `DMS_WORKER_DMS__…` stands for several. Kubernetes sets those of a service.
                if name.ends_with('_') || name.starts_with("DMS_WORKER_ADMIN_") || name.starts_with("DMS_ACCESS_KEY") {
                    continue;
                }
                let is_read = match name.strip_prefix("DMS_WORKER_").filter(|key| key.contains("__")) {
                    // Commands and keys are compared by another test; here the last part of the key has to be one.
                    Some(key) => {
                        let last = key.rsplit("__").next().unwrap().to_lowercase();
                        keys.contains(&format!("{last}:"))
                    }
                    None => code.contains(name),
                };
                assert!(is_read, "{}: nothing reads {name}", page.path);
                seen.insert(name.to_owned());
            }
        }
    }
    assert!(seen.len() > 8, "{seen:?}");
}

/// `exit code 78`: the table of docs/operations.md, which another test compares with the program, has it.
#[test]
fn every_exit_code_of_the_guide_is_in_the_table() {
    let operations = page("docs/operations.md").text;
    let table = operations.split_once("| code | meaning |").unwrap().1.split("\n\n").next().unwrap();
    let mut seen = 0;
    for page in pages() {
        let text = page.text.to_lowercase();
        for start in ["exit code ", "退出码 "] {
            for rest in text.split(start).skip(1) {
                let code: String = rest.chars().take_while(char::is_ascii_digit).collect();
                // Programs behind the sidecar have their own codes, in docs/sidecar.md.
                if !code.is_empty() && page.path != "docs/sidecar.md" {
                    let is_there = table.lines().any(|row| row.split('|').nth(1).unwrap_or_default().contains(&code));
                    assert!(is_there, "{}: exit code {code}", page.path);
                    seen += 1;
                }
            }
        }
    }
    assert!(seen >= 4, "{seen}");
}

/// `last_error`, `ack_wait`: names with an underscore are in the code, in its tests, or belong to another program.
#[test]
fn every_name_in_the_code_font_is_in_the_code() {
    let sources = ["src", "crates", "tests", "examples", "benches"].map(|folder| text_of(folder, &["rs", "py", "js"]));
    let files = ["config.yaml", "docs/openapi.yaml", ".ci/run", "deploy/systemd/dms-server.service"]
        .map(|path| page(path).text);
    let all = sources.concat() + &files.concat();
    let known: BTreeSet<&str> = all.split(|c: char| !c.is_ascii_alphanumeric() && c != '_').collect();
    let of_others = [
        "confirm_consumption_messages",
        "max_slot_wal_keep_size",
        "parentbased_traceidratio",
        "processing_error",
        "timeout_error",
    ];
    let mut seen = BTreeSet::new();
    for page in pages() {
        for text in page.inline() {
            let is_name =
                text.contains('_') && text.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_');
            // Another test has the metrics, whose names are put together. A name that ends so stands for several.
            if is_name && !text.starts_with("dms_") && !text.ends_with('_') && !of_others.contains(&text.as_str()) {
                assert!(known.contains(text.as_str()), "{}: nothing is called {text}", page.path);
                seen.insert(text);
            }
        }
    }
    assert!(seen.len() > 150, "{}", seen.len());
}

/// *the application cannot be reached*: an operator looks for what a log or an answer says.
#[test]
fn every_message_in_the_runbook_is_one_of_the_program() {
    let code = all_code().replace("\\\n", " ");
    let code = code.split_whitespace().collect::<Vec<_>>().join(" ");
    let runbook = page("docs/runbook.md").prose().replace("**", "");
    let messages: Vec<_> = runbook.lines().flat_map(|line| line.split('*').skip(1).step_by(2)).collect();
    assert!(messages.len() > 5, "{messages:?}");
    for message in messages {
        assert!(code.contains(message), "the program does not say {message:?}");
    }
}

/// The words of a page that are paths of this repository, in backticks and in commands: with the words that follow in the same command.
fn files(page: &Page) -> Vec<(String, Vec<String>)> {
    let tops =
        ["src/", "crates/", "tests/", "examples/", "deploy/", "docs/", "benches/", "fuzz/", "api/", ".ci/", ".github/"];
    let commands = page.blocks().into_iter().filter(|block| ["sh", "bash"].contains(&block.language.as_str()));
    let commands = commands.flat_map(|block| {
        block
            .text
            .replace("\\\n", " ")
            .lines()
            .map(|line| line.split(" #").next().unwrap().to_owned())
            .collect::<Vec<_>>()
    });
    let mut found = Vec::new();
    for text in commands.chain(page.inline()) {
        let words: Vec<_> = text.split([' ', '(', ')', '<', '>', '"', '`', ';']).map(str::to_owned).collect();
        for (place, word) in words.iter().enumerate() {
            let is_path = word.chars().all(|c| c.is_ascii_alphanumeric() || "_./-".contains(c));
            if is_path && tops.iter().any(|top| word.starts_with(top)) {
                found.push((word.clone(), words[place + 1..].to_vec()));
            }
        }
    }
    found
}

/// Every file exists, and a script knows the options that it is given.
#[test]
fn every_file_and_every_option_of_a_script_in_the_guide_exists() {
    // What commands of the guide make, or a user has.
    let made = [
        "deploy/compose/secret_key",
        "deploy/compose/admin_token",
        "examples/sidecar/spring/target/orders.jar",
        "src/main.rs",
    ];
    let others = ["CONTRIBUTING.md", "ARCHITECTURE.md", "SECURITY.md"].map(page);
    let (mut seen, mut options) = (BTreeSet::new(), 0);
    for page in pages().iter().chain(&others) {
        for (path, words) in files(page) {
            if made.contains(&path.as_str()) {
                continue;
            }
            assert!(root().join(&path).exists(), "{}: {path}", page.path);
            let is_script = path.ends_with(".py") || path.ends_with(".sh") || path.starts_with(".ci/");
            if is_script {
                let script = fs::read_to_string(root().join(&path)).unwrap();
                for option in words.iter().filter(|word| word.starts_with("--") && word.len() > 2) {
                    let option: String = option.chars().take_while(|c| c.is_ascii_lowercase() || *c == '-').collect();
                    assert!(script.contains(&option), "{}: {path} has no {option}", page.path);
                    options += 1;
                }
            }
            seen.insert(path);
        }
    }
    // The table of the folder `deploy` names its files without the folder.
    let deployment = page("deploy/README.md").text;
    let table = deployment.split_once("| file | contents |").unwrap().1.split_once("\n\n").unwrap().0;
    let listed = table.lines().filter_map(|row| row.split('|').nth(1));
    for path in listed.flat_map(|cell| cell.split('`').skip(1).step_by(2)) {
        assert!(root().join("deploy").join(path).exists(), "deploy/README.md: {path}");
    }
    assert!(seen.len() > 80 && options > 3, "{} {options}", seen.len());
}
