//! Every link of the guide leads to a file, and to a heading of it.

use std::collections::BTreeSet;

use super::{markdown, page, pages, root};

/// The anchors of a page, as GitHub and mdBook make them from its headings.
fn anchors(text: &str) -> BTreeSet<String> {
    let mut inside = false;
    let headings = text.lines().filter(|line| {
        inside ^= line.starts_with("```");
        !inside && line.starts_with('#')
    });
    let anchor = |heading: &str| {
        let kept = heading.trim_start_matches('#').trim().chars();
        let kept = kept.filter(|c| c.is_alphanumeric() || " -_".contains(*c));
        kept.collect::<String>().to_lowercase().replace(' ', "-")
    };
    headings.map(anchor).collect()
}

/// The links of a page that lead nowhere.
fn broken(path: &str, text: &str) -> Vec<String> {
    let folder = root().join(path).parent().unwrap().to_owned();
    let links = text.split("](").skip(1).filter_map(|rest| rest.split(')').next());
    let local = links.filter(|link| !link.contains("://"));
    let is_broken = |link: &&str| {
        let (file, anchor) = link.split_once('#').map_or((*link, None), |(file, anchor)| (file, Some(anchor)));
        let file = if file.is_empty() { root().join(path) } else { folder.join(file) };
        let anchor_is_there =
            || anchor.is_none_or(|anchor| anchors(&std::fs::read_to_string(&file).unwrap()).contains(anchor));
        !file.exists() || !anchor_is_there()
    };
    local.filter(is_broken).map(|link| format!("{path}: {link}")).collect()
}

#[test]
fn every_link_leads_to_a_heading_of_a_file() {
    let wrong = "[a](gone.md) [b](worker.md#gone) [c](worker.md#ordering) [d](https://example.com/gone)";
    assert_eq!(broken("docs/README.md", wrong), ["docs/README.md: gone.md", "docs/README.md: worker.md#gone"]);
    let others = ["CONTRIBUTING.md", "ARCHITECTURE.md", "SECURITY.md"].map(page);
    let broken: Vec<_> = pages().iter().chain(&others).flat_map(|page| broken(&page.path, &page.prose())).collect();
    assert_eq!(broken, [""; 0]);
}

#[test]
fn every_page_of_the_guide_is_in_its_table_of_contents() {
    let summary = page("docs/SUMMARY.md").text;
    let listed: BTreeSet<_> =
        summary.split("](").skip(1).map(|rest| format!("docs/{}", rest.split(')').next().unwrap())).collect();
    let pages: BTreeSet<_> = markdown("docs").into_iter().filter(|path| path != "docs/SUMMARY.md").collect();
    assert_eq!(listed, pages);
}

/// A newcomer reads it at one sitting.
#[test]
fn the_readmes_are_short() {
    for path in ["README.md", "README.zh-CN.md"] {
        assert!(page(path).text.lines().count() <= 180, "{path}");
    }
}
