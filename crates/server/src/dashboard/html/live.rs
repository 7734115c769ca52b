//! [`Live`]: the numbers of a page that change while it is open.
//!
//! A page shows them when it is rendered, and the stream of events sends those that changed. Both take them from one function,
//! so that they cannot differ.

use std::collections::BTreeMap;

use maud::{Markup, html};

/// Texts by the key of their element.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Live(BTreeMap<String, String>);

impl Live {
    /// Sets a text.
    pub fn set(&mut self, key: impl Into<String>, text: impl Into<String>) {
        self.0.insert(key.into(), text.into());
    }

    /// A text; empty if there is none.
    pub fn get(&self, key: &str) -> &str {
        self.0.get(key).map_or("", String::as_str)
    }

    /// The element of a text.
    pub fn cell(&self, key: &str) -> Markup {
        html! { span data-live=(key) { (self.get(key)) } }
    }

    /// A line whose points are a text.
    pub fn spark(&self, key: &str, label: &str) -> Markup {
        html! {
            svg.spark viewBox="0 0 100 24" preserveAspectRatio="none" role="img" aria-label=(label) {
                polyline data-live=(key) points=(self.get(key)) {}
            }
        }
    }

    /// The texts that differ from `before`, as JSON.
    pub fn changes(&self, before: &Self) -> Option<String> {
        let changed: BTreeMap<_, _> = self.0.iter().filter(|(key, text)| before.0.get(*key) != Some(*text)).collect();
        if changed.is_empty() { None } else { serde_json::to_string(&changed).ok() }
    }
}

/// The points of a line in a box of 100 by 24, from the lowest value, zero, to the highest.
pub fn points(values: &[u32]) -> String {
    let most = values.iter().copied().max().unwrap_or(0).max(1);
    let last = values.len().saturating_sub(1).max(1);
    let point = |(place, value): (usize, &u32)| {
        let (x, y) = (place * 100 / last, 23 - u64::from(*value) * 22 / u64::from(most));
        format!("{x},{y}")
    };
    values.iter().enumerate().map(point).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_changes_are_sent() {
        let (mut before, mut after) = (Live::default(), Live::default());
        before.set("a", "1");
        after.set("a", "1");
        assert_eq!(after.changes(&before), None);
        after.set("b", "18,446,744,073,709,551,615");
        assert_eq!(after.changes(&before).as_deref(), Some(r#"{"b":"18,446,744,073,709,551,615"}"#));
    }

    #[test]
    fn lines_stay_in_their_box() {
        assert_eq!(points(&[0, 5, 10]), "0,23 50,12 100,1");
        assert_eq!(points(&[u32::MAX]), "0,1");
        assert_eq!(points(&[]), "");
    }
}
