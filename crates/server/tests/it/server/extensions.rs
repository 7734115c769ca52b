//! The extensions, each against the literal texts of `docs/api.md`.

use std::time::Duration;

use axum::body::Body;
use dms_server::{
    ServerConfig,
    broker::embedded::{EmbeddedConfig, FailureCounting},
};
use http::Request;
use serde_json::{Value, json};
use tokio::time::Instant;

use super::{Api, ApiResponse, PROJECT, guarded, vector_clock};

/// The extensions that a server announces.
const ALL: &str = "end-poll, release, reject, reason, overview, peek, message-id, messages, deduplication, long-delay";

/// A consume call with a name.
async fn poll(api: &Api, group: &str, id: &str, seconds: u32) -> ApiResponse {
    let uri = format!("/v2/{PROJECT}{group}/messages?time_wait={seconds}");
    api.raw(Request::get(uri).header("x-dms-poll", id).body(Body::empty()).unwrap()).await
}

async fn without_extensions() -> Api {
    Api::with(ServerConfig::default().extensions(false).clock(vector_clock())).await
}

#[tokio::test(start_paused = true)]
async fn every_answer_of_the_message_api_announces_the_extensions() {
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
        assert_eq!(answer.headers["x-dms-extensions"], ALL, "{answer:?}");
    }
    let refused = Api::with(guarded()).await.get("/queues").await;
    assert_eq!((refused.status.as_u16(), &refused.headers["x-dms-extensions"]), (401, &ALL.parse().unwrap()));
    let identity = api.raw(Request::get("/v3").body(Body::empty()).unwrap()).await;
    assert!(!identity.headers.contains_key("x-dms-extensions"));
}

#[tokio::test(start_paused = true)]
async fn a_server_without_extensions_follows_the_reference() {
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
async fn names_of_polls_are_checked() {
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

/// A server with a queue that buries at the first failure but `failures`, and `messages` with the bodies 1, 2, 3...
struct Scene {
    api: Api,
    group: String,
}

impl Scene {
    async fn with(config: ServerConfig, max_consume_count: u32, messages: usize) -> Self {
        let api = Api::with(config).await;
        let body = format!(r#"{{"name":"q","redrive_policy":"enable","max_consume_count":{max_consume_count}}}"#);
        let queue = api.queue(&body).await;
        let group = api.group(&queue, "g").await;
        for body in 1..=messages {
            api.send(&queue, &format!(r#"{{"body":{body}}}"#)).await;
        }
        Self { api, group }
    }

    async fn new(max_consume_count: u32, messages: usize) -> Self {
        // The clock stands still where tokio's does.
        let clock = dms_server::clock::Clock::following_tokio(std::time::UNIX_EPOCH + Duration::from_secs(1000));
        Self::with(ServerConfig::default().clock(clock), max_consume_count, messages).await
    }

    async fn take(&self) -> Value {
        self.api.consume(&self.group, "").await
    }

    async fn bodies(&self) -> Vec<Value> {
        self.take().await.as_array().unwrap().iter().map(|one| one["message"]["body"].clone()).collect()
    }

    /// Acknowledges a batch by these lines, each less its handler.
    async fn say(&self, batch: &Value, lines: &[&str]) -> ApiResponse {
        let path = format!("{}/ack", self.group);
        self.api.post(&path, &body(batch, lines)).await
    }

    async fn dead(&self) -> ApiResponse {
        let uri = format!("/v2/{PROJECT}{}/deadletters?time_wait=1", self.group);
        self.api.raw(Request::get(uri).header("x-dms-extensions", "reason").body(Body::empty()).unwrap()).await
    }

    /// The reasons of the dead letters.
    async fn infos(&self) -> Vec<Value> {
        self.dead().await.expect(200).as_array().unwrap().iter().map(|one| one["dead_letter"].clone()).collect()
    }
}

fn body(batch: &Value, lines: &[&str]) -> String {
    let line = |(message, rest): (&Value, &&str)| format!(r#"{{"handler":{},{rest}}}"#, message["handler"]);
    let lines: Vec<String> = batch.as_array().unwrap().iter().zip(lines).map(line).collect();
    format!(r#"{{"message":[{}]}}"#, lines.join(","))
}

const SUCCESS: &str = r#""status":"success""#;
const FAIL: &str = r#""status":"fail""#;
const RELEASE: &str = r#""status":"release""#;
const REJECT: &str = r#""status":"reject""#;

/// With one allowed failure any count would show as a dead letter.
#[tokio::test(start_paused = true)]
async fn released_messages_are_available_at_once_and_uncounted() {
    for counting in [FailureCounting::Culprit, FailureCounting::Batch] {
        for mode in ["NORMAL", "FIFO"] {
            let broker = EmbeddedConfig::default().failure_counting(counting);
            let api = Api::with(ServerConfig::default().broker(broker)).await;
            let created = r#""redrive_policy":"enable","max_consume_count":1"#;
            let queue = api.queue(&format!(r#"{{"name":"q","queue_mode":"{mode}",{created}}}"#)).await;
            let s = Scene { group: api.group(&queue, "g").await, api };
            for body in 1..=4 {
                s.api.send(&queue, &format!(r#"{{"body":{body}}}"#)).await;
            }
            let batch = s.take().await;
            let answer = s.say(&batch, &[SUCCESS, RELEASE, SUCCESS, FAIL]).await;
            assert_eq!(answer.text, r#"{"success":1,"fail":3}"#);
            let again = s.take().await;
            assert_eq!(s.say(&again, &[RELEASE]).await.text, r#"{"success":0,"fail":3}"#);
            assert_eq!(s.bodies().await, [2, 3, 4]);
            assert_eq!(s.infos().await, [Value::Null; 0]);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_rejected_message_is_a_dead_letter_at_once() {
    let s = Scene::new(9, 4).await;
    let batch = s.take().await;
    let why = r#""status":"reject","reason":"undecodable","error":"no \u00dc at 1:2","worker":"orders@a","first_failure":5,"last_failure":7"#;
    let answer = s.say(&batch, &[SUCCESS, why, SUCCESS, REJECT]).await;
    assert_eq!(answer.text, r#"{"success":4,"fail":0}"#);
    assert_eq!(s.bodies().await, [0; 0]);
    let dead = s.dead().await;
    let handlers: Vec<Value> = dead.json().as_array().unwrap().iter().map(|one| one["handler"].clone()).collect();
    let expected = format!(
        r#"[{{"message":{{"body":2,"attributes":{{}}}},"handler":{},"dead_letter":{}}},{{"message":{{"body":4,"attributes":{{}}}},"handler":{},"dead_letter":{}}}]"#,
        handlers[0],
        r#"{"attempts":1,"error":"no Ü at 1:2","first_failure":5,"last_failure":7,"reason":"undecodable","worker":"orders@a"}"#,
        handlers[1],
        r#"{"attempts":1,"first_failure":1000000,"last_failure":1000000,"reason":"rejected"}"#,
    );
    assert_eq!(dead.text, expected);
}

/// The acknowledgement ends at the first message that is neither done nor rejected; a later rejection has no effect.
#[tokio::test(start_paused = true)]
async fn messages_after_a_failure_are_not_rejected() {
    let s = Scene::new(9, 3).await;
    let batch = s.take().await;
    assert_eq!(s.say(&batch, &[SUCCESS, FAIL, REJECT]).await.text, r#"{"success":1,"fail":2}"#);
    assert_eq!(s.bodies().await, [2, 3]);
    assert_eq!(s.infos().await, [Value::Null; 0]);
}

#[tokio::test(start_paused = true)]
async fn a_queue_without_dead_letters_rejects_nothing() {
    let api = Api::start().await;
    let (queue, group) = api.queue_and_group("q").await;
    api.send(&queue, r#"{"body":1}"#).await;
    api.send(&queue, r#"{"body":2}"#).await;
    let s = Scene { api, group };
    let batch = s.take().await;
    let said = s.say(&batch, &[SUCCESS, REJECT]).await.refused(400, "DMS.10540003");
    assert!(said.contains("redrive_policy"), "{said}");
    assert_eq!(s.say(&batch, &[SUCCESS, SUCCESS]).await.text, r#"{"success":2,"fail":0}"#, "nothing was changed");

    let s = Scene::new(1, 1).await;
    s.say(&s.take().await, &[FAIL]).await.expect(200);
    let dead = s.dead().await.json();
    let path = format!("{}/deadletters/ack", s.group);
    let said = s.api.post(&path, &body(&dead, &[REJECT])).await.refused(400, "DMS.10540003");
    assert!(said.contains("success"), "{said}");
    assert_eq!(s.api.post(&path, &body(&dead, &[RELEASE])).await.text, r#"{"success":0,"fail":1}"#);
    assert_eq!(s.infos().await[0]["reason"], "failed", "it is there again, and its reason with it");
}

/// Every dead letter says why it is one.
#[tokio::test(start_paused = true)]
async fn a_dead_letter_keeps_its_reason() {
    let s = Scene::new(2, 1).await;
    let why = r#""status":"fail","reason":"timed_out","error":"no answer","worker":"w""#;
    s.say(&s.take().await, &[why]).await.expect(200);
    tokio::time::sleep(Duration::from_secs(10)).await;
    s.say(&s.take().await, &[r#""status":"fail","reason":"panicked""#]).await.expect(200);
    let info = json!({ "reason": "panicked", "attempts": 2, "first_failure": 1_000_000, "last_failure": 1_010_000 });
    assert_eq!(s.infos().await, [info]);

    let s = Scene::new(1, 2).await;
    s.take().await;
    tokio::time::sleep(Duration::from_secs(31)).await;
    let lapsed =
        json!({ "reason": "lease_expired", "attempts": 1, "first_failure": 1_030_000, "last_failure": 1_030_000 });
    assert_eq!(s.infos().await, [lapsed.clone(), lapsed]);

    // A lease that ends says nothing of the error before it; it is kept.
    let s = Scene::new(2, 1).await;
    s.say(&s.take().await, &[why]).await.expect(200);
    s.take().await;
    tokio::time::sleep(Duration::from_secs(31)).await;
    let info = &s.infos().await[0];
    assert_eq!((&info["reason"], &info["error"]), (&json!("lease_expired"), &json!("no answer")));

    let broker = EmbeddedConfig::default().failure_counting(FailureCounting::Batch);
    let s = Scene::with(ServerConfig::default().broker(broker), 1, 2).await;
    s.say(&s.take().await, &[FAIL]).await.expect(200);
    let reasons: Vec<Value> = s.infos().await.iter().map(|info| info["reason"].clone()).collect();
    assert_eq!(reasons, ["failed", "batch_failed"]);
}

/// A client that does not ask gets the documented answer.
#[tokio::test(start_paused = true)]
async fn reasons_are_shown_on_request() {
    let s = Scene::new(1, 1).await;
    s.say(&s.take().await, &[FAIL]).await.expect(200);
    let plain = s.api.get(&format!("{}/deadletters?time_wait=1", s.group)).await;
    assert!(!plain.text.contains("dead_letter") && plain.text.contains("body"), "{plain:?}");
    s.api.post(&format!("{}/deadletters/ack", s.group), &body(&plain.json(), &[FAIL])).await.expect(200);
    assert_eq!(s.infos().await[0]["reason"], "failed");
}

#[tokio::test(start_paused = true)]
async fn the_members_of_a_failure_are_checked() {
    let s = Scene::new(1, 1).await;
    let batch = s.take().await;
    let long = "r".repeat(65);
    for (members, place) in [
        (r#""reason":"Two words""#.to_owned(), "message[0].reason"),
        (format!(r#""reason":"{long}""#), "message[0].reason"),
        (r#""reason":"""#.to_owned(), "message[0].reason"),
        (r#""reason":7"#.to_owned(), "message[0].reason"),
        (r#""error":["x"]"#.to_owned(), "message[0].error"),
        (r#""error":"\ud83d""#.to_owned(), "message[0].error"),
        (r#""worker":{}"#.to_owned(), "message[0].worker"),
        (r#""first_failure":"yesterday""#.to_owned(), "message[0].first_failure"),
        (r#""last_failure":-1"#.to_owned(), "message[0].last_failure"),
        (r#""last_failure":1.5"#.to_owned(), "message[0].last_failure"),
        (r#""last_failure":18446744073709551615"#.to_owned(), "message[0].last_failure"),
    ] {
        for status in [FAIL, REJECT] {
            let said = s.say(&batch, &[&format!("{status},{members}")]).await.refused(400, "DMS.10540010");
            assert!(said.contains(place), "{said}");
        }
    }
    // Texts are cut between characters, and null is nothing.
    let long = format!(r#"{FAIL},"reason":null,"error":"x{}","worker":"{}""#, "é".repeat(600), "w".repeat(200));
    s.say(&batch, &[&long]).await.expect(200);
    let info = s.infos().await.remove(0);
    assert_eq!(info["reason"], "failed");
    assert_eq!(info["error"].as_str().unwrap(), format!("x{}", "é".repeat(511)));
    assert_eq!(info["worker"].as_str().unwrap().len(), 128);
}

/// A service of before the extensions knows two words, and passes over members that it does not know.
#[tokio::test(start_paused = true)]
async fn a_server_without_extensions_accepts_only_success_and_fail() {
    let s = Scene::with(ServerConfig::default().extensions(false), 1, 1).await;
    let batch = s.take().await;
    for status in [RELEASE, REJECT] {
        s.say(&batch, &[status]).await.refused(400, "DMS.10540003");
    }
    s.say(&batch, &[r#""status":"fail","reason":7,"error":[]"#]).await.expect(200);
    let dead = s.dead().await;
    assert!(dead.text.contains("body") && !dead.text.contains("dead_letter"), "{dead:?}");
}

/// Asks for the ids of messages, and returns each body with the member `id`.
async fn ids(api: &Api, path: &str) -> Vec<(Value, Value)> {
    let uri = format!("/v2/{PROJECT}{path}?time_wait=1");
    let request = Request::get(uri).header("x-dms-extensions", "message-id, reason").body(Body::empty()).unwrap();
    let answer = api.raw(request).await.expect(200);
    let one = |message: &Value| (message["message"]["body"].clone(), message["id"].clone());
    answer.as_array().unwrap().iter().map(one).collect()
}

/// Every consumer sees the id that the send returned: after a delay, a redelivery, and as a dead letter.
#[tokio::test(start_paused = true)]
async fn a_message_has_one_id_for_its_whole_life() {
    let api = Api::start().await;
    let create = r#"{"name":"q","redrive_policy":"enable","max_consume_count":2}"#;
    let queue = format!("/queues/{}", api.post("/queues", create).await.expect(201)["id"].as_str().unwrap());
    let created = api.post(&format!("{queue}/groups"), r#"{"groups":[{"name":"g"}]}"#).await.expect(201);
    let group = format!("{queue}/groups/{}", created["groups"][0]["id"].as_str().unwrap());
    let body = r#"{"messages":[{"body":1},{"body":2,"delay_time":5000},{"body":3},{"body":4,"delay_time":3000}],"return_id":true}"#;
    let sent = api.post(&format!("{queue}/messages"), body).await.expect(201);
    let id = |body: usize| sent["messages"][body - 1]["id"].clone();
    let distinct: std::collections::BTreeSet<_> = (1..=4).map(|body| id(body).to_string()).collect();
    assert_eq!(distinct.len(), 4, "{sent}");
    assert!(id(1).as_str().is_some_and(|id| id.len() == 24), "{sent}");

    let seen = |bodies: &[usize]| bodies.iter().map(|body| (json!(body), id(*body))).collect::<Vec<_>>();
    let messages = format!("{group}/messages");
    assert_eq!(ids(&api, &messages).await, seen(&[1, 3]));
    tokio::time::sleep(Duration::from_secs(31)).await;
    assert_eq!(ids(&api, &messages).await, seen(&[1, 3, 4, 2]), "redelivered, and after their delays");
    tokio::time::sleep(Duration::from_secs(31)).await;
    let dead = format!("{group}/deadletters");
    assert_eq!(ids(&api, &dead).await, seen(&[1, 3]), "two leases have ended");
    assert_eq!(ids(&api, &messages).await, seen(&[4, 2]));
    tokio::time::sleep(Duration::from_secs(31)).await;
    assert_eq!(ids(&api, &dead).await, seen(&[1, 3, 4, 2]));
    tokio::time::sleep(Duration::from_secs(31)).await;
    let plain = api.get(&format!("{dead}?time_wait=1")).await;
    assert!(plain.text.contains("body") && !plain.text.contains("\"id\""), "{plain:?}");
}

/// A copy names the message that it was made from, and keeps its id.
#[tokio::test(start_paused = true)]
async fn a_copy_keeps_the_id_of_its_message() {
    let api = Api::start().await;
    let (queue, group) = api.queue_and_group("q").await;
    let send = async |message: String| {
        let body = format!(r#"{{"messages":[{message}],"return_id":true}}"#);
        api.post(&format!("{queue}/messages"), &body).await.expect(201)["messages"][0]["id"].clone()
    };
    let first = send(r#"{"body":1}"#.to_owned()).await;
    let copy = send(format!(r#"{{"body":2,"attributes":{{"dms-message-id":{first}}},"delay_time":2000}}"#)).await;
    let other = send(r#"{"body":3,"attributes":{"dms-message-id":"order 7"}}"#.to_owned()).await;
    assert_eq!(copy, first);
    assert_ne!(other, first);
    let messages = format!("{group}/messages");
    assert_eq!(ids(&api, &messages).await, [(json!(1), first.clone()), (json!(3), other)]);
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert_eq!(ids(&api, &messages).await, [(json!(2), first)]);
}

#[tokio::test(start_paused = true)]
async fn a_server_without_extensions_shows_no_ids_to_consumers() {
    let s = Scene::with(ServerConfig::default().extensions(false), 1, 1).await;
    assert_eq!(ids(&s.api, &format!("{}/messages", s.group)).await, [(json!(1), Value::Null)]);
}

/// The literal texts of `docs/api.md`.
#[tokio::test(start_paused = true)]
async fn a_message_with_a_deduplication_key_is_stored_once() {
    let api = Api::start().await;
    let (queue, group) = api.queue_and_group("q").await;
    let path = format!("{queue}/messages");
    let send = async |members: &str| {
        let body = format!(r#"{{"messages":[{{"body":1,{members}}},{{"body":2}}],"return_id":true}}"#);
        api.post(&path, &body).await.expect(201)["messages"].clone()
    };
    let key = r#""deduplication_key":"order-7","deduplication_window":60000"#;
    let (first, again) = (send(key).await, send(key).await);
    assert_eq!(again[0]["id"], first[0]["id"]);
    assert_eq!(
        again[0],
        json!({ "error": null, "error_code": null, "state": 0, "id": first[0]["id"], "duplicate": true })
    );
    assert!(first[0].get("duplicate").is_none() && again[1].get("duplicate").is_none());
    let without_ids = api.post(&path, &format!(r#"{{"messages":[{{"body":1,{key}}}]}}"#)).await;
    assert_eq!(without_ids.text, r#"{"messages":[{"error":null,"error_code":null,"state":0,"duplicate":true}]}"#);
    let bodies = |batch: &Value| {
        batch.as_array().unwrap().iter().map(|message| message["message"]["body"].clone()).collect::<Vec<_>>()
    };
    assert_eq!(bodies(&api.consume(&group, "").await), [1, 2, 2]);
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert!(send(key).await[0].get("duplicate").is_none(), "the window is over");
    let said =
        api.post(&path, r#"{"messages":[{"body":1,"deduplication_window":60000}]}"#).await.refused(400, "DMS.10540010");
    assert!(said.contains("a deduplication key is needed"), "{said}");
}

#[tokio::test(start_paused = true)]
async fn a_server_without_extensions_passes_over_deduplication_keys() {
    let api = without_extensions().await;
    let (queue, group) = api.queue_and_group("q").await;
    for _ in 0..2 {
        api.send(&queue, r#"{"body":1,"deduplication_key":"k","deduplication_window":"any"}"#).await;
    }
    assert_eq!(api.consume(&group, "").await.as_array().unwrap().len(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_long_delay_has_to_be_asked_for() {
    for (extensions, header, most) in
        [(true, "long-delay", 31_622_400_000_u64), (true, "reason", 604_800_000), (false, "long-delay", 604_800_000)]
    {
        let api = Api::with(ServerConfig::default().extensions(extensions).clock(vector_clock())).await;
        let (queue, _) = api.queue_and_group("q").await;
        let send = async |delay: u64| {
            let body = format!(r#"{{"messages":[{{"body":1,"delay_time":{delay}}}]}}"#);
            let uri = format!("/v2/{PROJECT}{queue}/messages");
            api.raw(Request::post(uri).header("x-dms-extensions", header).body(Body::from(body)).unwrap()).await
        };
        send(most).await.expect(201);
        let said = send(most + 1).await.refused(400, "DMS.10540010");
        assert!(said.contains(&format!("0 to {most} ms")), "{said}");
    }
}
