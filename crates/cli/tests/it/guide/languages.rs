//! The two READMEs say the same: section by section the same commands, programs, tables and links.

use super::{Page, page};

/// A section of a page, as far as it does not depend on the language.
#[derive(Debug, PartialEq)]
struct Section {
    level: usize,
    blocks: Vec<String>,
    rows: usize,
    items: usize,
    names: Vec<String>,
    links: Vec<String>,
}

/// A block without its comments, which are translated.
fn without_comments(text: &str) -> String {
    let cut = |line: &str| {
        let marks = [" // ", "  # ", "\t# "];
        let end = marks.iter().filter_map(|mark| line.find(mark)).min().unwrap_or(line.len());
        line[..end].trim_end().to_owned()
    };
    text.lines().map(cut).filter(|line| !line.is_empty()).collect::<Vec<_>>().join("\n")
}

fn sections(page: &Page) -> Vec<Section> {
    let mut found: Vec<String> = Vec::new();
    let mut inside = false;
    for line in page.text.lines() {
        inside ^= line.starts_with("```");
        if !inside && line.starts_with('#') || found.is_empty() {
            found.push(String::new());
        }
        let last = found.last_mut().unwrap();
        last.push_str(line);
        last.push('\n');
    }
    let section = |text: String| {
        let part = Page { path: page.path.clone(), text };
        let prose = part.prose();
        let neutral = |link: &str| link.replace(".zh-CN", "").replace("-zh-", "-en-");
        let mut links: Vec<_> =
            prose.split("](").skip(1).filter_map(|rest| rest.split(')').next()).map(neutral).collect();
        let mut names: Vec<_> = part.inline().into_iter().filter(|name| name.is_ascii()).collect();
        links.sort();
        names.sort();
        names.dedup();
        Section {
            level: part.text.chars().take_while(|c| *c == '#').count(),
            blocks: part.blocks().iter().map(|block| without_comments(&block.text)).collect(),
            rows: prose.lines().filter(|line| line.starts_with('|')).count(),
            items: prose
                .lines()
                .filter(|line| line.starts_with(|c: char| c.is_ascii_digit()) || line.starts_with("* "))
                .count(),
            names,
            links,
        }
    };
    found.into_iter().map(section).collect()
}

#[test]
fn the_readmes_say_the_same_in_both_languages() {
    let [english, chinese] = ["README.md", "README.zh-CN.md"].map(|path| sections(&page(path)));
    assert!(english.len() >= 9, "{}", english.len());
    assert_eq!(english.len(), chinese.len(), "sections");
    for (english, chinese) in english.into_iter().zip(chinese) {
        assert_eq!(english, chinese);
    }
}
