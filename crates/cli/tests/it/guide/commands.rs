//! Every command, option and key of the guide exists.

use super::{page, pages};
use crate::cli::hints::Known;

#[test]
fn every_command_option_and_key_of_the_guide_exists() {
    let known = Known::new();
    let mut wrong = Vec::new();
    let mut seen = [0; 3];
    for page in pages() {
        let blocks = page.blocks().into_iter().filter(|block| ["sh", "bash"].contains(&block.language.as_str()));
        let texts = blocks.flat_map(|block| {
            let joined = block.text.replace("\\\n", " ");
            let lines = joined.lines().map(|line| line.split("  #").next().unwrap().to_owned()).collect::<Vec<_>>();
            lines.into_iter().map(move |line| (block.place.clone(), line))
        });
        let inline = page.inline().into_iter().map(|text| (page.path.clone(), format!("`{text}`")));
        for (place, text) in texts.chain(inline) {
            // What follows belongs to another program.
            for text in text.split(['|', '&']) {
                let command = format!("`{}", text.trim().trim_start_matches('`'));
                for (words, mistake) in known.commands(&command) {
                    seen[0] += 1;
                    wrong.extend(mistake.map(|mistake| format!("{place}: {mistake}: dms-worker {words}")));
                }
            }
            if let Some(option) = text.strip_prefix("`--") {
                let name: String = option.chars().take_while(|c| c.is_ascii_lowercase() || *c == '-').collect();
                seen[1] += 1;
                if !known.has_option(&name) {
                    wrong.push(format!("{place}: no option {text}"));
                }
            }
            for (key, is_known) in known.keys(&text) {
                seen[2] += 1;
                if !is_known {
                    wrong.push(format!("{place}: no key {key}"));
                }
            }
        }
    }
    assert!(seen[0] > 100 && seen[1] > 20 && seen[2] > 60, "little was found: {seen:?}");
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// The page of commands has every command of the program.
#[test]
fn every_command_is_in_the_guide() {
    let text = page("docs/commands.md").text;
    let help = crate::cli::Program::new().run(&["--help"]).ok();
    let list = help.split_once("\nCommands:\n").unwrap().1.split_once("\n\n").unwrap().0;
    let names: Vec<_> = list
        .lines()
        .filter(|line| line.chars().nth(2) != Some(' '))
        .filter_map(|line| line.split_whitespace().next())
        .collect();
    assert!(names.len() > 15, "{names:?}");
    for name in names.into_iter().filter(|name| *name != "help") {
        assert!(text.contains(&format!("`{name}")), "{name} is not in docs/commands.md");
    }
}
