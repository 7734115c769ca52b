//! The READMEs and the guide match the program: links, commands, programs, configurations, keys, metrics, codes.

mod codes;
mod commands;
mod keys;
mod languages;
mod limits;
mod links;
mod names;
mod programs;

use std::{fs, path::Path};

/// A page by its path from the root of the project.
struct Page {
    path: String,
    text: String,
}

/// A block of code of a page.
struct Block {
    /// `page:line`, for failures.
    place: String,
    language: String,
    text: String,
}

fn root() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../.."))
}

fn page(path: &str) -> Page {
    Page { path: path.to_owned(), text: fs::read_to_string(root().join(path)).unwrap_or_else(|_| panic!("{path}")) }
}

/// The paths of all Markdown files below a folder.
fn markdown(folder: &str) -> Vec<String> {
    let mut found = Vec::new();
    for entry in fs::read_dir(root().join(folder)).unwrap().map(Result::unwrap) {
        let path = format!("{folder}/{}", entry.file_name().display());
        if entry.file_type().unwrap().is_dir() {
            found.extend(markdown(&path));
        } else if path.ends_with(".md") {
            found.push(path);
        }
    }
    found.sort();
    found
}

/// The READMEs and every page of the guide.
fn pages() -> Vec<Page> {
    let readmes = ["README.md", "README.zh-CN.md", "deploy/README.md"].map(str::to_owned);
    let pages: Vec<_> = readmes.into_iter().chain(markdown("docs")).map(|path| page(&path)).collect();
    assert!(pages.len() > 30, "{}", pages.len());
    pages
}

impl Page {
    /// The lines outside of blocks of code.
    fn prose(&self) -> String {
        let mut inside = false;
        let lines = self.text.lines().filter(|line| {
            let fence = line.starts_with("```");
            inside ^= fence;
            !inside && !fence
        });
        lines.collect::<Vec<_>>().join("\n")
    }

    fn blocks(&self) -> Vec<Block> {
        let mut blocks: Vec<Block> = Vec::new();
        let mut inside = false;
        for (number, line) in self.text.lines().enumerate() {
            if let Some(language) = line.strip_prefix("```") {
                inside = !inside;
                if inside {
                    let place = format!("{}:{}", self.path, number + 1);
                    blocks.push(Block { place, language: language.to_owned(), text: String::new() });
                }
            } else if inside {
                let block = blocks.last_mut().unwrap();
                block.text += line;
                block.text.push('\n');
            }
        }
        assert!(!inside, "{}: a block of code does not end", self.path);
        blocks
    }

    /// The texts in backticks outside of blocks.
    fn inline(&self) -> Vec<String> {
        self.prose()
            .lines()
            .flat_map(|line| line.split('`').skip(1).step_by(2).map(str::to_owned).collect::<Vec<_>>())
            .collect()
    }
}
