//! Messages by their ids, against the literal texts of `docs/api.md`.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use dms_server::{
    Project, Rights, Server, ServerConfig,
    broker::{GroupPath, NewMessage, Stream},
};
use http::Request;
use serde_json::{Value, json};

use super::{
    Api, ApiResponse, PROJECT,
    broken::{Broken, QUEUE_ID},
    guarded,
};

/// When the clock of the server starts.
const NOW: u64 = 1_795_379_580_000;
const DEADLY: &str = r#"{"name":"orders","redrive_policy":"enable","max_consume_count":1}"#;

/// A queue with the groups `billing` and `audit`, and one message that is a dead letter of `billing`: the queue, the groups, the id.
async fn one_dead(api: &Api) -> (String, [String; 2], String) {
    let queue = api.queue(DEADLY).await;
    let groups = [api.group(&queue, "billing").await, api.group(&queue, "audit").await];
    let body = r#"{"messages":[{"body":{"order":1}}],"return_id":true}"#;
    let sent = api.post(&format!("{queue}/messages"), body).await.expect(201);
    let batch = api.consume(&groups[0], "").await;
    let line = r#""status":"fail","reason":"timed_out","error":"no answer after 20 s","worker":"w""#;
    let failed = format!(r#"{{"message":[{{"handler":{},{line}}}]}}"#, batch[0]["handler"]);
    api.post(&format!("{}/ack", groups[0]), &failed).await.expect(200);
    (queue, groups, sent["messages"][0]["id"].as_str().unwrap().to_owned())
}

#[tokio::test(start_paused = true)]
async fn a_message_is_shown_with_its_state_for_each_group() {
    let api = Api::start().await;
    let (queue, groups, id) = one_dead(&api).await;
    let ids = [&groups[0], &groups[1]].map(|group| group.rsplit('/').next().unwrap());
    let queue = queue.rsplit('/').next().unwrap();
    let shown = api.get(&format!("/messages/{id}")).await.expect(200);
    let message = json!({ "body": { "order": 1 }, "attributes": {} });
    let info = json!({ "reason": "timed_out", "error": "no answer after 20 s", "worker": "w", "attempts": 1,
        "first_failure": NOW, "last_failure": NOW });
    let expected = json!({ "id": id, "complete": true, "places": [
        { "place": "queue", "queue_id": queue, "queue": "orders", "sequence": 1, "entered": NOW, "message": message, "groups": [
            { "group_id": ids[0], "group": "billing", "state": "settled", "failures": 0, "handed_out": 0 },
            { "group_id": ids[1], "group": "audit", "state": "available", "failures": 0, "handed_out": 0 } ] },
        { "place": "dead_letters", "queue_id": queue, "queue": "orders", "sequence": 1, "entered": NOW, "message": message, "groups": [
            { "group_id": ids[0], "group": "billing", "state": "available", "failures": 0, "handed_out": 0, "dead_letter": info } ] } ] });
    assert_eq!(shown, expected);
    let unknown = api.get("/messages/m_RjkDiiQaIPJBFSAAAAAAAR").await.expect(200);
    assert_eq!(unknown["places"], json!([]));
    let said = api.get("/messages/order-7").await.refused(400, "DMS.10540010");
    assert!(said.contains("is no id of a message") && said.contains("an id has 24 characters"), "{said}");
}

/// When the lease of now began, and every lease before it that did not settle the message, with its times and its end.
#[tokio::test(start_paused = true)]
async fn the_attempts_of_a_message_are_shown_with_their_times() {
    let api = Api::start().await;
    let queue = api.queue(r#"{"name":"orders"}"#).await;
    let group = api.group(&queue, "billing").await;
    let sent =
        api.post(&format!("{queue}/messages"), r#"{"messages":[{"body":1}],"return_id":true}"#).await.expect(201);
    let id = sent["messages"][0]["id"].as_str().unwrap();
    let state = async || api.get(&format!("/messages/{id}")).await.expect(200)["places"][0]["groups"][0].take();
    let lease = async || api.consume(&group, "").await[0]["handler"].take();
    let ack = async |handler: &Value, line: &str| {
        let body = format!(r#"{{"message":[{{"handler":{handler},{line}}}]}}"#);
        api.post(&format!("{group}/ack"), &body).await.expect(200);
    };
    let first = lease().await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    ack(&first, r#""status":"fail","reason":"timed_out","error":"no answer","worker":"w""#).await;
    let second = lease().await;
    tokio::time::sleep(Duration::from_secs(3)).await;
    ack(&second, r#""status":"release""#).await;
    lease().await;
    tokio::time::sleep(Duration::from_secs(5)).await;
    let mut shown = state().await;
    let (began, left) = (NOW + 5_000, 25_000);
    assert_eq!((&shown["leased_since"], &shown["left_ms"]), (&json!(began), &json!(left)));
    assert_eq!((&shown["failures"], &shown["handed_out"]), (&json!(1), &json!(3)));
    let mut attempts = vec![
        json!({ "began": NOW, "ended": NOW + 2_000, "end": "failed" }),
        json!({ "began": NOW + 2_000, "ended": NOW + 5_000, "end": "released" }),
    ];
    assert_eq!(shown["attempts"].take(), json!(attempts));
    let failed = |reason: &str, attempts: u32, at: u64| {
        json!({ "reason": reason, "error": "no answer", "worker": "w", "attempts": attempts, "first_failure": NOW + 2_000,
            "last_failure": at })
    };
    assert_eq!(shown["failure"], failed("timed_out", 1, NOW + 2_000));
    tokio::time::sleep(Duration::from_secs(26)).await;
    let mut shown = state().await;
    attempts.push(json!({ "began": began, "ended": began + 30_000, "end": "lease_expired" }));
    assert_eq!(shown["attempts"].take(), json!(attempts));
    assert_eq!(shown["failure"], failed("lease_expired", 2, began + 30_000));
    assert_eq!(
        (&shown["state"], &shown["leased_since"], &shown["handed_out"]),
        (&json!("available"), &Value::Null, &json!(3))
    );
}

#[tokio::test(start_paused = true)]
async fn a_dead_letter_goes_back_to_its_group() {
    let api = Api::start().await;
    let (_, groups, id) = one_dead(&api).await;
    api.ack(&groups[1], &api.consume(&groups[1], "").await, "success").await.expect(200);
    let retry = format!("/messages/{id}/retry");
    let other = groups[1].rsplit('/').next().unwrap();
    api.post(&format!("{retry}?group_id={other}"), "").await.refused(404, "DMS.10240406");
    assert_eq!(api.post(&retry, "").await.text, r#"{"retried":1,"leased":0,"delayed":0}"#);
    api.post(&retry, "").await.refused(404, "DMS.10240406");
    assert_eq!(api.consume(&groups[1], "?time_wait=1").await, json!([]));
    let again = api.consume(&groups[0], "").await;
    assert_eq!(again[0]["message"]["body"], json!({ "order": 1 }));
    assert_eq!(
        api.post(&format!("/messages/{id}/discard"), "").await.text,
        r#"{"discarded":0,"leased":1,"delayed":0}"#
    );
}

/// Its copy, which has the same id, was sent already.
#[tokio::test(start_paused = true)]
async fn the_original_of_an_edited_dead_letter_is_not_retried() {
    let api = Api::start().await;
    let (queue, groups, id) = one_dead(&api).await;
    let last = |path: &str| path.rsplit('/').next().unwrap().to_owned();
    let path = GroupPath { project: PROJECT.into(), queue: last(&queue).into(), group: last(&groups[0]).into() };
    let broker = api.server.broker();
    let dead = broker.peek(&path, Stream::DeadLetters, 1, 1).await.unwrap().remove(0);
    let copy = NewMessage {
        json: r#"{"body":2,"attributes":{}}"#.into(),
        body_bytes: 1,
        tags: vec![],
        delay: Duration::ZERO,
        origin: None,
        deduplication: None,
    };
    broker.edit_dead_letter(&path, dead.sequence, dead.id, copy).await.unwrap();
    let said = api.post(&format!("/messages/{id}/retry"), "").await.refused(404, "DMS.10240406");
    assert!(said.contains("edited and sent again"), "{said}");
    assert_eq!(api.consume(&groups[0], "").await[0]["message"]["body"], json!(2));
}

#[tokio::test(start_paused = true)]
async fn a_message_is_discarded_wherever_it_waits() {
    let api = Api::start().await;
    let (_, groups, id) = one_dead(&api).await;
    let discard = format!("/messages/{id}/discard");
    assert_eq!(api.post(&discard, "").await.text, r#"{"discarded":2,"leased":0,"delayed":0}"#);
    api.post(&discard, "").await.refused(404, "DMS.10240406");
    assert_eq!(api.consume(&groups[1], "?time_wait=1").await, json!([]));
    assert_eq!(api.get(&format!("{}/deadletters?time_wait=1", groups[0])).await.expect(200), json!([]));
}

async fn call(api: &Api, user: &str, method: &str, path: &str, body: &str) -> ApiResponse {
    let identity = json!({ "methods": ["password"], "password": { "user": { "name": user, "password": "pass", "domain": { "name": "d" } } } });
    let log_in = json!({ "auth": { "identity": identity, "scope": { "project": { "id": PROJECT } } } }).to_string();
    let answer = api.raw(Request::post("/v3/auth/tokens").body(log_in.into()).unwrap()).await;
    let token = answer.headers["x-subject-token"].clone();
    let request = Request::builder().method(method).uri(format!("/v2/{PROJECT}{path}")).header("X-Auth-Token", token);
    api.raw(request.body(body.to_owned().into()).unwrap()).await
}

/// A caller who may not consume a queue can neither see nor change its messages.
#[tokio::test(start_paused = true)]
async fn messages_are_found_with_the_right_to_consume_alone() {
    let mut project = Project::new(PROJECT);
    let consume = |queue: &str| Rights::none().consume(vec![queue.to_owned()]);
    let send = Rights::none().send(vec!["*".to_owned()]);
    for (user, rights) in
        [("all", Rights::default()), ("mine", consume("orders")), ("other", consume("x*")), ("sender", send)]
    {
        project = project.user(user, "pass", "d");
        project.users.last_mut().unwrap().rights = rights;
    }
    let api = Api::with(guarded().projects(vec![project])).await;
    let queue = call(&api, "all", "POST", "/queues", DEADLY).await.expect(201)["id"].as_str().unwrap().to_owned();
    let groups = format!("/queues/{queue}/groups");
    call(&api, "all", "POST", &groups, r#"{"groups":[{"name":"g"}]}"#).await.expect(201);
    let body = r#"{"messages":[{"body":1}],"return_id":true}"#;
    let sent = call(&api, "all", "POST", &format!("/queues/{queue}/messages"), body).await.expect(201);
    let path = format!("/messages/{}", sent["messages"][0]["id"].as_str().unwrap());
    let places = async |user| call(&api, user, "GET", &path, "").await.expect(200)["places"].as_array().map(Vec::len);
    assert_eq!((places("mine").await, places("other").await), (Some(1), Some(0)));
    call(&api, "sender", "GET", &path, "").await.refused(403, "DMS.10240311");
    let discard = format!("{path}/discard");
    call(&api, "sender", "POST", &discard, "").await.refused(403, "DMS.10240311");
    call(&api, "other", "POST", &discard, "").await.refused(404, "DMS.10240406");
    assert_eq!(call(&api, "mine", "POST", &discard, "").await.expect(200)["discarded"], Value::from(1));
}

/// A copy keeps the id of its message if its sender may have consumed that one. From others the attribute is an attribute like any
/// other: the message gets a new id, and is not found by the other one.
#[tokio::test(start_paused = true)]
async fn only_a_sender_that_may_consume_a_message_gives_its_id_to_a_copy() {
    let names = |names: &[&str]| names.iter().map(|&name| name.to_owned()).collect::<Vec<_>>();
    let sender = Rights::none().send(names(&["*"]));
    let worker = Rights::none().consume(names(&["orders"])).send(names(&["parked"]));
    let mut project = Project::new(PROJECT);
    for (user, rights) in [("all", Rights::default()), ("sender", sender), ("worker", worker)] {
        project = project.user(user, "pass", "d");
        project.users.last_mut().unwrap().rights = rights;
    }
    let api = Api::with(guarded().projects(vec![project])).await;
    let queue = async |name: &str| {
        let created = call(&api, "all", "POST", "/queues", &format!(r#"{{"name":"{name}"}}"#)).await.expect(201);
        format!("/queues/{}", created["id"].as_str().unwrap())
    };
    let (orders, parked) = (queue("orders").await, queue("parked").await);
    let send = async |user, queue: &str, attributes: String| {
        let body = format!(r#"{{"messages":[{{"body":1,"attributes":{attributes}}}],"return_id":true}}"#);
        let sent = call(&api, user, "POST", &format!("{queue}/messages"), &body).await.expect(201);
        sent["messages"][0]["id"].as_str().unwrap().to_owned()
    };
    let places =
        async |id: &str| call(&api, "all", "GET", &format!("/messages/{id}"), "").await.expect(200)["places"].take();
    let named = |id: &str| format!(r#"{{"dms-message-id":"{id}"}}"#);

    let first = send("all", &orders, "{}".to_owned()).await;
    assert_eq!(send("worker", &parked, named(&first)).await, first);
    assert_eq!(send("all", &parked, named(&first)).await, first);
    assert_eq!(places(&first).await.as_array().unwrap().len(), 3);
    for queue in [&orders, &parked] {
        let claimed = send("sender", queue, named(&first)).await;
        assert_ne!(claimed, first);
        let found = places(&claimed).await;
        assert_eq!(found[0]["message"]["attributes"]["dms-message-id"], first, "the attribute is shown as it was sent");
    }
    assert_eq!(places(&first).await.as_array().unwrap().len(), 3, "nobody else's message is found by the id");
    // Ids of another server: a worker that only sends to a queue might hide messages from its consumers.
    let elsewhere = "m_RjkDiiQaIPJBFSAAAAAAAR";
    assert_ne!(send("worker", &parked, named(elsewhere)).await, elsewhere);
    assert_eq!(send("all", &parked, named(elsewhere)).await, elsewhere);
}

/// An incomplete search does not say that there is no such message.
#[tokio::test(start_paused = true)]
async fn an_incomplete_search_says_how_to_go_on() {
    let api = Api::start().await;
    let (queue, _) = api.queue_and_group("orders").await;
    api.queue_and_group("other").await;
    // The id of a message whose queue is gone, so only copies of it can be found.
    let gone = api.queue(r#"{"name":"gone"}"#).await;
    let sent = r#"{"messages":[{"body":1}],"return_id":true}"#;
    let sent = api.post(&format!("{gone}/messages"), sent).await.expect(201);
    let id = sent["messages"][0]["id"].as_str().unwrap();
    api.call("DELETE", &gone, "").await.expect(204);
    let message = NewMessage {
        json: r#"{"body":1,"attributes":{}}"#.into(),
        body_bytes: 1,
        tags: Vec::new(),
        delay: Duration::ZERO,
        origin: None,
        deduplication: None,
    };
    let queue_id = queue.rsplit('/').next().unwrap();
    let broker = api.server.broker();
    broker.append(&PROJECT.into(), &queue_id.into(), vec![message; 10_000]).await.unwrap();
    api.send(&queue, &format!(r#"{{"body":2,"attributes":{{"dms-message-id":"{id}"}}}}"#)).await;
    let shown = api.get(&format!("/messages/{id}")).await.expect(200);
    assert_eq!((&shown["complete"], &shown["places"]), (&json!(false), &json!([])));
    for change in ["retry", "discard"] {
        let said = api.post(&format!("/messages/{id}/{change}"), "").await.refused(400, "DMS.10540014");
        assert!(said.contains("there are more: add queue_id"), "{said}");
    }
    let discarded = api.post(&format!("/messages/{id}/discard?queue_id={queue_id}"), "").await.text;
    assert_eq!(discarded, r#"{"discarded":1,"leased":0,"delayed":0}"#);
}

/// The change of one group fails after the change of another one was made: the answer says so.
#[tokio::test(start_paused = true)]
async fn a_change_that_succeeds_in_part_names_the_groups_in_which_it_failed() {
    let broker = Arc::new(Broken { has_message: true, ..Broken::default() });
    let api = Api::of(Server::with_broker(ServerConfig::default(), broker.clone()).await.unwrap());
    let discard = "/messages/m_RjkDiiQaIPJBFSAAAAAAAR/discard";
    let answer = api.post(discard, "").await.expect(200);
    let failed = json!([{ "queue_id": QUEUE_ID, "group_id": "g-2", "group": "bad", "error_code": "DMS.10250002",
        "error_msg": "Internal service error. The store failed; try again later." }]);
    assert_eq!(answer, json!({ "discarded": 1, "leased": 0, "delayed": 0, "failed": failed }));
    broker.discards_nothing.store(true, Ordering::Relaxed);
    api.post(discard, "").await.refused(500, "DMS.10250002");
}
