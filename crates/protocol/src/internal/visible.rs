//! Escapes control characters of untrusted text before it is shown.
//!
//! Messages, names and error texts can come from anybody, and terminals interpret control characters in them. Sequences
//! that start with ESC or U+009B move the cursor or set the title or the clipboard, CR overwrites a line, and direction
//! marks change the visible order. Logs are shown in terminals as well, where a line break would forge a line.

use std::borrow::Cow;

/// Returns whether a character can control a terminal or deceive a reader: control characters (C0, DEL, C1), line and
/// paragraph separators, direction marks, and characters without a shape, which make different texts look the same. The
/// joiners U+200C and U+200D are not among them, because words of several languages and many emoji need them.
pub fn is_obeyed(character: char) -> bool {
    character.is_control()
        || matches!(
            character,
            '\u{ad}' | '\u{34f}' | '\u{61c}' | '\u{115f}' | '\u{1160}' | '\u{17b4}' | '\u{17b5}' | '\u{180b}'..='\u{180f}'
                | '\u{200b}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{3164}'
                | '\u{feff}' | '\u{ffa0}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e0fff}'
        )
}

/// A text in one line, with control characters escaped.
pub fn visible(text: &str) -> Cow<'_, str> {
    escaped(text, push_escaped)
}

/// A text of several lines, with all control characters except line breaks escaped.
pub fn visible_lines(text: &str) -> Cow<'_, str> {
    escaped(text, |shown, character| match character {
        '\n' => shown.push('\n'),
        other => push_escaped(shown, other),
    })
}

/// Valid JSON with the same content, in which strings have escapes for control characters.
pub fn visible_json(json: &str) -> Cow<'_, str> {
    escaped(json, |shown, character| match character {
        // These are blanks between tokens, because strings of valid JSON cannot have them.
        '\n' | '\t' => shown.push(character),
        '\r' => shown.push(' '),
        other => other.encode_utf16(&mut [0; 2]).iter().for_each(|unit| shown.push_str(&format!("\\u{unit:04x}"))),
    })
}

fn push_escaped(shown: &mut String, character: char) {
    shown.extend(character.escape_default());
}

fn escaped(text: &str, mut escape: impl FnMut(&mut String, char)) -> Cow<'_, str> {
    let Some(first) = text.find(is_obeyed) else { return Cow::Borrowed(text) };
    let (plain, rest) = text.split_at(first);
    let mut shown = String::with_capacity(text.len() + 16);
    shown.push_str(plain);
    for character in rest.chars() {
        if is_obeyed(character) {
            escape(&mut shown, character);
        } else {
            shown.push(character);
        }
    }
    Cow::Owned(shown)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Sequences that a terminal obeys, each with its escaped form.
    const TRICKS: [(&str, &str); 9] = [
        ("\u{1b}[2J\u{1b}[1;31m", "\\u{1b}[2J\\u{1b}[1;31m"),
        ("\u{1b}]52;c;ZXZpbA==\u{7}", "\\u{1b}]52;c;ZXZpbA==\\u{7}"),
        ("\u{9b}31m\u{9d}0;title\u{9c}", "\\u{9b}31m\\u{9d}0;title\\u{9c}"),
        ("paid\r0000", "paid\\r0000"),
        ("a\nERROR b", "a\\nERROR b"),
        ("\u{202e}txt.exe\u{2066}", "\\u{202e}txt.exe\\u{2066}"),
        ("a\u{2028}b\u{2029}", "a\\u{2028}b\\u{2029}"),
        ("\u{0}\u{8}\u{7f}\t", "\\u{0}\\u{8}\\u{7f}\\t"),
        ("ord\u{200b}ers\u{feff}\u{2060}\u{e0041}\u{ad}", "ord\\u{200b}ers\\u{feff}\\u{2060}\\u{e0041}\\u{ad}"),
    ];

    #[test]
    fn what_a_terminal_obeys_is_escaped() {
        for (trick, shown) in TRICKS {
            assert_eq!(visible(trick), shown);
        }
        let plain = "队列 👩‍👧 naïve \\u001b عربي";
        assert!(matches!(visible(plain), Cow::Borrowed(same) if same == plain));
    }

    #[test]
    fn lines_stay_lines() {
        assert_eq!(visible_lines("a\nb\r\u{1b}c\n"), "a\nb\\r\\u{1b}c\n");
    }

    #[test]
    fn json_stays_the_same_json() {
        for (trick, _) in TRICKS {
            // Another program may escape only the characters that JSON does not allow unescaped.
            let json = format!("{{\"a\":\r\n\t{}}}", serde_json::Value::from(trick));
            let shown = visible_json(&json);
            assert!(!shown.contains(|c| is_obeyed(c) && c != '\n' && c != '\t'), "{shown:?}");
            let values = [&*json, &*shown].map(|json| serde_json::from_str::<serde_json::Value>(json).ok());
            assert!(values[0].is_some() && values[0] == values[1], "{shown:?}");
        }
        assert_eq!(visible_json("{\"a\":\"\u{9b}\u{202e}\u{7f}\"}"), r#"{"a":"\u009b\u202e\u007f"}"#);
    }
}
