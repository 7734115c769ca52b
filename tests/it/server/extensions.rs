//! The extensions, each against the literal texts of `docs/api.md`.

use std::time::Duration;

use axum::body::Body;
use dms_worker::server::ServerConfig;
use http::Request;
use serde_json::json;
use tokio::time::Instant;

use super::{Answer, Api, PROJECT, guarded, vector_clock};

/// A consume call with a name.
async fn poll(api: &Api, group: &str, id: &str, seconds: u32) -> Answer {
    let uri = format!("/v2/{PROJECT}{group}/messages?time_wait={seconds}");
    api.raw(Request::get(uri).header("x-dms-poll", id).body(Body::empty()).unwrap()).await
}

async fn without_extensions() -> Api {
    Api::with(ServerConfig { extensions: false, clock: vector_clock(), ..ServerConfig::default() }).await
}

#[tokio::test(start_paused = true)]
async fn every_answer_of_the_message_api_announces_them() {
    let api = Api::start().await;
    let (queue, group) = api.queue_and_group("q").await;
    let foreign = "/queues/00000000-0000-4000-8000-000000000000";
    let answers = [
        api.get("/queues").await,
        api.post("/queues", "{").await,
        api.get(foreign).await,
        api.get("/nowhere").await,
        api.call("PUT", "/queues", "").await,
        api.get(&format!("{group}/messages?time_wait=1")).await,
        api.get(&format!("{group}/messages?time_wait=99")).await,
        api.call("DELETE", &queue, "").await,
    ];
    for answer in answers {
        assert_eq!(answer.headers["x-dms-extensions"], "end-poll", "{answer:?}");
    }
    let refused = Api::with(guarded()).await.get("/queues").await;
    assert_eq!((refused.status.as_u16(), &refused.headers["x-dms-extensions"]), (401, &"end-poll".parse().unwrap()));
    let identity = api.raw(Request::get("/v3").body(Body::empty()).unwrap()).await;
    assert!(!identity.headers.contains_key("x-dms-extensions"));
}

#[tokio::test(start_paused = true)]
async fn a_server_without_them_is_as_the_reference_has_it() {
    let api = without_extensions().await;
    let (_, group) = api.queue_and_group("q").await;
    assert!(!api.get("/queues").await.headers.contains_key("x-dms-extensions"));
    api.post("/polls/end", r#"{"polls":["a"]}"#).await.refused(404, "DMS.10240406");
    let begun = Instant::now();
    assert_eq!(poll(&api, &group, "not a name", 5).await.expect(200), json!([]));
    assert_eq!(begun.elapsed(), Duration::from_secs(5));
}

#[tokio::test(start_paused = true)]
async fn a_waiting_consume_call_is_ended() {
    for prefix in ["/v2", "/v1.0"] {
        let api = Api::start().await;
        let (_, group) = api.queue_and_group("q").await;
        let begun = Instant::now();
        let end = async {
            tokio::time::sleep(Duration::from_secs(3)).await;
            let uri = format!("{prefix}/{PROJECT}/polls/end");
            let body = Body::from(r#"{"polls":["poll-1","poll_2","other"]}"#);
            api.raw(Request::post(uri).body(body).unwrap()).await.text
        };
        let (first, second, ended) =
            tokio::join!(poll(&api, &group, "poll-1", 60), poll(&api, &group, "poll_2", 60), end);
        assert_eq!(ended, r#"{"ended":2}"#);
        assert_eq!((first.text.as_str(), second.text.as_str()), ("[]", "[]"));
        assert_eq!(begun.elapsed(), Duration::from_secs(3));
    }
}

/// The request that ends a call may overtake it.
#[tokio::test(start_paused = true)]
async fn a_call_that_was_ended_before_it_arrived_leases_nothing() {
    let api = Api::start().await;
    let (queue, group) = api.queue_and_group("q").await;
    api.send(&queue, r#"{"body":1}"#).await;
    assert_eq!(api.post("/polls/end", r#"{"polls":["late"]}"#).await.expect(200), json!({ "ended": 0 }));
    let begun = Instant::now();
    assert_eq!(poll(&api, &group, "late", 20).await.expect(200), json!([]));
    assert_eq!(begun.elapsed(), Duration::ZERO);
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(poll(&api, &group, "late", 20).await.expect(200).as_array().unwrap().len(), 1, "it is forgotten");
}

/// Whatever comes first, the end or the message: nobody loses the message.
#[tokio::test(start_paused = true)]
async fn an_ended_call_loses_no_message() {
    let api = Api::start().await;
    let (queue, group) = api.queue_and_group("q").await;
    for round in 0..50 {
        let name = format!("poll-{round}");
        let send = async {
            tokio::time::sleep(Duration::from_secs(1)).await;
            api.send(&queue, r#"{"body":1}"#).await;
        };
        let end = async {
            tokio::time::sleep(Duration::from_secs(1)).await;
            api.post("/polls/end", &format!(r#"{{"polls":["{name}"]}}"#)).await.expect(200);
        };
        let (answer, ..) = tokio::join!(poll(&api, &group, &name, 60), send, end);
        let mut got = answer.expect(200);
        if got == json!([]) {
            got = api.consume(&group, "").await;
        }
        api.ack(&group, &got, "success").await.expect(200);
        assert_eq!(got.as_array().unwrap().len(), 1, "round {round}");
    }
}

#[tokio::test(start_paused = true)]
async fn names_of_calls_are_checked() {
    let api = Api::start().await;
    let (_, group) = api.queue_and_group("q").await;
    let longest = "a".repeat(64);
    assert_eq!(poll(&api, &group, &longest, 1).await.expect(200), json!([]));
    for bad in ["", "a b", "a.b", &"a".repeat(65)] {
        let said = poll(&api, &group, bad, 1).await.refused(400, "DMS.10540010");
        assert!(said.contains("x-dms-poll") && said.contains("1 to 64"), "{said}");
    }
    for (body, code) in [
        ("", "DMS.00400004"),
        ("{", "DMS.10540012"),
        ("{}", "DMS.10540010"),
        (r#"{"polls":"a"}"#, "DMS.10540010"),
        (r#"{"polls":[]}"#, "DMS.10540010"),
        (r#"{"polls":["a","b c"]}"#, "DMS.10540010"),
    ] {
        api.post("/polls/end", body).await.refused(400, code);
    }
    let many = json!({ "polls": vec!["a"; 101] }).to_string();
    api.post("/polls/end", &many).await.refused(400, "DMS.10540010");
    api.get("/polls/end").await.refused(405, "DMS.00405001");
    Api::with(guarded()).await.post("/polls/end", r#"{"polls":["a"]}"#).await.refused(401, "DMS.10240103");
}
