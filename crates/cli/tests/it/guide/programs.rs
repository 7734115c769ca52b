//! A program in the guide that names its file is a part of this file. The files are run by other tests.

use std::fs;

use super::{Block, page, pages, root};

/// The lines of a program without comments, indentation and empty lines.
fn code(text: &str) -> Vec<String> {
    let without_comment = |line: &str| {
        let cut = [" // ", "  # "].iter().filter_map(|mark| line.find(mark)).min().unwrap_or(line.len());
        line[..cut].trim().to_owned()
    };
    let is_comment = |line: &String| line.is_empty() || line.starts_with("//") || line.starts_with("# ");
    text.lines().map(without_comment).filter(|line| !is_comment(line)).collect()
}

/// The file that the first line of a block names, as in `// examples/quickstart.rs`.
fn file(block: &Block) -> Option<String> {
    let first = block.text.lines().next()?;
    let name = first.strip_prefix("// ").or_else(|| first.strip_prefix("# "))?;
    (name.contains('/') && !name.contains(' ')).then(|| name.to_owned())
}

#[test]
fn every_program_is_a_part_of_the_file_that_it_names() {
    let mut compared = 0;
    for block in pages().iter().flat_map(super::Page::blocks) {
        let Some(name) = file(&block) else { continue };
        let text =
            fs::read_to_string(root().join(&name)).unwrap_or_else(|_| panic!("{}: {name} is missing", block.place));
        let (part, whole) = (code(&block.text), code(&text));
        assert!(
            !part.is_empty() && whole.windows(part.len()).any(|lines| lines == part),
            "{} differs from {name}",
            block.place
        );
        compared += 1;
    }
    assert!(compared > 20, "{compared}");
}

/// The README promises what the tour prints. Figures depend on the number of orders.
#[test]
#[cfg(unix)]
fn the_tour_prints_the_lines_of_the_readme() {
    let masked = |line: &str| {
        let mut masked = String::new();
        for c in line.trim().chars() {
            let c = if c.is_ascii_digit() { '0' } else { c };
            if c != '0' || !masked.ends_with('0') {
                masked.push(c);
            }
        }
        masked
    };
    let output = crate::cli::Program::new().run(&["demo", "--orders", "300"]);
    let printed: Vec<_> = output.stderr.lines().map(masked).collect();
    for path in ["README.md", "README.zh-CN.md"] {
        let blocks = page(path).blocks();
        let block = blocks.iter().find(|block| block.language == "text").unwrap();
        for line in block.text.lines().filter(|line| !line.is_empty()).map(masked) {
            assert!(printed.contains(&line), "{path}: {line}\n{}", output.stderr);
        }
    }
}
