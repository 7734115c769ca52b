//! Every documented error: what causes it, its status, its code (API reference 8.2).

use std::time::Duration;

use axum::body::Body;
use dms_server::ServerConfig;
use http::Request;

use super::{Api, PROJECT, vector_clock};

const UUID: &str = "9bf46390-38a2-462d-b392-4d5b2d519c55";

/// API reference 5.1.1 and its codes.
#[tokio::test(start_paused = true)]
async fn invalid_queue_requests_are_refused() {
    let api = Api::start().await;
    let long = "x".repeat(65);
    let described = |text: &str| format!(r#"{{"name":"q","description":"{text}"}}"#);
    for (body, code) in [
        ("".to_owned(), "DMS.00400004"),
        ("{".to_owned(), "DMS.10240009"),
        ("[]".to_owned(), "DMS.10240009"),
        ("{}".to_owned(), "DMS.10240009"),
        (r#"{"name":7}"#.to_owned(), "DMS.10240009"),
        (r#"{"name":""}"#.to_owned(), "DMS.10240011"),
        (format!(r#"{{"name":"{long}"}}"#), "DMS.10240011"),
        (r#"{"name":"a b"}"#.to_owned(), "DMS.10240007"),
        (r#"{"name":"队列"}"#.to_owned(), "DMS.10240007"),
        (described(&"x".repeat(161)), "DMS.10240013"),
        (described("<b>"), "DMS.10240010"),
        (r#"{"name":"q","queue_mode":"normal"}"#.to_owned(), "DMS.00400062"),
        (r#"{"name":"q","redrive_policy":"on"}"#.to_owned(), "DMS.00400062"),
        (r#"{"name":"q","redrive_policy":"enable"}"#.to_owned(), "DMS.10240022"),
        (r#"{"name":"q","redrive_policy":"enable","max_consume_count":0}"#.to_owned(), "DMS.10240022"),
        (r#"{"name":"q","redrive_policy":"enable","max_consume_count":101}"#.to_owned(), "DMS.10240022"),
        (r#"{"name":"q","redrive_policy":"enable","max_consume_count":"3"}"#.to_owned(), "DMS.10240022"),
        (r#"{"name":"q","redrive_policy":"enable","max_consume_count":2.5}"#.to_owned(), "DMS.10240022"),
        (r#"{"name":"q","queue_mode":"KAFKA_HT","retention_hours":1.5}"#.to_owned(), "DMS.10240027"),
        (r#"{"name":"q","retention_hours":36}"#.to_owned(), "DMS.10240028"),
        (r#"{"name":"q","queue_mode":"KAFKA_HT","retention_hours":0}"#.to_owned(), "DMS.10240027"),
        (r#"{"name":"q","queue_mode":"KAFKA_HA","retention_hours":73}"#.to_owned(), "DMS.10240027"),
        (
            r#"{"name":"q","queue_mode":"KAFKA_HA","redrive_policy":"enable","max_consume_count":3}"#.to_owned(),
            "DMS.00400062",
        ),
    ] {
        api.post("/queues", &body).await.refused(400, code);
    }
    api.queue(r#"{"name":"q"}"#).await;
    let text = api.post("/queues", r#"{"name":"q"}"#).await.refused(400, "DMS.10240017");
    assert!(text.starts_with("The queue already exists."), "{text}");
    let limits = [described(&"x".repeat(160)), format!(r#"{{"name":"{}"}}"#, "x".repeat(64))];
    for body in limits.map(|body| body.replace("\"q\"", "\"q2\"")) {
        api.post("/queues", &body).await.expect(201);
    }
}

/// API reference 5.1.1: 30 queues of a project, Kafka queues counted apart (5.5.1).
#[tokio::test(start_paused = true)]
async fn the_thirty_first_queue_is_refused() {
    let api = Api::start().await;
    for number in 0..30 {
        api.queue(&format!(r#"{{"name":"q{number}"}}"#)).await;
    }
    api.post("/queues", r#"{"name":"more"}"#).await.refused(400, "DMS.10240020");
    api.queue(r#"{"name":"kafka","queue_mode":"KAFKA_HA"}"#).await;
}

/// Ids of the wrong form, and ids of nothing: on every path that names a queue or a group.
#[tokio::test(start_paused = true)]
async fn invalid_queue_and_group_ids_are_refused() {
    let api = Api::start().await;
    let (queue, group) = api.queue_and_group("q").await;
    for (method, path) in
        [("GET", "/queues/{q}"), ("DELETE", "/queues/{q}"), ("GET", "/queues/{q}/groups"), ("GET", "/queue/{q}/tags")]
    {
        let path = |id| path.replace("{q}", id);
        api.call(method, &path("orders"), "").await.refused(400, "DMS.10240015");
        api.call(method, &path("%2e%2e"), "").await.refused(400, "DMS.10240015");
        api.call(method, &path(UUID), "").await.refused(404, "DMS.10240401");
    }
    for (method, path, body) in [
        ("GET", "messages?time_wait=1", ""),
        ("GET", "deadletters?time_wait=1", ""),
        ("POST", "ack", r#"{"message":[{"handler":"x","status":"success"}]}"#),
        ("POST", "deadletters/ack", r#"{"message":[{"handler":"x","status":"success"}]}"#),
    ] {
        let id = group.rsplit('/').next().unwrap();
        let path = |queue: &str, group: &str| format!("{queue}/groups/{group}/{path}");
        api.call(method, &path("/queues/orders", id), body).await.refused(400, "DMS.10240015");
        api.call(method, &path(&format!("/queues/{UUID}"), id), body).await.refused(404, "DMS.10240401");
        api.call(method, &path(&format!("/queues/{UUID}"), "g"), body).await.refused(404, "DMS.10240401");
        api.call(method, &path(&queue, "g"), body).await.refused(400, "DMS.10240016");
        api.call(method, &path(&queue, &format!("g-{UUID}")), body).await.refused(404, "DMS.10240405");
    }
    api.call("DELETE", &format!("{queue}/groups/g-{UUID}"), "").await.refused(404, "DMS.10240405");
}

/// API reference 5.2.1 and its codes.
#[tokio::test(start_paused = true)]
async fn invalid_group_requests_are_refused() {
    let api = Api::start().await;
    let queue = api.queue(r#"{"name":"q"}"#).await;
    let path = format!("{queue}/groups");
    let named = |name: &str| format!(r#"{{"groups":[{{"name":"{name}"}}]}}"#);
    for (body, code) in [
        ("".to_owned(), "DMS.00400004"),
        ("{}".to_owned(), "DMS.10240009"),
        (r#"{"groups":[]}"#.to_owned(), "DMS.00400062"),
        (r#"{"groups":[{}]}"#.to_owned(), "DMS.10240009"),
        (named(""), "DMS.10240012"),
        (named(&"x".repeat(33)), "DMS.10240012"),
        (named("a.b"), "DMS.10240007"),
        (r#"{"groups":[{"name":"a"},{"name":"a"}]}"#.to_owned(), "DMS.10240018"),
        (r#"{"groups":[{"name":"a"},{"name":"b"},{"name":"c"},{"name":"d"}]}"#.to_owned(), "DMS.10240019"),
    ] {
        api.post(&path, &body).await.refused(400, code);
    }
    let three = r#"{"groups":[{"name":"a"},{"name":"b"},{"name":"c"}]}"#;
    api.post(&path, three).await.expect(201);
    api.post(&path, &named("d")).await.refused(400, "DMS.10240019");
    let other = api.queue(r#"{"name":"other"}"#).await;
    api.group(&other, "a").await;
    api.post(&format!("{other}/groups"), &named("a")).await.refused(400, "DMS.10240018");
}

/// API reference 5.3.1 and its codes. A bad message refuses the whole request.
#[tokio::test(start_paused = true)]
async fn invalid_send_requests_are_refused() {
    let api = Api::start().await;
    let (queue, group) = api.queue_and_group("q").await;
    let path = format!("{queue}/messages");
    let one = |message: &str| format!(r#"{{"messages":[{{"body":1}},{message}]}}"#);
    let deep = "[".repeat(129) + &"]".repeat(129);
    for (body, code) in [
        ("".to_owned(), "DMS.00400004"),
        ("nonsense".to_owned(), "DMS.10540012"),
        ("{}".to_owned(), "DMS.10540010"),
        (r#"{"messages":[]}"#.to_owned(), "DMS.10540010"),
        (format!(r#"{{"messages":[{}]}}"#, [r#"{"body":1}"#; 11].join(",")), "DMS.10540010"),
        (one("{}"), "DMS.10540010"),
        (one("7"), "DMS.10540010"),
        (one(r#"{"body":1,"attributes":[]}"#), "DMS.10540010"),
        (one(r#"{"body":1,"tags":"a"}"#), "DMS.10540010"),
        (one(r#"{"body":1,"tags":["a","b","c","d"]}"#), "DMS.10240004"),
        (one(r#"{"body":1,"tags":[""]}"#), "DMS.10240004"),
        (one(r#"{"body":1,"tags":["a b"]}"#), "DMS.10240004"),
        (one(&format!(r#"{{"body":1,"tags":["{}"]}}"#, "x".repeat(65))), "DMS.10240004"),
        (one(r#"{"body":1,"delay_time":-1}"#), "DMS.10540010"),
        (one(r#"{"body":1,"delay_time":604800001}"#), "DMS.10540010"),
        (one(r#"{"body":1,"delay_time":1e300}"#), "DMS.10540010"),
        (one(r#"{"body":1,"delay_time":"5"}"#), "DMS.10540010"),
        (one(&format!(r#"{{"body":{deep}}}"#)), "DMS.10540012"),
        (one(&format!(r#"{{"body":1,"attributes":{{"a":{deep}}}}}"#)), "DMS.10540012"),
        (r#"{"messages":[{"body":1}],"return_id":"maybe"}"#.to_owned(), "DMS.10540010"),
    ] {
        api.post(&path, &body).await.refused(400, code);
    }
    assert_eq!(api.consume(&group, "").await, serde_json::json!([]), "nothing of them was stored");
    for message in [
        r#"{"body":1,"tags":["a","b","c"],"delay_time":604800000,"later":"field"}"#,
        r#"{"body":1,"attributes":null,"tags":null,"delay_time":null}"#,
        r#"{"body":1,"delay_time":6000.9}"#,
    ] {
        api.send(&queue, message).await;
    }
}

/// API reference 5.3.1: 512 KB of bodies, and the text of DMS.10540011 with both numbers.
#[tokio::test(start_paused = true)]
async fn too_large_sends_are_refused() {
    let api = Api::start().await;
    let (queue, group) = api.queue_and_group("q").await;
    let path = format!("{queue}/messages");
    // A JSON string of n characters has n + 2 bytes.
    let request = |sizes: &[usize]| {
        let bodies: Vec<_> = sizes.iter().map(|size| format!(r#"{{"body":"{}"}}"#, "x".repeat(size - 2))).collect();
        format!(r#"{{"messages":[{}]}}"#, bodies.join(","))
    };
    let text = api.post(&path, &request(&[300_000, 300_000])).await.refused(400, "DMS.10540011");
    assert_eq!(text, "The message size is 600000, larger than the size limit 524288.");
    api.post(&path, &request(&[524_289])).await.refused(400, "DMS.10540011");
    api.post(&path, &request(&[2_000_000])).await.refused(400, "DMS.10540011");
    api.post(&path, &request(&[13_000_000])).await.refused(413, "APIGW.0201");
    api.post(&path, &request(&[524_288])).await.expect(201);
    for _ in 0..3 {
        api.post(&path, &request(&[200_000])).await.expect(201);
    }
    // An answer never exceeds 512 KB either (5.3.2).
    let sizes = [1, 2, 1];
    for size in sizes {
        assert_eq!(api.consume(&group, "").await.as_array().unwrap().len(), size);
    }
}

/// API reference 5.3.1, `delay_time`: the Kafka error has a different body. Labels and dead letters are not for Kafka.
#[tokio::test(start_paused = true)]
async fn invalid_requests_for_kafka_queues_are_refused() {
    let api = Api::start().await;
    let queue = api.queue(r#"{"name":"q","queue_mode":"KAFKA_HA"}"#).await;
    let group = api.group(&queue, "g").await;
    let delayed = r#"{"messages":[{"body":1,"delay_time":1000}]}"#;
    let answer = api.post(&format!("{queue}/messages"), delayed).await;
    assert_eq!(answer.status, 400);
    assert_eq!(
        answer.json(),
        serde_json::json!({
            "code": 10_540_010,
            "message": "Invalid request format: kafka queue message could not have delayTime.",
        })
    );
    api.send(&queue, r#"{"body":1,"delay_time":0}"#).await;
    let tagged = r#"{"messages":[{"body":1,"tags":["a"]}]}"#;
    api.post(&format!("{queue}/messages"), tagged).await.refused(400, "DMS.10240004");
    api.get(&format!("{group}/messages?tag=a")).await.refused(400, "DMS.10240004");
    api.get(&format!("{group}/deadletters")).await.refused(400, "DMS.10540010");
    assert_eq!(api.consume(&group, "").await[0]["message"]["body"], 1);
}

/// API reference 5.3.2 and its codes; an empty value is the default.
#[tokio::test(start_paused = true)]
async fn invalid_consume_parameters_are_refused() {
    let api = Api::start().await;
    let (_, group) = api.queue_and_group("q").await;
    let long = format!("tag={}", "x".repeat(65));
    for (query, status, code) in [
        ("max_msgs=0", 400, "DMS.10240014"),
        ("max_msgs=11", 400, "DMS.10240014"),
        ("max_msgs=ten", 400, "DMS.10240014"),
        ("max_msgs=-1", 400, "DMS.10240014"),
        ("max_msgs=99999999999999999999", 400, "DMS.10240014"),
        ("time_wait=0", 400, "DMS.10240021"),
        ("time_wait=61", 400, "DMS.10240021"),
        ("time_wait=1.5", 400, "DMS.10240021"),
        ("ack_wait=14", 400, "DMS.10542206"),
        ("ack_wait=301", 400, "DMS.10542206"),
        ("ack_wait=x", 400, "DMS.10542206"),
        ("tag=a&tag=b&tag=c&tag=d", 400, "DMS.10540014"),
        ("tag=a%20b", 400, "DMS.10240004"),
        (&long, 400, "DMS.10240004"),
        ("tag=%ff", 400, "DMS.10540014"),
        ("tag=a&tag_type=xor", 500, "DMS.10550035"),
    ] {
        api.get(&format!("{group}/messages?{query}")).await.refused(status, code);
        if !query.contains("tag") {
            api.get(&format!("{group}/deadletters?{query}")).await.refused(status, code);
        }
    }
    api.get(&format!("{group}/messages?max_msgs=&time_wait=&ack_wait=&tag=&tag_type=")).await.expect(200);
}

/// API reference 5.3.2: a group has one label rule for life.
#[tokio::test(start_paused = true)]
async fn another_label_rule_is_refused() {
    let api = Api::start().await;
    let (_, group) = api.queue_and_group("q").await;
    api.consume(&group, "tag=a&tag=b&tag_type=and").await;
    api.consume(&group, "tag=b&tag=a&tag_type=and").await;
    api.get(&format!("{group}/messages?time_wait=1&tag=a")).await.refused(400, "DMS.10542204");
    api.get(&format!("{group}/messages?time_wait=1")).await.refused(400, "DMS.10542204");
}

/// API reference 5.3.3 and its codes; nothing is settled by a request that is refused.
#[tokio::test(start_paused = true)]
async fn invalid_acknowledgements_are_refused() {
    let api = Api::start().await;
    let (queue, group) = api.queue_and_group("q").await;
    let other = api.group(&queue, "other").await;
    api.send(&queue, r#"{"body":1}"#).await;
    let consumed = api.consume(&group, "").await;
    let handler = consumed[0]["handler"].as_str().unwrap();
    let path = format!("{group}/ack");
    let status = |status: &str| format!(r#"{{"message":[{{"handler":"{handler}","status":{status}}}]}}"#);
    for (body, code) in [
        ("".to_owned(), "DMS.00400004"),
        ("[".to_owned(), "DMS.10540012"),
        ("{}".to_owned(), "DMS.10540010"),
        (r#"{"message":[]}"#.to_owned(), "DMS.10540010"),
        (r#"{"message":{}}"#.to_owned(), "DMS.10540010"),
        (r#"{"messages":[{"handler":"x","status":"success"}]}"#.to_owned(), "DMS.10540010"),
        (r#"{"message":[{"status":"success"}]}"#.to_owned(), "DMS.10540010"),
        (format!(r#"{{"message":[{{"handler":"{handler}"}}]}}"#), "DMS.10540003"),
        (status("null"), "DMS.10540003"),
        (status("\"SUCCESS\""), "DMS.10540003"),
        (status("1"), "DMS.10540003"),
        (r#"{"message":[{"handler":"","status":"success"}]}"#.to_owned(), "DMS.10542209"),
        (r#"{"message":[{"handler":"forged","status":"success"}]}"#.to_owned(), "DMS.10542209"),
        (format!(r#"{{"message":[{}]}}"#, [r#"{"handler":"x","status":"success"}"#; 1001].join(",")), "DMS.10540010"),
    ] {
        api.post(&path, &body).await.refused(400, code);
    }
    let text = api.post(&path, &status("\"done\"")).await.refused(400, "DMS.10540003");
    assert_eq!(text, "Message ack status must be either 'success' or 'fail'. It should not be 'done'.");
    let text = api.ack(&other, &consumed, "success").await.refused(400, "DMS.10540004");
    assert!(text.contains("message[0].handler \""), "{text}");
    api.ack(&group, &consumed, "success").await.expect(200);
    api.ack(&group, &consumed, "success").await.refused(400, "DMS.10542209");
}

/// A handle is good for its own project, queue, group and stream only.
#[tokio::test(start_paused = true)]
async fn receipts_of_other_queues_and_groups_are_refused() {
    let api = Api::start().await;
    let queue = api.queue(r#"{"name":"q","redrive_policy":"enable","max_consume_count":1}"#).await;
    let group = api.group(&queue, "g").await;
    let (other_queue, other_group) = api.queue_and_group("other").await;
    api.send(&queue, r#"{"body":1}"#).await;
    api.send(&other_queue, r#"{"body":2}"#).await;
    let (mine, other) = (api.consume(&group, "").await, api.consume(&other_group, "").await);
    api.ack(&group, &other, "success").await.refused(400, "DMS.10540004");
    let both = serde_json::json!([mine[0], other[0]]);
    let text = api.ack(&group, &both, "success").await.refused(400, "DMS.10540004");
    assert!(text.contains("message[1].handler \"") && text.ends_with("was given to another consumer."), "{text}");
    let forged = serde_json::json!([mine[0], { "handler": "forged" }]);
    let text = api.ack(&group, &forged, "success").await.refused(400, "DMS.10542209");
    assert!(text.ends_with("message[1].handler \"forged\" cannot be read."), "{text}");
    let line = serde_json::json!({ "message": [{ "handler": mine[0]["handler"], "status": "success" }] });
    let dead = format!("{group}/deadletters/ack");
    api.post(&dead, &line.to_string()).await.refused(400, "DMS.10540004");
    let api = api.on("/v2/another-project");
    api.ack(&group, &mine, "success").await.refused(404, "DMS.10240401");
    let api = api.on(&format!("/v2/{PROJECT}"));
    assert_eq!(api.ack(&group, &mine, "success").await.expect(200)["success"], 1, "none of that settled anything");
}

/// Queues and groups that are made a moment ago, and more waiting consume calls than a group may have.
#[tokio::test(start_paused = true)]
async fn creation_takes_time_and_polls_are_limited() {
    let mut config = ServerConfig::default().clock(vector_clock());
    config.broker.create_delay = Duration::from_secs(2);
    config.broker.max_polls_per_group = 1;
    let api = Api::with(config).await;
    let queue = api.queue(r#"{"name":"q"}"#).await;
    api.get(&queue).await.refused(400, "DMS.10240032");
    tokio::time::sleep(Duration::from_secs(3)).await;
    let group = api.group(&queue, "g").await;
    api.get(&format!("{group}/messages")).await.refused(400, "DMS.10240032");
    tokio::time::sleep(Duration::from_secs(3)).await;
    let path = format!("{group}/messages?time_wait=60");
    let (first, second) = tokio::join!(api.get(&path), api.get(&path));
    let (served, refused) = if first.status == 200 { (first, second) } else { (second, first) };
    served.expect(200);
    refused.refused(404, "DMS.10240407");
}

/// API reference 5.3.3: an acknowledgement after `ack_wait`.
#[tokio::test(start_paused = true)]
async fn a_late_acknowledgement_is_refused() {
    let api = Api::start().await;
    let (queue, group) = api.queue_and_group("q").await;
    api.send(&queue, r#"{"body":1}"#).await;
    let consumed = api.consume(&group, "ack_wait=15").await;
    tokio::time::sleep(Duration::from_secs(16)).await;
    api.ack(&group, &consumed, "success").await.refused(400, "DMS.10542209");
    assert_eq!(api.consume(&group, "").await.as_array().unwrap().len(), 1);
}

/// API reference 5.4.1 and the codes of tags.
#[tokio::test(start_paused = true)]
async fn invalid_tag_requests_are_refused() {
    let api = Api::start().await;
    let queue = api.queue(r#"{"name":"q"}"#).await.replace("/queues/", "/queue/");
    let path = format!("{queue}/tags/action");
    let tag = |key: &str, value: &str| format!(r#"{{"key":"{key}","value":"{value}"}}"#);
    let create = |tags: &str| format!(r#"{{"action":"create","tags":[{tags}]}}"#);
    for (body, code) in [
        ("".to_owned(), "DMS.00400004"),
        ("{}".to_owned(), "DMS.10240040"),
        (r#"{"action":"replace","tags":[{"key":"a","value":"b"}]}"#.to_owned(), "DMS.10240040"),
        (r#"{"tags":[{"key":"a","value":"b"}]}"#.to_owned(), "DMS.10240040"),
        (r#"{"action":"delete"}"#.to_owned(), "DMS.00400062"),
        (create(""), "DMS.00400062"),
        (create(r#"{"key":"a"}"#), "DMS.10240009"),
        (create(&tag("", "v")), "DMS.10240035"),
        (create(&tag(&"k".repeat(37), "v")), "DMS.10240035"),
        (create(&tag("a=b", "v")), "DMS.10240036"),
        (create(&tag("a\\n", "v")), "DMS.10240036"),
        (create(&tag("k", &"v".repeat(44))), "DMS.10240038"),
        (create(&tag("k", "a|b")), "DMS.10240039"),
        (create(&[tag("k", "1"), tag("k", "2")].join(",")), "DMS.10240045"),
    ] {
        api.post(&path, &body).await.refused(400, code);
    }
    let ten: Vec<_> = (0..10).map(|number| tag(&format!("k{number}"), "")).collect();
    api.post(&path, &create(&ten.join(","))).await.expect(204);
    api.post(&path, &create(&ten.join(","))).await.expect(204);
    api.post(&path, &create(&tag("k10", ""))).await.refused(400, "DMS.10240044");
    let search = "/queue/resource_instances/action";
    api.post(search, r#"{"action":"list"}"#).await.refused(400, "DMS.10240041");
    api.post(search, r#"{"action":"filter","limit":1001}"#).await.refused(400, "DMS.10240042");
    for offset in [r#""x""#, "-1"] {
        let body = format!(r#"{{"action":"filter","offset":{offset}}}"#);
        api.post(search, &body).await.refused(400, "DMS.10240043");
    }
    api.post(search, "{}").await.refused(400, "DMS.10240041");
}

/// Paths and methods that are not of the API.
#[tokio::test(start_paused = true)]
async fn unknown_urls_and_methods_are_refused() {
    let api = Api::start().await;
    api.get("/topics").await.refused(404, "DMS.10240406");
    api.get("/queues/").await.refused(404, "DMS.10240406");
    for (method, path, allowed) in [
        ("PUT", "/queues", "POST,GET"),
        ("DELETE", "/queues", "POST,GET"),
        ("POST", "/queue/tags", "GET"),
        ("HEAD", "/queues", "POST,GET"),
        ("HEAD", "/quotas", "GET"),
    ] {
        let answer = api.call(method, path, "").await;
        assert_eq!(
            (answer.status.as_u16(), &answer.headers["allow"]),
            (405, &allowed.parse().unwrap()),
            "{method} {path}"
        );
        answer.refused(405, "DMS.00405001");
    }
    let elsewhere = api.on("/v3.0");
    elsewhere.get("/queues").await.refused(404, "DMS.10240406");
    let bad = elsewhere.on("/v2/pro%20ject");
    bad.get("/queues").await.refused(400, "DMS.10240005");
    let bad = bad.on(&format!("/v2/{}", "x".repeat(65)));
    bad.get("/queues").await.refused(400, "DMS.10240005");
}

/// The gateway's limits on heads (signing guide, error codes): 32 KB for the URI and for each header.
#[tokio::test(start_paused = true)]
async fn heads_are_limited() {
    let api = Api::start().await;
    let most = 32 * 1024;
    let path = |length: usize| format!("/queues?x={}", "x".repeat(length - format!("/v2/{PROJECT}/queues?x=").len()));
    api.get(&path(most)).await.expect(200);
    api.get(&path(most + 1)).await.refused(414, "APIGW.0201");
    let request = |length: usize| {
        let uri = format!("/v2/{PROJECT}/queues");
        Request::builder().uri(uri).header("X-Long", "x".repeat(length)).body(Body::empty()).unwrap()
    };
    api.raw(request(most)).await.expect(200);
    api.raw(request(most + 1)).await.refused(431, "APIGW.0201");
}

/// A HEAD of a consume must not take messages that nobody would see.
#[tokio::test(start_paused = true)]
async fn head_leases_nothing() {
    let api = Api::start().await.on(&format!("/v2/{PROJECT}"));
    let (queue, group) = api.queue_and_group("q").await;
    api.send(&queue, r#"{"body":1}"#).await;
    assert_eq!(api.call("HEAD", &format!("{group}/messages"), "").await.status, 405);
    assert_eq!(api.consume(&group, "").await.as_array().unwrap().len(), 1);
}

/// Refusals of queues, groups, tags and parameters name the place, the value and the allowed values; nothing is changed.
#[tokio::test(start_paused = true)]
async fn refusals_name_the_place_the_value_and_the_limit() {
    let api = Api::start().await;
    let (queue, group) = api.queue_and_group("q").await;
    let (groups, tags) = (format!("{queue}/groups"), queue.replace("/queues/", "/queue/") + "/tags");
    let actions = format!("{tags}/action");
    let search = "/queue/resource_instances/action";
    let long = "x".repeat(5000);
    for (path, body, said) in [
        ("/queues", r#"{"name":7}"#, "name is `7`: a string is expected."),
        ("/queues", r#"{"name":"a","name":"b"}"#, "name is there twice: once is allowed."),
        ("/queues", r#"{"description":"x"}"#, "The request has no name."),
        ("/queues", r#"{"name":"\ud83d"}"#, "name has `\\ud83d` at byte 9, half a surrogate pair"),
        ("/queues", r#"{"name":"q2","queue_mode":"a\u001bb"}"#, r#"queue_mode is "a\u{1b}b": NORMAL, FIFO,"#),
        (
            "/queues",
            &format!(r#"{{"name":"q2","queue_mode":"{long}"}}"#),
            "x\"…: NORMAL, FIFO, KAFKA_HA and KAFKA_HT are",
        ),
        ("/queues", r#"{"name":"q2","redrive_policy":true}"#, "redrive_policy is `true`: a string is expected."),
        (
            "/queues",
            r#"{"name":"q2","redrive_policy":"enable","max_consume_count":1e999}"#,
            "max_consume_count is `1e999`: 1 to 100 are allowed.",
        ),
        (
            "/queues",
            &format!(r#"{{"name":"q2","redrive_policy":"enable","max_consume_count":"{long}"}}"#),
            "xxx…`: 1 to 100 are allowed.",
        ),
        (
            "/queues",
            r#"{"name":"q2","queue_mode":"KAFKA_HA","retention_hours":-0}"#,
            "retention_hours is `-0`: 1 to 72 are",
        ),
        ("/queues", r#"{"name":"q2",}"#, "a name in quotes is expected at byte 13, not `}`."),
        (&groups, r#"{"groups":{}}"#, "groups is `{}`: an array is expected."),
        (&groups, r#"{"groups":[{"name":"a"},{}]}"#, "groups[1] has no name."),
        (&groups, r#"{"groups":[{"name":"a"},{"name":null}]}"#, "groups[1].name is `null`: a string is expected."),
        (
            &groups,
            r#"{"groups":[{"name":"a"},{"name":"b c"}]}"#,
            "groups[1].name is \"b c\": 1 to 32 of A-Z a-z 0-9 _ -",
        ),
        (&groups, r#"{"groups":[{"name":"a"},{"name":"a"}]}"#, "groups[1].name is \"a\", and in the request twice."),
        (
            &actions,
            r#"{"action":"create","tags":[{"key":"a","value":"b"},{"key":"c"}]}"#,
            "tags[1], with the key \"c\", has no",
        ),
        (
            &actions,
            r#"{"action":"create","tags":[{"key":"a","value":"b"},{"key":"c=","value":""}]}"#,
            "tags[1].key is \"c=\": ",
        ),
        (
            &actions,
            r#"{"action":"create","tags":[{"key":"a","value":"b"},{"key":"c","value":"|"}]}"#,
            "tags[1].value is \"|\": ",
        ),
        (
            &actions,
            r#"{"action":"create","tags":[{"key":"a","value":7}]}"#,
            "tags[0].value is `7`: a string is expected.",
        ),
        (&actions, r#"{"action":"replace"}"#, "action is \"replace\": create and delete are allowed."),
        (&tags, "{}", "The request has no tag."),
        (&tags, r#"{"tag":{"key":"","value":""}}"#, "tag.key is 0 characters long: 1 to 36 characters are allowed."),
        (search, r#"{"action":"filter","limit":"1001"}"#, "limit is `\"1001\"`: 1 to 1000 are allowed."),
        (search, r#"{"action":"filter","offset":1.5}"#, "offset is `1.5`: 0 to 1000000 are allowed."),
        (
            search,
            r#"{"action":"filter","tags":[{"key":"a","values":[1]}]}"#,
            "tags[0].values[0] is `1`: a string is expected.",
        ),
    ] {
        let answer = api.post(path, body).await;
        let text = answer.json()["error_msg"].as_str().unwrap_or_default().to_owned();
        assert!(answer.status == 400 && text.contains(said), "{said} is not in {answer:?}");
        assert!(text.len() < 500 && !text.contains(char::is_control), "{text}");
    }
    for query in ["max_msgs", "time_wait", "ack_wait", "tag", "tag_type"] {
        let answer = api.get(&format!("{group}/messages?{query}={long}")).await;
        let text = answer.json()["error_msg"].as_str().unwrap_or_default().to_owned();
        assert!(text.len() < 500 && text.contains("\"xxxx"), "{query}: {text}");
    }
    assert_eq!(api.get("/queues").await.expect(200)["total"], 1);
    assert_eq!(api.get(&groups).await.expect(200)["groups"].as_array().unwrap().len(), 1);
    assert_eq!(api.get(&tags).await.expect(200)["tags"], serde_json::json!([]));
}
