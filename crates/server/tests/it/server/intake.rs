//! The contents of a send: no accepted message can make a consume answer unreadable for a strict parser, and nothing is changed
//! on the way.

use axum::body::Body;
use proptest::prelude::*;
use serde_json::Value;
use tokio::runtime::Runtime;

use super::{Api, PROJECT};

/// The levels that the strictest common parser reads (.NET's `System.Text.Json`).
const LEVELS: usize = 64;

/// Reads an answer as strict parsers do: whole surrogate pairs, finite numbers, [`LEVELS`] levels.
fn strict(text: &str) -> Result<Value, String> {
    fn levels(value: &Value) -> usize {
        match value {
            Value::Array(items) => 1 + items.iter().map(levels).max().unwrap_or(0),
            Value::Object(members) => 1 + members.values().map(levels).max().unwrap_or(0),
            _ => 0,
        }
    }
    // It refuses half pairs, and numbers beyond a double.
    let value: Value = serde_json::from_str(text).map_err(|error| error.to_string())?;
    match levels(&value) {
        deep if deep > LEVELS => Err(format!("{deep} levels")),
        _ => Ok(value),
    }
}

fn nested(depth: usize) -> String {
    "[".repeat(depth) + &"]".repeat(depth)
}

/// Values that strict parsers cannot read, with what the refusal says of them.
fn unreadable() -> Vec<(String, String)> {
    let digits = "9".repeat(400);
    let shown = format!("is `{}…`", "9".repeat(80));
    let strings =
        [r"\ud83d", r"\uDE00", r"a\ud83d\ud83d\ude00", r"\ud83d\u0041", r"\ud83d!", r"\ude00\ud83d", r"\uD800\t"];
    let half = strings.map(|text| (format!("\"{text}\""), "half a surrogate pair".to_owned()));
    let numbers = [("1e999", "is `1e999`"), ("-1e400", "is `-1e400`"), ("1.8e308", "is `1.8e308`"), (&digits, &*shown)];
    let numbers = numbers.map(|(number, said)| (number.to_owned(), said.to_owned()));
    half.into_iter().chain(numbers).collect()
}

/// Half surrogate pairs and numbers beyond a double: in bodies and attributes, at any depth, on both versions.
#[tokio::test(start_paused = true)]
async fn messages_that_strict_parsers_cannot_read_are_refused_with_their_place() {
    for version in ["v2", "v1.0"] {
        let api = Api::start().await.on(&format!("/{version}/{PROJECT}"));
        let (queue, group) = api.queue_and_group("q").await;
        for (value, said) in unreadable() {
            for (message, place) in [
                (format!(r#"{{"body":{value}}}"#), "messages[1].body"),
                (format!(r#"{{"body":[0,{{"a b":[{value}]}}]}}"#), "messages[1].body[1][\"a b\"][0]"),
                (format!(r#"{{"body":1,"attributes":{{"who":{value}}}}}"#), "messages[1].attributes.who"),
                (
                    format!(r#"{{"attributes":{{"a":1,"b":{{"c":[1,{value}]}}}},"body":1}}"#),
                    "messages[1].attributes.b.c[1]",
                ),
            ] {
                let request = format!(r#"{{"messages":[{{"body":"good"}},{message}]}}"#);
                let text = api.post(&format!("{queue}/messages"), &request).await.refused(400, "DMS.10540012");
                assert!(text.contains(&format!("{place} ")) && text.contains(&said), "{message}: {text}");
                assert!(text.len() < 500, "{text}");
            }
        }
        for name in [r"\ud83d", r"x\udc00y", r"\ud83d\ud83d"] {
            for (message, place) in [
                (format!(r#"{{"body":{{"{name}":1}}}}"#), format!(r#"messages[1].body["{name}"]"#)),
                (format!(r#"{{"body":[{{"a":{{"{name}":[]}}}}]}}"#), format!(r#"messages[1].body[0].a["{name}"]"#)),
                (
                    format!(r#"{{"body":1,"attributes":{{"{name}":1}}}}"#),
                    format!(r#"messages[1].attributes["{name}"]"#),
                ),
            ] {
                let request = format!(r#"{{"messages":[{{"body":"good"}},{message}]}}"#);
                let text = api.post(&format!("{queue}/messages"), &request).await.refused(400, "DMS.10540012");
                assert!(text.contains(&place) && text.contains("half a surrogate pair"), "{message}: {text}");
            }
        }
        assert_eq!(api.consume(&group, "").await, serde_json::json!([]), "nothing of them was stored");
    }
}

/// 60 levels of a message make 63 of an answer.
#[tokio::test(start_paused = true)]
async fn at_most_sixty_levels_of_nesting_are_accepted() {
    let api = Api::start().await;
    let (queue, group) = api.queue_and_group("q").await;
    for depth in [61, 64, 127, 128, 1000] {
        let objects = r#"{"a":"#.repeat(depth) + "1" + &"}".repeat(depth);
        for (message, place) in [
            (format!(r#"{{"body":{}}}"#, nested(depth)), "messages[0].body[0]"),
            (format!(r#"{{"body":{objects}}}"#), "messages[0].body.a"),
            (
                format!(r#"{{"body":1,"attributes":{{"deep":{}}}}}"#, nested(depth - 1)),
                "messages[0].attributes.deep[0]",
            ),
        ] {
            let request = format!(r#"{{"messages":[{message}]}}"#);
            let text = api.post(&format!("{queue}/messages"), &request).await.refused(400, "DMS.10540012");
            assert!(text.contains(place) && text.contains("… nests deeper than the 60 levels allowed"), "{text}");
        }
    }
    let deepest = [
        format!(r#"{{"body":{}}}"#, nested(60)),
        format!(r#"{{"body":"{}"}}"#, "[".repeat(500)),
        format!(r#"{{"body":1,"attributes":{{"deep":{}}}}}"#, nested(59)),
    ];
    for message in deepest {
        api.send(&queue, &message).await;
        let answer = api.get(&format!("{group}/messages?max_msgs=1")).await;
        strict(&answer.text).unwrap_or_else(|error| panic!("{message}: {error}"));
    }
}

/// Texts that strict parsers can read keep every byte.
#[tokio::test(start_paused = true)]
async fn accepted_messages_are_returned_byte_for_byte() {
    let api = Api::start().await;
    let (queue, group) = api.queue_and_group("q").await;
    let long = format!("0.{}", "123456789".repeat(500));
    for value in [
        "123456789012345678901234567890",
        "1.7976931348623157e308",
        "3.141592653589793238462643383279502884197",
        "1e3",
        "1E+3",
        "-0",
        "-0.0",
        "1e-999",
        &"9".repeat(308),
        &long,
        r#""\u0000\b\/\uD83D\uDE00\ud83d\ude00\\ud83d""#,
        "\"\u{7f}\u{2028}😀\"",
        "[ 1,\n\t{ \"a\" : null , \"a\":1e3 } ]",
        r#"{"\ud83d\ude00":[],"":{}}"#,
        "null",
    ] {
        let message = format!(r#"{{"body": {value} ,"attributes": {{"v": {value}}} }}"#);
        api.send(&queue, &message).await;
        let answer = api.get(&format!("{group}/messages?max_msgs=1")).await;
        let expected = format!(r#"[{{"message":{{"body":{value},"attributes":{{"v": {value}}}}},"handler":"#);
        assert!(answer.text.starts_with(&expected), "{value}: {}", answer.text);
        strict(&answer.text).unwrap_or_else(|error| panic!("{value}: {error}"));
    }
}

/// Parts that are not returned are no reason to refuse a message: unknown members, and an attribute that a later one replaces.
#[tokio::test(start_paused = true)]
async fn unknown_members_are_ignored() {
    let api = Api::start().await;
    let (queue, group) = api.queue_and_group("q").await;
    let request = format!(
        r#"{{"new":[1e999,"\ud83d",{deep}],"messages":[{{"body":1,"new":{{"a":1e999}},"later":"\ud83d","attributes":{{"\u0061":1,"a":2}}}}]}}"#,
        deep = nested(100)
    );
    api.post(&format!("{queue}/messages"), &request).await.expect(201);
    let answer = api.get(&format!("{group}/messages")).await;
    assert!(answer.text.starts_with(r#"[{"message":{"body":1,"attributes":{"a":2}},"handler":"#), "{}", answer.text);
    // They have to be JSON nevertheless.
    for odd in [r#""new":01"#, r#""new":[1,]"#, r#""new":"\x""#, r#""\ud83d":1"#] {
        for request in
            [format!(r#"{{"messages":[{{"body":1}}],{odd}}}"#), format!(r#"{{"messages":[{{"body":1,{odd}}}]}}"#)]
        {
            api.post(&format!("{queue}/messages"), &request).await.refused(400, "DMS.10540012");
        }
    }
    assert_eq!(api.consume(&group, "").await, serde_json::json!([]));
}

/// Members that are there twice are refused: parsers differ in which of them counts.
#[tokio::test(start_paused = true)]
async fn repeated_members_are_refused() {
    let api = Api::start().await;
    let (queue, _) = api.queue_and_group("q").await;
    for (request, place) in [
        (r#"{"messages":[{"body":1,"body":2}]}"#, "messages[0].body is there twice"),
        (r#"{"messages":[{"body":1,"b\u006fdy":2}]}"#, r#"messages[0]["b\u006fdy"] is there twice"#),
        (r#"{"messages":[{"body":1},{"body":1,"attributes":null,"attributes":{}}]}"#, "messages[1].attributes is"),
        (r#"{"messages":[{"body":1,"tags":[],"tags":[]}]}"#, "messages[0].tags is there twice"),
        (r#"{"messages":[{"body":1,"delay_time":1,"delayTime":1}]}"#, "messages[0].delayTime is there twice"),
        (r#"{"messages":[{"body":1}],"return_id":true,"returnId":false}"#, " returnId is there twice"),
        (r#"{"messages":[{"body":1}],"messages":[]}"#, " messages is there twice"),
    ] {
        let text = api.post(&format!("{queue}/messages"), request).await.refused(400, "DMS.10540010");
        assert!(text.contains(place), "{text}");
    }
}

/// Every refusal of a send names the message, the part of it, the value and the allowed values.
#[tokio::test(start_paused = true)]
async fn refusals_name_the_message_the_place_the_value_and_the_limit() {
    let api = Api::start().await;
    let (queue, group) = api.queue_and_group("q").await;
    let long = "x".repeat(1000);
    for (message, code, said) in [
        ("{}".to_owned(), "DMS.10540010", "messages[1] has no body."),
        ("7".to_owned(), "DMS.10540010", "messages[1] is `7`: an object is expected."),
        (
            "[1,null,null,null]".to_owned(),
            "DMS.10540010",
            "messages[1] is `[1,null,null,null]`: an object is expected.",
        ),
        (r#"{"body":}"#.to_owned(), "DMS.10540012", "messages[1].body is not JSON: a value is expected at byte"),
        (r#"{"body":NaN}"#.to_owned(), "DMS.10540012", "not `NaN`."),
        (
            "{\"body\":\"\u{1b}[2J\"}".to_owned(),
            "DMS.10540012",
            "messages[1].body is not JSON: the control character `\\u{1b}`",
        ),
        (
            r#"{"body":1,"attributes":[]}"#.to_owned(),
            "DMS.10540010",
            "messages[1].attributes is `[]`: an object is expected.",
        ),
        (format!(r#"{{"body":1,"attributes":"{long}"}}"#), "DMS.10540010", "…`: an object is expected."),
        (r#"{"body":1,"tags":"a"}"#.to_owned(), "DMS.10540010", "messages[1].tags is `\"a\"`: an array is expected."),
        (
            r#"{"body":1,"tags":["a",7]}"#.to_owned(),
            "DMS.10540010",
            "messages[1].tags[1] is `7`: a string is expected.",
        ),
        (
            r#"{"body":1,"tags":["a","b","c","d"]}"#.to_owned(),
            "DMS.10240004",
            "The number of labels of messages[1].tags is 4: at most 3 are allowed.",
        ),
        (
            r#"{"body":1,"tags":["a","b c"]}"#.to_owned(),
            "DMS.10240004",
            "messages[1].tags[1] is \"b c\": 1 to 64 of A-Z a-z 0-9 _ - are allowed.",
        ),
        (
            r#"{"body":1,"tags":["\u001b\u0000"]}"#.to_owned(),
            "DMS.10240004",
            r#"messages[1].tags[0] is "\u{1b}\0": 1 to"#,
        ),
        (r#"{"body":1,"tags":["\ud83d"]}"#.to_owned(), "DMS.10540012", "messages[1].tags[0] has `\\ud83d`"),
        (format!(r#"{{"body":1,"tags":["{long}"]}}"#), "DMS.10240004", "messages[1].tags[0] is \"xxx"),
        (
            r#"{"body":1,"delay_time":-1}"#.to_owned(),
            "DMS.10540010",
            "messages[1].delay_time is `-1`: 0 to 604800000 ms",
        ),
        (
            r#"{"body":1,"delay_time":1e999}"#.to_owned(),
            "DMS.10540010",
            "messages[1].delay_time is `1e999`: 0 to 604800000 ms",
        ),
        (
            r#"{"body":1,"delayTime":604800001}"#.to_owned(),
            "DMS.10540010",
            "messages[1].delayTime is `604800001`: 0 to",
        ),
        (
            r#"{"body":1,"delay_time":"5"}"#.to_owned(),
            "DMS.10540010",
            "messages[1].delay_time is `\"5\"`: a number is expected.",
        ),
        (r#"{"body":1,"delay_time":true}"#.to_owned(), "DMS.10540010", "messages[1].delay_time is `true`: a number is"),
        (
            r#"{"body":1,"delay_time":NaN}"#.to_owned(),
            "DMS.10540012",
            "messages[1].delay_time is not JSON: a value is expected",
        ),
        (r#"{"body":1,"delay_time":+5}"#.to_owned(), "DMS.10540012", "not `+5`."),
        (format!(r#"{{"body":"{}"}}"#, "x".repeat(524_287)), "DMS.10540011", "messages[1].body alone is larger."),
    ] {
        let request = format!(r#"{{"messages":[{{"body":"good"}},{message}]}}"#);
        let text = api.post(&format!("{queue}/messages"), &request).await.refused(400, code);
        assert!(text.contains(said), "{said} is not in {text}");
        assert!(text.len() < 500 && !text.contains(char::is_control), "{text}");
    }
    for (request, said) in [
        ("nonsense", "The request is not JSON: a value is expected at byte 0, not `nonsense`."),
        ("{\"messages\":[{\"body\":1}]", "the text ends at byte 24, where `,` or `}` is expected."),
        ("{\"messages\":[{\"body\":1}]}}", "the end is expected at byte 25, not `}`."),
        ("\u{feff}{\"messages\":[{\"body\":1}]}", "a value is expected at byte 0"),
        ("[]", "The request is `[]`: an object is expected."),
        ("{}", "The request has no messages."),
        (r#"{"messages":null}"#, "messages is `null`: an array is expected."),
        (r#"{"messages":[]}"#, "The number of messages is 0: 1 to 10 are allowed."),
        (r#"{"messages":[{"body":1}],"return_id":"maybe"}"#, "return_id is `\"maybe\"`: true or false is expected."),
        (r#"{"messages":[{"body":1}],"return_id":1}"#, "return_id is `1`: true or false is expected."),
    ] {
        let answer = api.post(&format!("{queue}/messages"), request).await;
        assert_eq!(answer.status, 400, "{request}");
        assert!(
            answer.json()["error_msg"].as_str().is_some_and(|text| text.contains(said)),
            "{said} is not in {answer:?}"
        );
    }
    let bytes = Body::from(b"{\"messages\":[{\"body\":1},{\"body\":\"\xed\xa0\xbd\"}]}".to_vec());
    let text = api.call("POST", &format!("{queue}/messages"), bytes).await.refused(400, "DMS.10540012");
    assert!(text.contains("messages[1].body is not UTF-8 at byte 33."), "{text}");
    assert_eq!(api.consume(&group, "").await, serde_json::json!([]), "nothing of them was stored");
}

/// JSON values as text, readable and not: odd numbers, escapes, equal names, blanks, nesting around the limit.
fn any_json() -> impl Strategy<Value = String> {
    let units = prop::sample::select(vec![
        "\\ud83d",
        "\\ude00",
        "\\uD83D\\uDE00",
        "\\u0000",
        "\\u0041",
        "\\n",
        "\\\\",
        "x",
        "队",
        "{[",
    ]);
    let string = prop::collection::vec(units, 0..4).prop_map(|units| format!("\"{}\"", units.concat())).boxed();
    let number = prop_oneof![
        Just("-0".to_owned()),
        "-?(0|[1-9][0-9]{0,40})(\\.[0-9]{1,40})?([eE][+-]?[0-9]{1,3})?",
        (300_usize..320).prop_map(|count| "8".repeat(count)),
    ];
    let leaf = prop_oneof![
        3 => number,
        3 => string.clone(),
        1 => prop::sample::select(vec!["null", "true", "false", "[]", "{ }"]).prop_map(str::to_owned),
        1 => (50_usize..70).prop_map(nested),
    ];
    leaf.prop_recursive(4, 24, 4, move |inner| {
        let member = (string.clone(), inner.clone()).prop_map(|(name, value)| format!("{name}: {value}"));
        prop_oneof![
            prop::collection::vec(inner, 0..4).prop_map(|values| format!("[{}]", values.join(" ,\n"))),
            prop::collection::vec(member, 0..4).prop_map(|members| format!("{{\t{}}}", members.join(","))),
        ]
    })
}

fn runtime() -> Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    /// Messages that a strict parser can read are accepted and returned unchanged; refused ones are not stored.
    #[test]
    fn messages_are_accepted_exactly_if_strict_parsers_can_read_them(body in any_json(), value in any_json()) {
        runtime().block_on(async {
            let api = Api::start().await;
            let (queue, group) = api.queue_and_group("q").await;
            let attributes = format!(r#"{{ "v" :{value} }}"#);
            let message = format!(r#"{{"body":{body},"attributes":{attributes}}}"#);
            let answer = api.post(&format!("{queue}/messages"), &format!(r#"{{"messages":[{message}]}}"#)).await;
            let consumed = api.get(&format!("{group}/messages?time_wait=1")).await;
            // The answer as it would be, read by a strict parser of 63 levels: the deepest body that is taken has 60.
            let within = |text: &str, levels| strict(text).is_ok_and(|_| deepest(text) <= levels);
            let readable = within(&body, 60) && within(&attributes, 60);
            assert_eq!(answer.status.as_u16(), if readable { 201 } else { 400 }, "{message}: {answer:?}");
            if !readable {
                answer.refused(400, "DMS.10540012");
                assert_eq!(consumed.text, "[]");
                return;
            }
            strict(&consumed.text).unwrap_or_else(|error| panic!("{message}: {error}"));
            let expected = format!(r#"[{{"message":{message},"handler":""#);
            assert!(consumed.text.starts_with(&expected), "{message}: {}", consumed.text);
        });
    }
}

/// How deep brackets outside of strings are nested.
fn deepest(text: &str) -> usize {
    let (mut depth, mut most, mut in_string, mut escaped) = (0_usize, 0, false, false);
    for letter in text.chars() {
        match letter {
            _ if escaped => escaped = false,
            '\\' if in_string => escaped = true,
            '"' => in_string = !in_string,
            '[' | '{' if !in_string => {
                depth += 1;
                most = most.max(depth);
            }
            ']' | '}' if !in_string => depth -= 1,
            _ => {}
        }
    }
    most
}
