//! Each hint is true: the commands, options and keys that texts of this program name exist.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
};

use serde_json::Value;

use super::Program;

/// Options of other programs.
const FOREIGN_OPTIONS: [&str; 1] = ["fast"];
/// Names that look like keys: files, and the type of an event.
const NO_KEYS: [&str; 8] = [
    "dms.db",
    "dms.db.old",
    "dms.lock",
    "dms.reserve",
    "dms.message",
    "server.yaml",
    // Settings of the library, which are named as in the configuration where it has them.
    "limits.total_body_bytes",
    "limits.connections",
];
/// The sections of a configuration.
const SECTIONS: [&str; 9] =
    ["dms", "server", "workers", "publishers", "outboxes", "admin", "shutdown", "log", "limits"];

/// The help texts of all commands, by their words.
pub(crate) fn helps(program: &Program) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    let mut open = vec![Vec::new()];
    while let Some(words) = open.pop() {
        let help = program.run(&[&words.iter().map(String::as_str).collect::<Vec<_>>()[..], &["--help"]].concat()).ok();
        let commands = help.split("\nCommands:\n").nth(1).unwrap_or_default();
        for line in commands.lines().take_while(|line| !line.is_empty()) {
            let name = line.strip_prefix("  ").filter(|line| !line.starts_with(' '));
            if let Some(name) = name.and_then(|line| line.split_whitespace().next()).filter(|name| *name != "help") {
                open.push(words.iter().cloned().chain([name.to_owned()]).collect());
            }
        }
        found.insert(words.join(" "), help);
    }
    found
}

fn sources() -> Vec<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let mut open: Vec<_> =
        ["src", "crates/cli/src", "crates/server/src", "crates/protocol/src"].map(|folder| root.join(folder)).into();
    let mut files = Vec::new();
    while let Some(path) = open.pop() {
        if path.is_dir() {
            open.extend(std::fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
        } else if path.extension().is_some_and(|extension| extension == "rs")
            && !path.components().any(|part| part.as_os_str() == "tests" || part.as_os_str() == "tests.rs")
        {
            files.push(path);
        }
    }
    files
}

/// The texts between quotes in Rust code, without comments and tests.
fn literals(code: &str) -> Vec<String> {
    let code = code.split("#[cfg(test)]\nmod tests").next().unwrap_or_default();
    let code = code.split("#[cfg(all(test").next().unwrap_or_default();
    let mut found = Vec::new();
    let mut rest = code;
    while let Some(at) = rest.find(['"', '/', '\'']) {
        let tail = &rest[at..];
        rest = match tail.as_bytes() {
            [b'/', b'/', ..] => tail.find('\n').map_or("", |end| &tail[end..]),
            // A character, and not a lifetime.
            [b'\'', b'\\', ..] => tail[2..].find('\'').map_or("", |end| &tail[end + 3..]),
            [b'\'', ..] if tail.chars().nth(2) == Some('\'') => {
                &tail[tail.char_indices().nth(3).map_or(tail.len(), |(at, _)| at)..]
            }
            [b'"', ..] => {
                let hashes = rest[..at].bytes().rev().take_while(|byte| *byte == b'#').count();
                let raw = rest[..at - hashes].ends_with('r');
                let end = match raw {
                    true => tail[1..].find(&format!("\"{}", "#".repeat(hashes))),
                    false => {
                        let mut escaped = false;
                        tail[1..].find(|c| {
                            let ends = c == '"' && !escaped;
                            escaped = c == '\\' && !escaped;
                            ends
                        })
                    }
                };
                let end = end.unwrap_or_else(|| panic!("a text does not end: {}", &tail[..tail.len().min(80)]));
                // A line that continues begins where its first word is.
                let lines: Vec<_> = tail[1..=end].split("\\\n").collect();
                let lines =
                    lines.iter().enumerate().map(|(place, line)| if place > 0 { line.trim_start() } else { *line });
                found.push(lines.collect());
                &tail[end + 2..]
            }
            _ => &tail[1..],
        };
    }
    found
}

/// The parts of a text that begin with `start` and go on with characters that `is_part` allows.
fn parts<'a>(text: &'a str, start: &'a str, is_part: fn(char) -> bool) -> impl Iterator<Item = &'a str> {
    text.match_indices(start).filter_map(move |(at, _)| {
        let before = text[..at].chars().next_back();
        let own = before.is_none_or(|c| !c.is_alphanumeric() && !"-_./".contains(c));
        let tail = &text[at + start.len()..];
        let length = tail.find(|c| !is_part(c)).unwrap_or(tail.len());
        own.then(|| &tail[..length])
    })
}

/// The commands that a text names, such as `queue list`, with what is behind them.
fn commands(text: &str) -> Vec<String> {
    let words = parts(text, "dms-worker ", |c| !"`\n'\"();:|>\\".contains(c));
    words
        .map(|words| words.trim().to_owned())
        .filter(|words| words.starts_with(|c: char| c.is_ascii_lowercase()))
        .collect()
}

fn options(text: &str) -> impl Iterator<Item = &str> {
    let names = parts(text, "--", |c| c.is_ascii_lowercase() || c == '-');
    names.filter(|name| name.starts_with(|c: char| c.is_ascii_lowercase()) && !name.ends_with('-'))
}

/// Whether a schema has this key: `workers[].handler.http`.
fn has_key(schema: &Value, root: &Value, path: &[&str]) -> bool {
    let schema = match schema["$ref"].as_str() {
        Some(name) => &root["$defs"][name.rsplit('/').next().unwrap()],
        None => schema,
    };
    let Some((step, rest)) = path.split_first() else { return true };
    let below = schema["properties"].get(*step);
    below.is_some_and(|below| has_key(below, root, rest))
        || (*step == "[]" && has_key(&schema["items"], root, rest) && !schema["items"].is_null())
        || schema["additionalProperties"].is_object()
        || ["anyOf", "oneOf", "allOf"]
            .iter()
            .any(|way| schema[way].as_array().is_some_and(|ways| ways.iter().any(|schema| has_key(schema, root, path))))
}

/// The commands, options and keys of the program.
pub(crate) struct Known {
    helps: BTreeMap<String, String>,
    options: BTreeSet<String>,
    schema: Value,
}

impl Known {
    pub(crate) fn new() -> Self {
        let program = Program::new();
        let helps = helps(&program);
        let options = helps.values().flat_map(|help| options(help)).map(str::to_owned).collect();
        let schema = serde_json::from_str(&program.run(&["config", "schema"]).ok()).unwrap();
        Self { helps, options, schema }
    }

    pub(crate) fn has_option(&self, option: &str) -> bool {
        self.options.contains(option)
    }

    /// The commands that a text names, each with the mistake in it. A text that has no command in backticks may be a sentence.
    pub(crate) fn commands(&self, text: &str) -> Vec<(String, Option<String>)> {
        let mut found = Vec::new();
        for words in commands(text) {
            let mut words_left = words.split_whitespace();
            let first = words_left.next().unwrap_or_default();
            let second = words_left.next().map(|second| format!("{first} {second}"));
            let is_command = text.contains(&format!("`dms-worker {first}"));
            let of_second = second.as_ref().and_then(|second| self.helps.get(second));
            let help = of_second.or_else(|| self.helps.get(first));
            // `dlq` is followed by one of its commands.
            let needs_second =
                help.is_some_and(|help| help.contains(&format!("Usage: dms-worker {first} [OPTIONS] <COMMAND>")));
            let has_word =
                words.split_whitespace().nth(1).is_some_and(|word| word.chars().all(|c| c.is_ascii_lowercase()));
            let mistake = match help {
                None if !is_command => continue,
                None => Some("no command".to_owned()),
                Some(_) if needs_second && of_second.is_none() && has_word && is_command => {
                    Some("no command".to_owned())
                }
                Some(help) => options(&words)
                    .find(|option| !options(help).any(|known| known == *option))
                    .map(|option| format!("no option --{option}")),
            };
            found.push((words, mistake));
        }
        found
    }

    /// The keys that a text names, and whether the configuration has them.
    pub(crate) fn keys(&self, text: &str) -> Vec<(String, bool)> {
        let mut found = Vec::new();
        for section in SECTIONS {
            for key in parts(text, section, |c| c.is_ascii_lowercase() || "_.[]".contains(c)) {
                // A sentence ends behind it, or `[config: dms.endpoint]`.
                let rest = key.trim_end_matches('.');
                let rest = if rest.ends_with("[]") { rest } else { rest.trim_end_matches(']') };
                let key = format!("{section}{rest}");
                // A name that ends so is completed when the text is made.
                let is_part = rest.ends_with('_') || !rest.contains('.');
                if is_part || !rest.starts_with(['.', '[']) || NO_KEYS.contains(&key.as_str()) {
                    continue;
                }
                let path = key.replace("[]", ".[]");
                let path: Vec<_> = path.split('.').filter(|step| !step.is_empty()).collect();
                let is_known = has_key(&self.schema, &self.schema, &path);
                found.push((key, is_known));
            }
        }
        found
    }
}

#[test]
fn every_command_option_and_key_that_a_text_names_exists() {
    let known = Known::new();
    let mut wrong = BTreeSet::new();
    let mut seen = [0; 3];
    let mut check = |place: &str, text: &str| {
        for (words, mistake) in known.commands(text) {
            seen[0] += 1;
            wrong.extend(mistake.map(|mistake| format!("{place}: {mistake}: dms-worker {words}")));
        }
        for option in options(text) {
            seen[1] += 1;
            if !known.has_option(option) && !FOREIGN_OPTIONS.contains(&option) {
                wrong.insert(format!("{place}: no option --{option}: {text}"));
            }
        }
        for (key, is_known) in known.keys(text) {
            seen[2] += 1;
            if !is_known {
                wrong.insert(format!("{place}: no key {key}: {text}"));
            }
        }
    };
    for (words, help) in &known.helps {
        check(&format!("help of {words}"), help);
    }
    for file in sources() {
        let code = std::fs::read_to_string(&file).unwrap();
        for text in literals(&code) {
            check(&file.display().to_string(), &text);
        }
    }
    assert!(seen[0] > 60 && seen[1] > 200 && seen[2] > 60, "little was found: {seen:?}");
    assert!(wrong.is_empty(), "{}", wrong.into_iter().collect::<Vec<_>>().join("\n"));
}
