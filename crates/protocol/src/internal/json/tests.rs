//! The grammar against the parser's, and the kinds of faults one by one.

#![allow(clippy::unwrap_used)]

use proptest::prelude::*;
use serde_json::value::RawValue;

use super::*;

/// The result of the parser: the text of the value, if it accepts one.
fn parsed(text: &str) -> Option<&str> {
    serde_json::from_str::<&RawValue>(text).ok().map(RawValue::get)
}

fn scanned(text: &str) -> Option<&str> {
    Scan::whole(text.as_bytes(), Scan::value).ok().map(|value| str::from_utf8(value).unwrap())
}

/// The result of a strict parser: UTF-16 without halves of pairs, numbers as doubles, 60 levels.
fn strict(text: &str) -> bool {
    fn levels(value: &serde_json::Value) -> usize {
        match value {
            serde_json::Value::Array(items) => 1 + items.iter().map(levels).max().unwrap_or(0),
            serde_json::Value::Object(members) => 1 + members.values().map(levels).max().unwrap_or(0),
            _ => 0,
        }
    }
    serde_json::from_str::<serde_json::Value>(text).is_ok_and(|value| levels(&value) <= 60)
}

/// The result of the portable reading.
fn fault(text: &str) -> Option<String> {
    Scan::whole(text.as_bytes(), |scan| scan.portable(60, 0)).err().map(|fault| fault.explain(text.as_bytes()))
}

#[test]
fn values_are_found_as_the_parser_finds_them() {
    for text in [
        "1",
        "-0",
        "01",
        "-",
        "0.",
        "1.5e+3",
        "1e",
        "1E5",
        "00",
        "-01",
        ".5",
        "+1",
        "1 2",
        "true",
        "tru",
        "nulll",
        "false ",
        "NaN",
        "-Infinity",
        "\"\"",
        "\"",
        "\"a\\",
        "\"\\u12\"",
        "\"\\u12g4\"",
        "\"\\u+123\"",
        "\"\\ud800\"",
        "\"\\x\"",
        "\"\\",
        "\"a\nb\"",
        "\"\\\n\"",
        "\"队列\\\"\"",
        "[]",
        "[ ]",
        "[1,]",
        "[,1]",
        "[1 2]",
        "[1,[2,{}],{\"a\":[]}]",
        "{}",
        "{\"a\":1,}",
        "{\"a\"}",
        "{a:1}",
        "{\"a\":1 \"b\":2}",
        " { \"a\" : [ 1 , 2 ] , \"b\" : { } } ",
        "{\"a\":1]",
        "[1}",
        "]",
        "",
        " ",
        "[\"\\\\\"]",
        "\u{7f}",
        "\u{feff}1",
        "[\u{1}]",
    ] {
        assert_eq!(scanned(text), parsed(text), "{text}");
    }
}

#[test]
fn any_depth_is_passed_over() {
    for depth in [127, 128, 129, 1000] {
        for (open, close) in [("[", "]"), ("{\"a\":", "}")] {
            let nested = open.repeat(depth) + "1" + &close.repeat(depth);
            assert_eq!(scanned(&nested), Some(nested.as_str()), "{depth} levels");
            assert_eq!(scanned(&nested[..nested.len() - 1]), None, "{depth} levels, one left open");
            assert_eq!(scanned(&(nested.clone() + close)), None, "{depth} levels, one closed too often");
        }
    }
}

#[test]
fn members_and_items_are_read_in_their_order() {
    let (mut names, mut items) = (Vec::new(), Vec::new());
    let read = Scan::whole(br#" {"a" : [1, "b"], "c":{}, "\u0064" : null } "#, |scan| {
        scan.members(|name, scan| {
            names.push(name.to_vec());
            match &**name {
                b"a" => scan.items(Scan::value).map(|read| items = read),
                b"d" => scan.nullable(Scan::value).map(|value| assert_eq!(value, None)),
                _ => scan.members(|_, _| unreachable!("it is empty")),
            }
        })
    });
    assert_eq!(read, Ok(()));
    assert_eq!((names, items), (vec![b"a".to_vec(), b"c".to_vec(), b"d".to_vec()], vec![&b"1"[..], b"\"b\""]));
    assert!(is_utf8("队".as_bytes()) && !is_utf8(b"\xff"));
}

#[test]
fn a_string_is_what_it_stands_for() {
    for text in
        [r#""""#, r#""plain""#, r#""\"\\\/\b\f\n\r\t""#, r#""a\u0000b\u00e4\u961f\uD83D\ude00!""#, "\"队\\n列\""]
    {
        let string = Scan::whole(text.as_bytes(), Scan::string).unwrap();
        assert_eq!(string, serde_json::from_str::<String>(text).unwrap(), "{text}");
    }
}

/// Half pairs in every position, in values and in names, at any depth.
#[test]
fn half_surrogate_pairs_are_found() {
    for (text, half) in [
        (r#""\ud83d""#, 1),
        (r#""\uDE00""#, 1),
        (r#""ab\ud83d\ud83d\ude00""#, 3),
        (r#""\ud83d\u0041""#, 1),
        (r#""\ud83dx""#, 1),
        (r#""\ud83d\n""#, 1),
        (r#""\ude00\ud83d""#, 1),
        (r#""\ud83d\ude00\ude00""#, 13),
        (r#""\\ud83d \ud83d""#, 9),
        (r#"{"\ud83d":1}"#, 2),
        (r#"[[{"a":{"b\udc00":[]}}]]"#, 10),
        (r#"[1,{"a":["x","\udfff"]}]"#, 14),
    ] {
        let fault = fault(text).unwrap();
        assert!(fault.contains(&format!("at byte {half}, half a surrogate pair")), "{text}: {fault}");
        assert!(!strict(text), "{text}");
    }
    for whole in
        [r#""\ud83d\uDE00""#, r#""\\ud83d""#, r#""\u0000\uffff\ue000\ud7ff""#, r#"{"\udbff\udfff":"\ud800\udc00"}"#]
    {
        assert_eq!(fault(whole), None, "{whole}");
    }
}

#[test]
fn numbers_beyond_a_double_are_found() {
    let digits = |count: usize| "9".repeat(count);
    for text in [
        "1e999",
        "-1e400",
        "1E309",
        "-1.8e308",
        "0.1e310",
        "1e99999999999999999999",
        &digits(309),
        &digits(400),
        &format!("-{}", digits(400)),
        &format!("{}.5", digits(400)),
        &format!("{}e300", digits(10)),
        &format!("[[{{\"a\":[{}]}}]]", digits(400)),
    ] {
        assert!(
            fault(text).is_some_and(
                |fault| fault.contains("1.7976931348623157e308, the range of an IEEE double, are allowed.")
            ),
            "{text}"
        );
        assert!(!strict(text), "{text}");
        assert!(scanned(text).is_some(), "{text}");
    }
    for text in [
        "123456789012345678901234567890",
        "1e3",
        "-0",
        "1e-999",
        "-1e-99999999999999999999",
        "1.7976931348623157e308",
        "0e999",
        &digits(308),
        &format!("1{}", "0".repeat(308)),
        &format!("0.{}", digits(5000)),
        &format!("{}e-300", digits(500)),
    ] {
        assert_eq!(fault(text), None, "{text}");
    }
}

#[test]
fn only_so_many_levels_are_portable() {
    for (open, close) in [("[", "]"), ("{\"a\":", "}")] {
        let nested = |depth: usize| open.repeat(depth) + "1" + &close.repeat(depth);
        assert_eq!(fault(&nested(60)), None);
        let deep = fault(&nested(61)).unwrap();
        assert!(deep.contains("deeper than the 60 levels allowed"), "{deep}");
        assert!(deep.contains(&format!("byte {} opens one more", open.len() * 60)), "{deep}");
        // An empty one is a level too.
        let empty = open.repeat(60) + "[]" + &close.repeat(60);
        assert!(fault(&empty).is_some());
        // Brackets in strings are none, and neighbours do not add up.
        assert_eq!(fault(&format!("[\"{}\"]", "[".repeat(100))), None);
        assert_eq!(fault(&format!("[{}]", vec![nested(59); 3].join(","))), None);
    }
}

/// Every fault names its position, the value and the allowed values.
#[test]
fn faults_name_the_place_the_value_and_the_limit() {
    let read = |text: &[u8]| {
        let fault = Scan::whole(text, |scan| {
            let start = scan.start();
            let mut list = None;
            scan.members(|name, scan| match &**name {
                b"list" => name.once(&mut list, scan.items(Scan::string)?),
                _ => scan.portable(4, 1).map(drop),
            })?;
            list.ok_or_else(|| Fault::missing("list", start))
        });
        fault.unwrap_err().explain(text)
    };
    for (text, said) in [
        ("", "The request is not JSON: the text ends at byte 0, where a value is expected."),
        ("{\"list\":[\"a\"]", "list is not JSON: the text ends at byte 13, where `,` or `}` is expected."),
        ("{\"list\":[\"a\" \"b\"]}", "list[0] is not JSON: `,` or `]` is expected at byte 13, not `\"`."),
        ("{\"list\":[]} x", "The request is not JSON: the end is expected at byte 12, not `x`."),
        ("{list:[]}", "The request is not JSON: a name in quotes is expected at byte 1, not `list`."),
        ("{\"list\":[]x", "list is not JSON: `,` or `}` is expected at byte 10, not `x`."),
        ("{\"a\":{\"b c\":[1,NaN]}}", "a[\"b c\"][1] is not JSON: a value is expected at byte 15, not `NaN`."),
        ("{\"a\":[0,1,01]}", "a[2] is not JSON: `01` at byte 10 is no number."),
        ("{\"a\":\"x\u{7}\"}", "a is not JSON: the control character `\\u{7}` at byte 7 has to be escaped."),
        ("{\"a\":\"\\x\"}", "a is not JSON: the backslash at byte 6 begins no escape: `\\x`."),
        ("{\"a\":\"x", "a is not JSON: the text ends at byte 7, where `\"` is expected."),
        ("{\"list\":{}}", "list is `{}`: an array is expected."),
        ("{\"list\":[\"a\",{\"b\": 1}]}", "list[1] is `{\"b\": 1}`: a string is expected."),
        ("{\"list\":[null]}", "list[0] is `null`: a string is expected."),
        ("{}", "The request has no list."),
        ("[]", "The request is `[]`: an object is expected."),
        ("{\"list\":[],\"list\":[]}", "list is there twice: once is allowed."),
        ("{\"a\":[[[[1]]]]}", "a[0][0][0] nests deeper than the 4 levels allowed: byte 8 opens one more."),
    ] {
        assert_eq!(read(text.as_bytes()), said, "{text}");
    }
    assert_eq!(read(b"{\"a\":{\"b\":\"\xff\"},\"list\":[]}"), "a.b is not UTF-8 at byte 11.");
    let long = format!("{{\"list\":[{}]}}", "1".repeat(1000));
    assert_eq!(read(long.as_bytes()), format!("list[0] is `{}…`: a string is expected.", "1".repeat(80)));
    // A place stays short, however deep it is and however long its names are.
    let deep = format!("{}{}", format!("{{\"{}\":[", "n".repeat(500)).repeat(500), "x");
    let fault = Scan::whole(deep.as_bytes(), Scan::value).unwrap_err();
    let said = fault.explain(deep.as_bytes());
    assert!(said.starts_with(&format!("{}…[0].", "n".repeat(40))) && said.len() < 500, "{said}");
    assert!(said.contains("[0]… is not JSON"), "{said}");
}

/// A syntax error is reported before an error of shape.
#[test]
fn texts_that_are_no_json_are_called_so() {
    let shape = |text: &str| Scan::whole(text.as_bytes(), Scan::string).unwrap_err().is_shape();
    assert!(shape("1") && shape("[]"));
    for text in ["nonsense", "[1", "{\"a\"}", "1 2"] {
        assert!(!shape(text), "{text}");
    }
}

/// Pieces that JSON is made of, good and bad ones.
fn pieces() -> impl Strategy<Value = String> {
    let piece = prop::sample::select(vec![
        "{",
        "}",
        "[",
        "]",
        "\"",
        ":",
        ",",
        "\"a\":",
        "\"\\ud83d\"",
        "\\ud83d",
        "\\ude00",
        "\\u0041",
        "\\n",
        "\\",
        "1",
        "-",
        "0",
        ".5",
        "e9",
        "1e999",
        "E-3",
        "true",
        "false",
        "null",
        "\"x\"",
        " ",
        "\n",
        "\u{1}",
        "队",
        "[[",
        "]]",
    ]);
    prop::collection::vec(piece, 0..16).prop_map(|pieces| pieces.concat())
}

proptest! {
    #[test]
    fn any_text_is_found_as_the_parser_finds_it(text in "[\\[\\]{}\",:\\\\ \\-+.0-9eEutrfalsn\\n队]{0,24}") {
        prop_assert_eq!(scanned(&text), parsed(&text));
        prop_assert_eq!(fault(&text).is_none(), strict(&text));
    }

    #[test]
    fn any_pieces_are_judged_as_the_parser_judges_them(text in pieces()) {
        prop_assert_eq!(scanned(&text), parsed(&text));
        prop_assert_eq!(fault(&text).is_none(), strict(&text), "{:?}", fault(&text));
    }

    #[test]
    fn any_bytes_have_faults_that_can_be_told(bytes in any::<Vec<u8>>(), head in pieces()) {
        let text = [head.as_bytes(), &bytes].concat();
        if let Err(fault) = Scan::whole(&text, |scan| scan.portable(2, 0)) {
            let said = fault.explain(&text);
            prop_assert!(said.len() < 2000 && !said.contains(char::is_control), "{}", said);
            prop_assert!(fault.offset() <= text.len());
        }
    }

    #[test]
    fn strings_are_written_as_the_parser_reads_them(text in any::<String>()) {
        let mut json = Vec::new();
        push_string(&mut json, &text);
        prop_assert_eq!(serde_json::from_slice::<String>(&json).unwrap(), text);
    }

    #[test]
    fn any_string_is_read_as_the_parser_reads_it(units in prop::collection::vec(any::<u16>(), 0..8), text in "\\PC{0,8}") {
        let escapes: String = units.iter().map(|unit| format!("\\u{unit:04X}")).collect();
        let json = format!("{}{escapes}\"", &serde_json::Value::from(text).to_string().strip_suffix('"').unwrap());
        let read = Scan::whole(json.as_bytes(), Scan::string).ok();
        prop_assert_eq!(read.map(|text| text.into_owned()), serde_json::from_str::<String>(&json).ok());
        prop_assert_eq!(fault(&json).is_none(), strict(&json));
    }

    #[test]
    fn any_value_is_found_whole(text in "\\PC{0,30}", number in any::<f64>(), depth in 0..20_usize) {
        let mut value = serde_json::json!({ &text: [number, null, true, &text] });
        for _ in 0..depth {
            value = serde_json::json!([{ &text: value }, {}]);
        }
        let text = serde_json::to_string_pretty(&value).unwrap();
        prop_assert_eq!(scanned(&text), Some(text.as_str()));
    }
}
