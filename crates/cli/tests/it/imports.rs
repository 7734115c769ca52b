//! Imports run in one direction, between files and between folders: a reader who knows a file knows everything below it.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
};

/// The sources of the crates.
const SOURCES: [&str; 4] = ["src", "crates/protocol/src", "crates/server/src", "crates/cli/src"];

/// The modules of a crate, each with the modules that it names. A module is its path, such as `store::disk`; the root is empty.
type Imports = BTreeMap<String, BTreeSet<String>>;

#[test]
fn no_files_and_no_folders_import_each_other() {
    for source in SOURCES {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").join(source);
        let mut files = BTreeMap::new();
        read(&root, "", &mut files);
        let imports = imports(&files);
        assert!(imports.values().any(|named| !named.is_empty()), "{source}: imports are found");
        assert_eq!(cycle(&imports), None, "{source}: these files import each other");
        let depth = files.keys().map(|module| module.split("::").count()).max().unwrap_or(1);
        for depth in 1..depth {
            assert_eq!(cycle(&folders(&imports, depth)), None, "{source}: these folders import each other");
        }
    }
}

#[test]
fn a_cycle_is_found() {
    let file = |module: &str, text: &str| (module.to_owned(), text.to_owned());
    let files = BTreeMap::from([
        file("", "mod a; mod b;"),
        file("a", "use crate::b::{self, c::D};"),
        file("b", "pub use self::c::D;"),
        file("b::c", "fn f() { crate::a::g() }"),
    ]);
    let imports = imports(&files);
    assert_eq!(cycle(&imports), Some(vec!["a".to_owned(), "b::c".to_owned()]));
    assert_eq!(cycle(&folders(&imports, 1)), Some(vec!["a".to_owned(), "b".to_owned()]));
}

/// Reads the files below a folder, without tests.
fn read(folder: &Path, module: &str, files: &mut BTreeMap<String, String>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_stem().unwrap().to_str().unwrap();
        let within = |name: &str| if module.is_empty() { name.to_owned() } else { format!("{module}::{name}") };
        if path.is_dir() && name != "tests" {
            read(&path, &within(name), files);
        } else if path.extension().is_some_and(|kind| kind == "rs") && name != "tests" && name != "main" {
            let text = fs::read_to_string(&path).unwrap();
            let text = text.split("#[cfg(test)]\nmod tests {").next().unwrap_or_default().to_owned();
            let module = if ["lib", "mod"].contains(&name) { module.to_owned() } else { within(name) };
            files.insert(module, text);
        }
    }
}

fn imports(files: &BTreeMap<String, String>) -> Imports {
    let named = |module: &str, text: &str| {
        let code: String =
            text.lines().filter(|line| !line.trim_start().starts_with("//")).collect::<Vec<_>>().join(" ");
        let mut paths = Vec::new();
        for begin in ["crate::", "self::", "super::"] {
            for (place, _) in code.match_indices(begin) {
                // In the middle of a longer path, such as `super::super::`.
                if !code[..place].ends_with([':', '_']) {
                    expand("", &code[place..], &mut paths);
                }
            }
        }
        let found = paths.iter().filter_map(|path| resolve(module, path, files));
        found.filter(|other| !is_inside(other, module) && !is_inside(module, other)).collect()
    };
    files.iter().map(|(module, text)| (module.clone(), named(module, text))).collect()
}

/// The paths at the beginning of `code`, with every name in braces.
fn expand<'a>(before: &str, code: &'a str, paths: &mut Vec<String>) -> &'a str {
    let end = code.find(|letter: char| !(letter.is_alphanumeric() || "_: ".contains(letter))).unwrap_or(code.len());
    let (path, mut rest) = code.split_at(end);
    let path = format!("{before}{}", path.split(" as ").next().unwrap_or_default().replace(' ', ""));
    if !rest.starts_with('{') || !path.ends_with("::") {
        paths.push(path);
        return rest;
    }
    while let Some(inside) = rest.strip_prefix(['{', ',']) {
        rest = expand(&path, inside, paths);
    }
    rest.strip_prefix('}').unwrap_or(rest).trim_start()
}

/// The module of a file that a path names in `module`.
fn resolve(module: &str, path: &str, files: &BTreeMap<String, String>) -> Option<String> {
    let mut at: Vec<&str> = if path.starts_with("crate::") { Vec::new() } else { module.split("::").collect() };
    for part in path.split("::") {
        match part {
            "crate" | "self" | "" => {}
            "super" => drop(at.pop()),
            part => at.push(part),
        }
    }
    while !at.is_empty() {
        let found = at.join("::");
        if files.contains_key(&found) {
            return Some(found);
        }
        at.pop();
    }
    None
}

/// Whether a module is another one, or within it. A file and the files of its folder belong together.
fn is_inside(module: &str, folder: &str) -> bool {
    folder.is_empty() || module == folder || module.strip_prefix(folder).is_some_and(|rest| rest.starts_with("::"))
}

/// The imports between the folders at this depth.
fn folders(imports: &Imports, depth: usize) -> Imports {
    let folder = |module: &str| module.split("::").take(depth).collect::<Vec<_>>().join("::");
    let mut found = Imports::new();
    for (module, named) in imports {
        let (from, named) = (folder(module), named.iter().map(|other| folder(other)));
        let others = named.filter(|other| !is_inside(other, &from) && !is_inside(&from, other));
        found.entry(from.clone()).or_default().extend(others);
    }
    found
}

/// A shortest cycle through the first module that is on one.
fn cycle(imports: &Imports) -> Option<Vec<String>> {
    imports.keys().find_map(|start| {
        let mut paths = vec![vec![start]];
        let mut seen = BTreeSet::new();
        while let Some(path) = (!paths.is_empty()).then(|| paths.remove(0)) {
            for next in path.last().and_then(|last| imports.get(*last)).into_iter().flatten() {
                if next == start {
                    return Some(path.into_iter().cloned().collect());
                }
                if seen.insert(next) {
                    paths.push(path.iter().copied().chain([next]).collect());
                }
            }
        }
        None
    })
}
