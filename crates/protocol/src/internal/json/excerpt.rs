//! Excerpts of untrusted text for errors.

/// The most characters of a value that an error shows.
const MAX_SHOWN: usize = 80;

/// A piece of JSON between backquotes, cut and without terminal control characters.
pub fn excerpt(json: &[u8]) -> String {
    format!("`{}`", cut(json, MAX_SHOWN))
}

/// A text, cut and without terminal control characters.
pub fn shown(text: &str) -> String {
    cut(text.as_bytes(), MAX_SHOWN)
}

/// A text between quotes, cut and with its special characters escaped.
pub fn quoted(text: &str) -> String {
    let head: String = text.chars().take(MAX_SHOWN).collect();
    let more = if head.len() < text.len() { "…" } else { "" };
    format!("{head:?}{more}")
}

/// At most `most` characters, with unprintable ones escaped.
pub(super) fn cut(text: &[u8], most: usize) -> String {
    // A character has at most four bytes.
    let head = String::from_utf8_lossy(text.get(..most * 4 + 4).unwrap_or(text));
    let mut shown = String::with_capacity(most + 3);
    let mut characters = head.chars();
    for character in characters.by_ref().take(most) {
        match character {
            '"' | '\\' | '\'' => shown.push(character),
            other => shown.extend(other.escape_debug()),
        }
    }
    if characters.next().is_some() {
        shown.push('…');
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_shown_is_short_and_harmless() {
        assert_eq!(excerpt(b"{\"a\": \"\\ud83d\"}"), "`{\"a\": \"\\ud83d\"}`");
        assert_eq!(excerpt("队\u{1b}[31m\u{202e}\n\u{85}".as_bytes()), "`队\\u{1b}[31m\\u{202e}\\n\\u{85}`");
        assert_eq!(excerpt(&[b'1'; 100]), format!("`{}…`", "1".repeat(80)));
        assert_eq!(excerpt("队".repeat(100).as_bytes()), format!("`{}…`", "队".repeat(80)));
        assert_eq!(excerpt(b"\xff\x00"), "`\u{fffd}\\0`");
        assert_eq!(quoted("a\"\u{7}"), "\"a\\\"\\u{7}\"");
        assert_eq!(quoted(&"x".repeat(81)), format!("\"{}\"…", "x".repeat(80)));
        assert_eq!(shown("a\u{7}'\""), "a\\u{7}'\"");
    }
}
