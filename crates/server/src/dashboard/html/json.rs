//! JSON for reading: indented, with every number and string as it was sent.

/// The maximum size of an indented text, in bytes.
const MAX_PRETTY: usize = 1 << 20;
/// The maximum depth that is indented further.
const MAX_INDENT: usize = 32;

/// Indents JSON text. Its tokens are copied, so no number loses a digit. Returns the text and whether it is complete.
pub(crate) fn pretty(json: &str) -> (String, bool) {
    let mut text = String::with_capacity(json.len().min(MAX_PRETTY) * 2);
    let (mut depth, mut in_string, mut escaped) = (0_usize, false, false);
    let mut letters = json.chars().peekable();
    while let Some(letter) = letters.next() {
        if text.len() >= MAX_PRETTY {
            return (text, false);
        }
        if in_string {
            text.push(letter);
            in_string = escaped || letter != '"';
            escaped = !escaped && letter == '\\';
            continue;
        }
        match letter {
            '{' | '[' => {
                text.push(letter);
                while letters.next_if(char::is_ascii_whitespace).is_some() {}
                if let Some(end) = letters.next_if(|next| matches!(next, '}' | ']')) {
                    text.push(end);
                } else {
                    depth += 1;
                    new_line(&mut text, depth);
                }
            }
            '}' | ']' => {
                depth = depth.saturating_sub(1);
                new_line(&mut text, depth);
                text.push(letter);
            }
            ',' => {
                text.push(letter);
                new_line(&mut text, depth);
            }
            ':' => text.push_str(": "),
            letter if letter.is_ascii_whitespace() => {}
            letter => {
                in_string = letter == '"';
                text.push(letter);
            }
        }
    }
    (text, true)
}

/// JSON text without white space between its tokens, which are copied.
pub(crate) fn compact(json: &str) -> String {
    let mut text = String::with_capacity(json.len());
    let (mut in_string, mut escaped) = (false, false);
    for letter in json.chars() {
        if in_string {
            in_string = escaped || letter != '"';
            escaped = !escaped && letter == '\\';
        } else if letter.is_ascii_whitespace() {
            continue;
        } else {
            in_string = letter == '"';
        }
        text.push(letter);
    }
    text
}

fn new_line(text: &mut String, depth: usize) {
    text.push('\n');
    (0..depth.min(MAX_INDENT)).for_each(|_| text.push_str("  "));
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn tokens_are_copied() {
        let json = r#"{"id":12345678901234567890,"p":1.10,"s":"a\"{,}:\\","e":[],"o":{ },"l":[1,[2]]}"#;
        let expected = "{\n  \"id\": 12345678901234567890,\n  \"p\": 1.10,\n  \"s\": \"a\\\"{,}:\\\\\",\n  \"e\": [],\n  \"o\": {},\n  \"l\": [\n    1,\n    [\n      2\n    ]\n  ]\n}";
        assert_eq!(pretty(json), (expected.to_owned(), true));
    }

    #[test]
    fn hostile_depth_and_size_are_bounded() {
        let deep = "[".repeat(100_000);
        let (text, complete) = pretty(&deep);
        assert!(!complete && text.len() <= MAX_PRETTY + 100, "{}", text.len());
        assert!(pretty(&"[1,".repeat(5)).1);
    }

    proptest! {
        #[test]
        fn indenting_changes_white_space_alone(text in "\\PC{0,200}") {
            let json = serde_json::to_string(&vec![text]).unwrap_or_default();
            let bare = |text: &str| text.chars().filter(|letter| !letter.is_whitespace()).collect::<String>();
            prop_assert_eq!(bare(&pretty(&json).0), bare(&json));
        }
    }
}
