//! Every operation against the documents of the API reference, taken literally: the request text in, the fields out.

use serde_json::{Value, json};

use super::{Api, PROJECT};

#[track_caller]
fn keys(value: &Value) -> Vec<&str> {
    let mut keys: Vec<&str> = value.as_object().unwrap().keys().map(String::as_str).collect();
    keys.sort_unstable();
    keys
}

const FIFO: &str = r#"{
  "name": "queue-001",
  "description": "This is a FIFO queue.",
  "queue_mode": "FIFO",
  "redrive_policy": "enable",
  "max_consume_count": 3
}"#;

const KAFKA: &str = r#"{
  "name": "queue-002",
  "description": "This is a Kafka queue.",
  "queue_mode": "KAFKA_HA",
  "retention_hours": 36
}"#;

/// API reference 5.1.1.
#[tokio::test(start_paused = true)]
async fn create_queue_answers_id_and_name() {
    let api = Api::start().await;
    let created = api.post("/queues", FIFO).await.expect(201);
    assert_eq!(keys(&created), ["id", "name"]);
    assert_eq!(created["name"], "queue-001");
    assert_eq!(created["id"].as_str().unwrap().len(), 36);
}

/// API reference 5.1.1, 7.1.1: the topic is `k-{project}-{queue}`.
#[tokio::test(start_paused = true)]
async fn create_kafka_queue_answers_its_topic() {
    let api = Api::start().await;
    let created = api.post("/queues", KAFKA).await.expect(201);
    assert_eq!(keys(&created), ["id", "kafka_topic", "name"]);
    let topic = format!("k-{PROJECT}-{}", created["id"].as_str().unwrap());
    assert_eq!(created["kafka_topic"], topic);
}

/// API reference 5.1.2: the fields, and that the two of dead letters come on request only.
#[tokio::test(start_paused = true)]
async fn list_queues_has_the_documented_fields() {
    let api = Api::start().await;
    api.queue(FIFO).await;
    api.queue(KAFKA).await;
    let list = api.get("/queues?&include_deadletter=true").await.expect(200);
    assert_eq!(keys(&list), ["queues", "total"]);
    assert_eq!(list["total"], 2);
    let by_name = |name: &str| {
        let queues = list["queues"].as_array().unwrap();
        queues.iter().find(|queue| queue["name"] == name).unwrap().clone()
    };
    let fifo = by_name("queue-001");
    let plain = [
        "created",
        "description",
        "eff_date",
        "group_count",
        "id",
        "max_msg_size_byte",
        "name",
        "produced_messages",
        "queue_mode",
        "reservation",
    ];
    assert_eq!(keys(&fifo).len(), plain.len() + 2);
    assert_eq!((&fifo["redrive_policy"], &fifo["max_consume_count"]), (&json!("enable"), &json!(3)));
    assert_eq!((&fifo["reservation"], &fifo["max_msg_size_byte"]), (&json!(4320), &json!(524_288)));
    assert_eq!(fifo["created"], fifo["eff_date"]);
    assert!(fifo["created"].is_i64());
    let kafka = by_name("queue-002");
    assert_eq!(kafka["reservation"], 2160);
    assert_eq!(kafka.get("redrive_policy"), None, "a Kafka queue has no dead letters to speak of");

    let list = api.get("/queues").await.expect(200);
    let fifo = list["queues"].as_array().unwrap().iter().find(|queue| queue["name"] == "queue-001").unwrap();
    assert_eq!(keys(fifo), plain);
}

/// API reference 5.1.3, 5.1.4.
#[tokio::test(start_paused = true)]
async fn show_and_delete_queue() {
    let api = Api::start().await;
    let queue = api.queue(FIFO).await;
    let shown = api.get(&queue).await.expect(200);
    assert_eq!((&shown["name"], &shown["queue_mode"]), (&json!("queue-001"), &json!("FIFO")));
    assert_eq!((&shown["description"], &shown["group_count"]), (&json!("This is a FIFO queue."), &json!(0)));
    let shown = api.get(&format!("{queue}?include_deadletter=true")).await.expect(200);
    assert_eq!(shown["redrive_policy"], "enable");
    let deleted = api.call("DELETE", &queue, "").await;
    assert_eq!((deleted.status.as_u16(), deleted.text.as_str()), (204, ""));
    api.get(&queue).await.refused(404, "DMS.10240401");
}

/// API reference 5.2.1, 5.2.3: groups in the order of the request.
#[tokio::test(start_paused = true)]
async fn create_and_delete_groups() {
    let api = Api::start().await;
    let queue = api.queue(FIFO).await;
    let body = r#"{ "groups": [ { "name": "group-aa" }, { "name": "group-bb" } ] }"#;
    let created = api.post(&format!("{queue}/groups"), body).await.expect(201);
    assert_eq!(created["groups"][0]["name"], "group-aa");
    assert_eq!(created["groups"][1]["name"], "group-bb");
    let id = created["groups"][0]["id"].as_str().unwrap();
    assert!(id.starts_with("g-") && id.len() == 38, "{id}");
    let deleted = api.call("DELETE", &format!("{queue}/groups/{id}"), "").await;
    assert_eq!(deleted.status, 204);
    let list = api.get(&format!("{queue}/groups")).await.expect(200);
    assert_eq!(list["groups"].as_array().unwrap().len(), 1);
}

/// API reference 5.2.2: counters; leased messages are not available (its example: 10 produced, 0 consumed, 8 available).
#[tokio::test(start_paused = true)]
async fn list_groups_counts() {
    let api = Api::start().await;
    let queue = api.queue(FIFO).await;
    let group = api.group(&queue, "group-aa").await;
    for _ in 0..10 {
        api.send(&queue, r#"{"body":"test"}"#).await;
    }
    api.consume(&group, "max_msgs=2").await;
    let list = api.get(&format!("{queue}/groups")).await.expect(200);
    assert_eq!(keys(&list), ["groups", "queue_id", "queue_name"]);
    assert_eq!(list["queue_name"], "queue-001");
    let counts = &list["groups"][0];
    assert_eq!(keys(counts), ["available_messages", "consumed_messages", "id", "name", "produced_messages"]);
    assert_eq!(
        (&counts["produced_messages"], &counts["consumed_messages"], &counts["available_messages"]),
        (&json!(10), &json!(0), &json!(8))
    );
    let list = api.get(&format!("{queue}/groups?include_deadletter=true")).await.expect(200);
    assert_eq!(list["redrive_policy"], "enable");
    assert_eq!(list["groups"][0]["produced_deadletters"], 0);
    assert_eq!(list["groups"][0]["available_deadletters"], 0);
    let list = api.get(&format!("{queue}/groups?include_messages_num=false")).await.expect(200);
    assert_eq!(list["groups"][0]["produced_messages"], 0, "not asked for, not counted");
}

/// API reference 5.2.2: `page_size` and `current_page` both valid, or everything.
#[tokio::test(start_paused = true)]
async fn groups_are_paged_only_by_two_valid_numbers() {
    let api = Api::start().await;
    let queue = api.queue(FIFO).await;
    let body = r#"{"groups":[{"name":"a"},{"name":"b"},{"name":"c"}]}"#;
    api.post(&format!("{queue}/groups"), body).await.expect(201);
    for (query, names) in [
        ("page_size=2&current_page=1", vec!["a", "b"]),
        ("page_size=2&current_page=2", vec!["c"]),
        ("page_size=2&current_page=9", vec![]),
        ("page_size=2", vec!["a", "b", "c"]),
        ("page_size=0&current_page=1", vec!["a", "b", "c"]),
        ("page_size=x&current_page=1", vec!["a", "b", "c"]),
        ("page_size=18446744073709551615&current_page=18446744073709551615", vec![]),
    ] {
        let list = api.get(&format!("{queue}/groups?{query}")).await.expect(200);
        let shown: Vec<_> = list["groups"].as_array().unwrap().iter().map(|g| g["name"].clone()).collect();
        assert_eq!(shown, names, "{query}");
    }
}

/// API reference 5.3.1: the answer has a line per message, `id` only on request.
#[tokio::test(start_paused = true)]
async fn send_answers_a_line_per_message() {
    let api = Api::start().await;
    let (queue, _) = api.queue_and_group("q").await;
    let path = format!("{queue}/messages");
    let sent = api.post(&path, r#"{ "messages": [ { "body": "test" } ] }"#).await.expect(201);
    assert_eq!(sent, json!({ "messages": [{ "error": null, "error_code": null, "state": 0 }] }));
    let sent = api.post(&path, r#"{"messages":[{"body":1},{"body":2}],"return_id":true}"#).await.expect(201);
    let (one, two) = (&sent["messages"][0]["id"], &sent["messages"][1]["id"]);
    assert!(one.is_string() && two.is_string() && one != two, "{sent}");
}

/// API reference 7.1.8: the V1.0 spellings, with `"returnId": "true"` as the example has it.
#[tokio::test(start_paused = true)]
async fn the_v1_example_of_send_is_accepted() {
    let api = Api::start().await.on(&format!("/v1.0/{PROJECT}"));
    let (queue, group) = api.queue_and_group("q").await;
    let body = r#"{
      "messages" : [{
        "body" : "TEST11",
        "attributes" : { "attribute1" : "value1", "attribute2" : "value2" },
        "tags" : ["tag1", "tag2"],
        "delayTime":60000
      }, {
        "body" : { "foo" : "test02" },
        "attributes" : { "attribute1" : "value1", "attribute2" : "value2" },
        "tags" : ["tag1", "tag2"],
        "delayTime":10000
      }],
      "returnId" : "true"
    }"#;
    let sent = api.post(&format!("{queue}/messages"), body).await.expect(201);
    assert!(sent["messages"][1]["id"].is_string(), "{sent}");
    assert_eq!(api.consume(&group, "").await, json!([]), "both are delayed");
    let first = api.get(&format!("{group}/messages?time_wait=20&ack_wait=300")).await.expect(200);
    assert_eq!(first[0]["message"]["body"], json!({ "foo": "test02" }), "due after 10 s");
    let second = api.get(&format!("{group}/messages?time_wait=60")).await.expect(200);
    assert_eq!(second[0]["message"]["body"], "TEST11");
}

/// API reference 5.3.2: a bare array; labels both inside `message` (its tables) and beside it (its examples).
#[tokio::test(start_paused = true)]
async fn consume_answers_a_bare_array() {
    let api = Api::start().await;
    let (queue, group) = api.queue_and_group("q").await;
    let message = r#"{
      "body": { "foo": "123=" },
      "attributes": { "attribute1": "value1", "attribute2": 2 },
      "tags": [ "tag1", "tag2" ]
    }"#;
    api.send(&queue, message).await;
    api.send(&queue, r#"{"body":"plain","tags":["tag2"]}"#).await;
    let consumed = api.consume(&group, "max_msgs=10&ack_wait=30&tag=tag1&tag=tag2&tag_type=or").await;
    assert_eq!(keys(&consumed[0]), ["handler", "message", "tags"]);
    assert_eq!(
        consumed[0]["message"],
        json!({
            "body": { "foo": "123=" },
            "attributes": { "attribute1": "value1", "attribute2": 2 },
            "tags": ["tag1", "tag2"],
        })
    );
    assert_eq!(consumed[0]["tags"], json!(["tag1", "tag2"]));
    assert_eq!(consumed[1]["message"], json!({ "body": "plain", "attributes": {}, "tags": ["tag2"] }));
    assert!(consumed[0]["handler"].as_str().is_some_and(|handler| !handler.is_empty()));
}

/// API reference 5.3.2: without labels there is no `tags`; bodies keep their JSON type and text.
#[tokio::test(start_paused = true)]
async fn bodies_keep_their_text() {
    let api = Api::start().await;
    let (queue, group) = api.queue_and_group("q").await;
    for body in ["null", "0", "-1.50e3", "\"\\u961f\\u5217 \\ud83d\\ude00\"", "[ 1,  2 ]", r#"{"b":1,"a":{"b":2}}"#] {
        api.send(&queue, &format!(r#"{{"body": {body} }}"#)).await;
        let answer = api.get(&format!("{group}/messages?max_msgs=1")).await;
        let text = format!(r#"[{{"message":{{"body":{body},"attributes":{{}}}},"handler":"#);
        assert!(answer.text.starts_with(&text), "{} for {body}", answer.text);
    }
}

/// API reference 5.3.1: attributes keep their types, and of equal names the last one wins.
#[tokio::test(start_paused = true)]
async fn the_last_of_equal_attribute_names_wins() {
    let api = Api::start().await;
    let (queue, group) = api.queue_and_group("q").await;
    api.send(&queue, r#"{"body":1,"attributes":{"a":1,"b":false,"\u0061":"last"}}"#).await;
    let answer = api.get(&format!("{group}/messages")).await;
    assert!(answer.text.contains(r#""attributes":{"b":false,"a":"last"}"#), "{}", answer.text);
}

/// API reference 5.3.3.
#[tokio::test(start_paused = true)]
async fn ack_counts_success_and_fail() {
    let api = Api::start().await;
    let (queue, group) = api.queue_and_group("q").await;
    for body in 0..3 {
        api.send(&queue, &format!(r#"{{"body":{body}}}"#)).await;
    }
    let consumed = api.consume(&group, "").await;
    let first = json!([consumed[0]]);
    let outcome = api.ack(&group, &first, "success").await.expect(200);
    assert_eq!(outcome, json!({ "success": 1, "fail": 2 }), "the example's answer to one handler of three");
    let again = api.consume(&group, "").await;
    assert_eq!(again.as_array().unwrap().len(), 2);
    assert_eq!(api.ack(&group, &again, "success").await.expect(200), json!({ "success": 2, "fail": 0 }));
}

/// API reference 5.3.4, 5.3.5: dead letters come without labels and are acknowledged like messages.
#[tokio::test(start_paused = true)]
async fn dead_letters_have_no_labels() {
    let api = Api::start().await;
    let queue = api.queue(r#"{"name":"q","redrive_policy":"enable","max_consume_count":1}"#).await;
    let group = api.group(&queue, "g").await;
    api.send(&queue, r#"{"body":",\"tags\":[","attributes":{"a":["]}"]},"tags":["x","y-1"]}"#).await;
    api.send(&queue, r#"{"body":{"k":[{"tags":[]}]}}"#).await;
    let consumed = api.consume(&group, "max_msgs=1").await;
    api.ack(&group, &consumed, "fail").await.expect(200);
    let consumed = api.consume(&group, "max_msgs=1").await;
    api.ack(&group, &consumed, "fail").await.expect(200);

    let dead = api.get(&format!("{group}/deadletters?max_msgs=10&time_wait=1&ack_wait=15")).await.expect(200);
    assert_eq!(keys(&dead[0]), ["handler", "message"]);
    assert_eq!(dead[0]["message"], json!({ "body": ",\"tags\":[", "attributes": { "a": ["]}"] } }));
    assert_eq!(dead[1]["message"], json!({ "body": { "k": [{ "tags": [] }] }, "attributes": {} }));
    let acks = json!({ "message": [
        { "handler": dead[0]["handler"], "status": "success" },
        { "handler": dead[1]["handler"], "status": "success" },
    ]});
    let outcome = api.post(&format!("{group}/deadletters/ack"), &acks.to_string()).await.expect(200);
    assert_eq!(outcome, json!({ "success": 2, "fail": 0 }));
}

/// API reference 5.4.
#[tokio::test(start_paused = true)]
async fn tags_are_created_shown_and_deleted() {
    let api = Api::start().await;
    let queue = api.queue(r#"{"name":"q"}"#).await.replace("/queues/", "/queue/");
    let body = r#"{
      "action": "create",
      "tags": [{ "key": "key1", "value": "value1" }, { "key": "key2", "value": "value2" }]
    }"#;
    let created = api.post(&format!("{queue}/tags/action"), body).await;
    assert_eq!((created.status.as_u16(), created.text.as_str()), (204, ""));
    let shown = api.get(&format!("{queue}/tags")).await.expect(200);
    assert_eq!(shown, json!({ "tags": [{ "key": "key1", "value": "value1" }, { "key": "key2", "value": "value2" }] }));
    let shown = api.get("/queue/tags").await.expect(200);
    assert_eq!(shown["tags"][0], json!({ "key": "key1", "values": ["value1"] }));
    let body = r#"{"action":"delete","tags":[{"key":"key1"},{"key":"key2","value":"other"},{"key":"none"}]}"#;
    api.post(&format!("{queue}/tags/action"), body).await.expect(204);
    let shown = api.get(&format!("{queue}/tags")).await.expect(200);
    assert_eq!(shown, json!({ "tags": [{ "key": "key2", "value": "value2" }] }));
}

/// OTC documents: one tag at a time, and finding queues by tags.
#[tokio::test(start_paused = true)]
async fn single_tags_and_search_of_the_otc_documents() {
    let api = Api::start().await.on(&format!("/v1.0/{PROJECT}"));
    let queue = api.queue(r#"{"name":"q-tagged"}"#).await.replace("/queues/", "/queue/");
    api.queue(r#"{"name":"q-bare"}"#).await;
    api.post(&format!("{queue}/tags"), r#"{"tag":{"key":"env","value":"prod"}}"#).await.expect(204);
    let search = |action: &str, values: &str| {
        format!(r#"{{"action":"{action}","limit":"10","offset":"0","tags":[{{"key":"env","values":[{values}]}}]}}"#)
    };
    let path = "/queue/resource_instances/action";
    let found = api.post(path, &search("filter", "\"test\",\"prod\"")).await.expect(200);
    assert_eq!(found["total_count"], 1);
    assert_eq!(found["resources"][0]["resource_name"], "q-tagged");
    assert_eq!(found["resources"][0]["tags"], json!([{ "key": "env", "value": "prod" }]));
    let found = api.post(path, &search("filter", "\"test\"")).await.expect(200);
    assert_eq!(found, json!({ "resources": [], "total_count": 0 }));
    let found = api.post(path, &search("count", "")).await.expect(200);
    assert_eq!(found, json!({ "total_count": 1 }));
    api.call("DELETE", &format!("{queue}/tags/env"), "").await.expect(204);
    api.call("DELETE", &format!("{queue}/tags/env"), "").await.refused(404, "DMS.10240426");
}

/// API reference 5.5.1, 7.1.11.
#[tokio::test(start_paused = true)]
async fn quotas_of_both_versions() {
    let api = Api::start().await;
    api.queue(FIFO).await;
    api.queue(KAFKA).await;
    let quotas = api.get("/quotas").await.expect(200);
    let resources = &quotas["quotas"]["resources"];
    assert_eq!(resources[0], json!({ "type": "queue", "quota": 30, "used": 1, "min": 0, "max": 500 }));
    assert_eq!(resources[1], json!({ "type": "kafkaQueue", "quota": 30, "used": 1 }));
    assert_eq!(resources[2], json!({ "type": "group", "quota": 3, "used": 0, "min": 1, "max": 500 }));
    assert_eq!(resources[3], json!({ "type": "tags", "quota": 10 }));
    let api = api.on(&format!("/v1.0/{PROJECT}"));
    let quotas = api.get("/quotas/dms").await.expect(200);
    let queues = json!([{ "type": "queue", "quota": 30, "used": 1, "min": 0, "max": 500 }]);
    assert_eq!(quotas, json!({ "quotas": { "resources": queues } }));
}

/// Both versions are doors to the same queues.
#[tokio::test(start_paused = true)]
async fn what_v2_creates_v1_shows() {
    let api = Api::start().await;
    let queue = api.queue(FIFO).await;
    let api = api.on(&format!("/v1.0/{PROJECT}"));
    assert_eq!(api.get(&queue).await.expect(200)["name"], "queue-001");
}

/// API reference 3.1: the caller's request id comes back, on success and on failure; without one there is a new one.
#[tokio::test(start_paused = true)]
async fn request_ids_are_echoed() {
    let api = Api::start().await;
    for path in ["/queues", "/nothing"] {
        let uri = format!("/v2/{PROJECT}{path}");
        let request = http::Request::builder().uri(uri).header("X-Request-Id", "mine-1").body("".into()).unwrap();
        assert_eq!(api.raw(request).await.headers["x-request-id"], "mine-1");
    }
    assert_eq!(api.get("/queues").await.headers["x-request-id"].len(), 36);
}
