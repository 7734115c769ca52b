//! [`LabelFilter`]: which messages a group consumes. Its first consume call fixes it (API reference 5.3.2, `tag` and `tag_type`).

use std::fmt;

use dms_protocol::queue::{TagFilter, TagMode};

/// A label filter in normal form: sorted, without duplicates, and with mode "or" where the mode makes no difference. Two filters are
/// equal if they pass the same messages.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct LabelFilter(TagFilter);

impl LabelFilter {
    /// Brings a filter into normal form.
    pub(crate) fn new(filter: &TagFilter) -> Self {
        let mut tags = filter.tags.clone();
        tags.sort_unstable();
        tags.dedup();
        let mode = if tags.len() > 1 { filter.mode } else { TagMode::Or };
        Self(TagFilter { tags, mode })
    }

    /// Whether a message with these labels passes.
    pub(crate) fn passes(&self, labels: &[String]) -> bool {
        self.0.matches(labels)
    }

    /// Whether every message passes.
    pub(crate) fn passes_all(&self) -> bool {
        self.0.is_empty()
    }

    /// The filter in normal form.
    pub(crate) fn filter(&self) -> &TagFilter {
        &self.0
    }
}

impl fmt::Display for LabelFilter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.0.tags.as_slice(), self.0.mode) {
            ([], _) => f.write_str("no labels"),
            (tags, TagMode::Or) => f.write_str(&tags.join(" or ")),
            (tags, TagMode::And) => f.write_str(&tags.join(" and ")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(tags: &[&str], mode: TagMode) -> LabelFilter {
        LabelFilter::new(&TagFilter { tags: tags.iter().map(|&tag| tag.into()).collect(), mode })
    }

    /// 5.3.2: "every group supports only one label rule"; the order of the labels does not distinguish two rules.
    #[test]
    fn rules_are_equal_as_sets() {
        assert_eq!(rule(&["b", "a", "b"], TagMode::And), rule(&["a", "b"], TagMode::And));
        assert_ne!(rule(&["a", "b"], TagMode::And), rule(&["a", "b"], TagMode::Or));
        assert_eq!(rule(&["a"], TagMode::And), rule(&["a"], TagMode::Or));
        assert_eq!(rule(&[], TagMode::And), rule(&[], TagMode::Or));
        assert_ne!(rule(&[], TagMode::Or), rule(&["a"], TagMode::Or));
    }

    #[test]
    fn a_refusal_can_name_the_rule() {
        assert_eq!(rule(&["b", "a"], TagMode::And).to_string(), "a and b");
        assert_eq!(rule(&[], TagMode::Or).to_string(), "no labels");
    }
}
