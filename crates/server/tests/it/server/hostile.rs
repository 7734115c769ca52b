//! Hostile input: every answer is one of the documented ones, never a panic and never a 500.

use axum::body::Body;
use http::{HeaderValue, Request};
use proptest::prelude::*;
use tokio::runtime::Runtime;

use super::{Api, PROJECT, guarded};

fn runtime() -> Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap()
}

/// Sends a request and checks that the server neither broke nor let it in.
async fn is_refused(api: &Api, request: Request<Body>) {
    let shown = format!("{request:?}");
    let answer = api.raw(request).await;
    assert!((400..500).contains(&answer.status.as_u16()), "{shown}: {answer:?}");
    assert!(answer.json().is_object(), "{shown}: {answer:?}");
}

fn config() -> ProptestConfig {
    ProptestConfig { cases: 300, ..ProptestConfig::default() }
}

/// JSON that is nearly a send request: known names, wrong places, odd values.
fn nearly_json() -> impl Strategy<Value = String> {
    let leaf = prop_oneof![
        Just("null".to_owned()),
        Just("true".to_owned()),
        any::<i64>().prop_map(|number| number.to_string()),
        Just("1e999".to_owned()),
        Just("\"\\ud800\"".to_owned()),
        Just("\"\\u0000\"".to_owned()),
        "\"[a-z]{0,5}\"",
        "[\\[\\]{}\",:0-9]{0,6}",
    ];
    let name = prop_oneof![
        Just("messages"),
        Just("message"),
        Just("body"),
        Just("attributes"),
        Just("tags"),
        Just("delay_time"),
        Just("delayTime"),
        Just("handler"),
        Just("status"),
        Just("return_id"),
        Just("name"),
        Just("groups"),
        Just("action"),
        Just("key"),
        Just("value"),
        Just("auth"),
        Just("identity"),
        Just("queue_mode"),
    ];
    leaf.prop_recursive(5, 40, 6, move |inner| {
        let member = (name.clone(), inner.clone()).prop_map(|(name, value)| format!("\"{name}\":{value}"));
        prop_oneof![
            prop::collection::vec(inner, 0..4).prop_map(|values| format!("[{}]", values.join(","))),
            prop::collection::vec(member, 0..5).prop_map(|members| format!("{{{}}}", members.join(","))),
        ]
    })
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn arbitrary_bodies_are_answered(body in prop_oneof![nearly_json().boxed(), ".{0,80}".boxed()]) {
        runtime().block_on(async {
            let api = Api::start().await;
            let (queue, group) = api.queue_and_group("q").await;
            let tags = queue.replace("/queues/", "/queue/");
            for path in [
                "/queues".to_owned(),
                format!("{queue}/groups"),
                format!("{queue}/messages"),
                format!("{group}/ack"),
                format!("{tags}/tags/action"),
                format!("{tags}/tags"),
                "/queue/resource_instances/action".to_owned(),
            ] {
                let answer = api.post(&path, &body).await;
                assert!(answer.status.as_u16() < 500, "{path} {body}: {answer:?}");
                assert!(answer.text.is_empty() || answer.json().is_object(), "{path} {body}: {answer:?}");
            }
            // Accepted messages can be delivered as JSON.
            let consumed = api.consume(&group, "").await;
            assert!(consumed.is_array());
        });
    }

    #[test]
    fn arbitrary_queries_are_answered(query in "[ -~]{0,60}") {
        let uri = format!("/v2/{PROJECT}/queues?{}", query.replace(['#', ' ', '"', '<', '>', '`', '{', '}'], "%"));
        runtime().block_on(async {
            let api = Api::start().await;
            let Ok(request) = Request::builder().uri(&uri).body(Body::empty()) else { return };
            let answer = api.raw(request).await;
            assert!(answer.status.as_u16() < 500, "{uri}: {answer:?}");
        });
    }

    #[test]
    fn arbitrary_consume_queries_are_answered(
        names in prop::collection::vec(
            prop_oneof![Just("max_msgs"), Just("time_wait"), Just("ack_wait"), Just("tag"), Just("x")], 0..6),
        values in prop::collection::vec("[%+&=0-9a-z-]{0,8}", 6),
    ) {
        let pairs: Vec<_> = names.iter().zip(&values).map(|(name, value)| format!("{name}={value}")).collect();
        runtime().block_on(async {
            let api = Api::start().await;
            let (_, group) = api.queue_and_group("q").await;
            let answer = api.get(&format!("{group}/messages?{}", pairs.join("&"))).await;
            assert!(answer.status.as_u16() < 500, "{pairs:?}: {answer:?}");
        });
    }

    #[test]
    fn arbitrary_paths_are_answered(path in "(/[a-z%./0-9~-]{0,20}){0,6}") {
        runtime().block_on(async {
            let api = Api::start().await;
            for prefix in ["", "/v2", "/v1.0", "/v3", "/v2/p/queues", "/v2/p/queue"] {
                let Ok(request) = Request::builder().uri(format!("{prefix}{path}")).body(Body::empty()) else { continue };
                let answer = api.raw(request).await;
                assert!(answer.status.as_u16() < 500, "{prefix}{path}: {answer:?}");
            }
        });
    }

    #[test]
    fn arbitrary_authorization_headers_are_answered(
        text in prop_oneof![
            any::<Vec<u8>>(),
            "SDK-HMAC-SHA256 (Access|Signature|SignedHeaders|=|,|;| |host|x-sdk-date|[0-9a-f]{0,8}){0,12}".prop_map(String::into_bytes),
            "SDK-HMAC-SHA256 Access=CONFORMANCEAK0000001, SignedHeaders=[a-z;-]{0,20}x-sdk-date, Signature=[0-9a-f]{0,70}".prop_map(String::into_bytes),
        ],
        date in any::<Vec<u8>>(),
    ) {
        let (Ok(text), Ok(date)) = (HeaderValue::from_bytes(&text), HeaderValue::from_bytes(&date)) else {
            return Ok(());
        };
        runtime().block_on(async {
            let api = Api::with(guarded()).await;
            let request = Request::builder()
                .uri(format!("/v2/{PROJECT}/queues"))
                .header("authorization", text)
                .header("x-sdk-date", date)
                .body(Body::empty())
                .unwrap();
            is_refused(&api, request).await;
        });
    }

    #[test]
    fn arbitrary_tokens_and_request_ids_are_answered(token in any::<Vec<u8>>()) {
        let Ok(value) = HeaderValue::from_bytes(&token) else { return Ok(()) };
        runtime().block_on(async {
            let api = Api::with(guarded()).await;
            let request = Request::builder()
                .uri(format!("/v2/{PROJECT}/queues"))
                .header("x-auth-token", value.clone())
                .header("x-request-id", value)
                .body(Body::empty())
                .unwrap();
            is_refused(&api, request).await;
        });
    }

    /// Handles cannot be made from handles: any other text is refused, and settles nothing.
    #[test]
    fn forged_receipts_are_refused(garbled in "[A-Za-z0-9_=-]{0,60}", cut in 0_usize..40, other in any::<char>()) {
        runtime().block_on(async {
            let api = Api::start().await;
            let (queue, group) = api.queue_and_group("q").await;
            api.send(&queue, r#"{"body":1}"#).await;
            let consumed = api.consume(&group, "").await;
            let real = consumed[0]["handler"].as_str().unwrap();
            let head: String = real.chars().take(cut).collect();
            for forged in [garbled.clone(), head.clone(), format!("{head}{other}"), format!("{real}{other}")] {
                if forged == real {
                    continue;
                }
                let body = serde_json::json!({ "message": [{ "handler": forged, "status": "success" }] });
                let answer = api.post(&format!("{group}/ack"), &body.to_string()).await;
                assert_eq!(answer.status, 400, "{forged}: {answer:?}");
            }
            assert_eq!(api.ack(&group, &consumed, "success").await.expect(200)["success"], 1);
        });
    }
}

/// Nesting as deep as a request can carry it, everywhere JSON is read.
#[tokio::test(start_paused = true)]
async fn the_deepest_json_is_answered() {
    let api = Api::start().await;
    let (queue, group) = api.queue_and_group("q").await;
    let open = "[".repeat(500_000);
    let closed = format!("{}{}", "[".repeat(250_000), "]".repeat(250_000));
    for deep in [&open, &closed, &open.replace('[', "{\"a\":")] {
        for body in [
            deep.clone(),
            format!(r#"{{"messages":[{{"body":{deep}}}]}}"#),
            format!(r#"{{"messages":[{{"body":1,"attributes":{{"a":{deep}}}}}]}}"#),
            format!(r#"{{"messages":[{{"body":1,"tags":{deep}}}]}}"#),
            format!(r#"{{"message":[{{"handler":"x","status":{deep}}}]}}"#),
            format!(r#"{{"name":"x","unknown":{deep}}}"#),
        ] {
            for path in ["/queues".to_owned(), format!("{queue}/messages"), format!("{group}/ack")] {
                let answer = api.post(&path, &body).await;
                assert!(answer.status.as_u16() < 500, "{path}: {answer:?}");
            }
        }
    }
}
