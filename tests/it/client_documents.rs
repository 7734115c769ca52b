//! The client against the documents of the API reference: every example request is produced, every example answer read.
//!
//! `documents/` holds the examples under the numbers of their sections, 5 for V2 and 7 for V1.0. Only JSON that page breaks
//! and misprints made invalid is corrected.

use std::time::Duration;

use dms_worker::{
    ApiVersion, Client,
    client::{ConsumeOptions, GroupsOptions, SendOptions},
    message::{AckHandle, AckStatus, Body, Message},
    queue::{GroupId, NewQueue, QueueId, QueueMode, QueueTag, SourcePath, TagFilter},
};
use serde_json::{Value, json};

use crate::script::{Play, Script};

macro_rules! document {
    ($name:literal) => {
        include_str!(concat!("documents/", $name, ".json"))
    };
}

/// Every operation's prefix, `/v2/p1` or `/v1.0/p1`, with a client whose answers come from `plays`.
fn versions(plays: [Play; 2]) -> Vec<(Client, Script, &'static str)> {
    let versions = [(ApiVersion::V2, "/v2/p1"), (ApiVersion::V1_0, "/v1.0/p1")];
    let client = |(play, (version, prefix))| {
        let script = Script::new([play]);
        (script.builder().api_version(version).build().unwrap(), script, prefix)
    };
    plays.into_iter().zip(versions).map(client).collect()
}

/// Checks the one request of a script: its method and target, and its body as JSON.
#[track_caller]
fn sent(script: &Script, target: &str, body: Option<&str>) {
    let requests = script.requests();
    let parts: Vec<&str> = requests[0].splitn(3, ' ').collect();
    assert_eq!(parts[..2].join(" "), target);
    let actual = parts.get(2).map(|body| serde_json::from_str::<Value>(body).unwrap());
    assert_eq!(actual, body.map(|body| serde_json::from_str(body).unwrap()));
    assert_eq!(requests.len(), 1);
}

fn queue() -> QueueId {
    QueueId::from("q1")
}

fn source() -> SourcePath {
    SourcePath::messages("q1", "g-1")
}

#[tokio::test]
async fn creating_queues() {
    let fifo =
        NewQueue::new("queue-001").description("This is a FIFO queue.").mode(QueueMode::Fifo).dead_letters_after(3);
    let kafka =
        NewQueue::new("queue-002").description("This is a Kafka queue.").mode(QueueMode::KafkaHa).retention_hours(36);
    let answers = [document!("5.1.1-answer"), document!("7.1.1-answer-1")];
    let requests = [document!("5.1.1-request-1"), document!("7.1.1-request-1")];
    for ((client, script, prefix), request) in
        versions(answers.map(|body| Play::Answer(201, body))).iter().zip(requests)
    {
        let created = client.create_queue(fifo.clone()).await.unwrap();
        assert_eq!(created.id, QueueId::from("9bf46390-38a2-462d-b392-4d5b2d519c55"));
        assert_eq!((created.name.as_str(), created.kafka_topic), ("queue_001", None));
        sent(script, &format!("POST {prefix}/queues"), Some(request));
    }
    let answer = Play::Answer(201, document!("7.1.1-answer-2"));
    let requests = [document!("5.1.1-request-2"), document!("7.1.1-request-2")];
    for ((client, script, prefix), request) in versions([answer.clone(), answer]).iter().zip(requests) {
        let created = client.create_queue(kafka.clone()).await.unwrap();
        assert!(created.kafka_topic.unwrap().starts_with("k-fdc60cfe407a4b2a96a498efda55c785-"));
        sent(script, &format!("POST {prefix}/queues"), Some(request));
    }
}

#[tokio::test]
async fn listing_and_showing_queues() {
    let answers = [document!("5.1.2-answer"), document!("7.1.2-answer")];
    for ((client, script, prefix), count) in versions(answers.map(|body| Play::Answer(200, body))).iter().zip([1, 4]) {
        let queues = client.queues().await.unwrap();
        assert_eq!(queues.len(), count);
        assert_eq!(queues[0].id, QueueId::from("ef808d2d-58c2-4a36-9e58-d018b2193f80"));
        assert_eq!((queues[0].dead_letters, queues[0].max_consume_count), (Some(true), Some(3)));
        assert_eq!((queues[0].created_ms, queues[0].reservation_minutes), (1_495_701_557_000, 4320));
        if let [.., third, kafka] = &queues[..] {
            assert_eq!(third.description, "");
            assert_eq!((kafka.mode, kafka.dead_letters, kafka.reservation_minutes), (QueueMode::KafkaHa, None, 2160));
        }
        sent(script, &format!("GET {prefix}/queues?include_deadletter=true"), None);
    }
    let answers = [document!("5.1.3-answer"), document!("7.1.3-answer")];
    for (client, script, prefix) in versions(answers.map(|body| Play::Answer(200, body))) {
        let shown = client.queue(&queue()).await.unwrap();
        assert_eq!((shown.name.as_str(), shown.mode, shown.produced_messages), ("queue-001", QueueMode::Fifo, 14));
        sent(&script, &format!("GET {prefix}/queues/q1?include_deadletter=true"), None);
    }
}

#[tokio::test]
async fn deleting_queues_and_groups() {
    for (client, script, prefix) in versions([Play::Answer(204, ""), Play::Answer(204, "")]) {
        client.delete_queue(&queue()).await.unwrap();
        sent(&script, &format!("DELETE {prefix}/queues/q1"), None);
    }
    for (client, script, prefix) in versions([Play::Answer(204, ""), Play::Answer(204, "")]) {
        client.delete_group(&queue(), &GroupId::from("g-1")).await.unwrap();
        sent(&script, &format!("DELETE {prefix}/queues/q1/groups/g-1"), None);
    }
}

#[tokio::test]
async fn creating_groups() {
    let answers = [document!("5.2.1-answer"), document!("7.1.5-answer")];
    let requests = [document!("5.2.1-request"), document!("7.1.5-request")];
    for ((client, script, prefix), request) in
        versions(answers.map(|body| Play::Answer(201, body))).iter().zip(requests)
    {
        let created = client.create_groups(&queue(), &["group-aa"]).await.unwrap();
        assert_eq!(created, [(GroupId::from("g-02fb1974-9be1-4eee-8448-ed2d3e89884a"), "group-aa".to_owned())]);
        sent(script, &format!("POST {prefix}/queues/q1/groups"), Some(request));
    }
}

#[tokio::test]
async fn listing_groups() {
    let answers = [document!("5.2.2-answer"), document!("7.1.6-answer-1")];
    for (client, script, prefix) in versions(answers.map(|body| Play::Answer(200, body))) {
        let groups = client.groups(&queue()).await.unwrap();
        let group = &groups[0];
        assert_eq!((group.produced_messages, group.consumed_messages, group.available_messages), (10, 0, 8));
        assert_eq!((group.produced_dead_letters, group.available_dead_letters), (None, None));
        sent(
            &script,
            &format!("GET {prefix}/queues/q1/groups?include_deadletter=true&include_messages_num=true"),
            None,
        );
    }
    let answer = Play::Answer(200, document!("7.1.6-answer-2"));
    for (client, script, prefix) in versions([answer.clone(), answer]) {
        let options = GroupsOptions::new().dead_letters(false).messages(false).page(2, 10);
        assert_eq!(client.groups_with(&queue(), options).await.unwrap().len(), 2);
        let query = "include_deadletter=false&include_messages_num=false&page_size=10&current_page=2";
        sent(&script, &format!("GET {prefix}/queues/q1/groups?{query}"), None);
    }
}

#[tokio::test]
async fn sending() {
    let script = Script::new([Play::Answer(201, r#"{"messages":[{"state":0}]}"#)]);
    script.client().send(&queue(), &[Message::text("test")]).await.unwrap();
    sent(&script, "POST /v2/p1/queues/q1/messages", Some(document!("5.3.1-request")));

    let message = |body: &str, delay| {
        Message::new(Body::raw(body.to_owned()).unwrap())
            .attribute("attribute1", "value1")
            .attribute("attribute2", "value2")
            .tag("tag1")
            .tag("tag2")
            .delay(Duration::from_secs(delay))
    };
    let messages = [message("\"TEST11\"", 60), message(r#"{"foo":"test02"}"#, 10)];
    let options = SendOptions::new().return_ids(true);
    // The example writes the flag as text where the table says Boolean, as every client sends it.
    let mut v1: Value = serde_json::from_str(document!("7.1.8-request")).unwrap();
    v1["returnId"] = json!(true);
    let v2 = v1.to_string().replace("returnId", "return_id").replace("delayTime", "delay_time");
    let answers = [document!("5.3.1-answer"), document!("7.1.8-answer")];
    for ((client, script, prefix), body) in
        versions(answers.map(|body| Play::Answer(201, body))).iter().zip([v2, v1.to_string()])
    {
        let outcomes = client.send_with(&queue(), &messages, options).await.unwrap();
        let ids: Vec<_> = outcomes.into_iter().map(|outcome| outcome.unwrap().id.unwrap()).collect();
        assert!(ids[0].as_str().starts_with("eyJ0b3BpYyI6InEt") && ids[1].as_str().starts_with("jhGwdWEpnyrX"));
        sent(script, &format!("POST {prefix}/queues/q1/messages"), Some(&body));
    }
}

#[tokio::test]
async fn consuming() {
    let answers = [document!("5.3.2-answer"), document!("7.1.9-answer")];
    for (client, script, prefix) in versions(answers.map(|body| Play::Answer(200, body))) {
        let filter = TagFilter { tags: vec!["tag1".into(), "tag2".into()], ..TagFilter::default() };
        let received = client.consume(&source(), &ConsumeOptions::new().filter(filter)).await.unwrap();
        assert_eq!(received.len(), 2);
        assert_eq!(received[0].body.parse::<Value>().unwrap(), json!({"foo": "123="}));
        assert_eq!(
            Value::from(received[0].attributes.to_values()),
            json!({"attribute1": "value1", "attribute2": "value2"})
        );
        assert_eq!(received[0].tags, ["tag1", "tag2"]);
        assert!(received[1].handle.as_str().starts_with("eyJ"));
        let query = "max_msgs=10&time_wait=3&ack_wait=30&tag=tag1&tag=tag2&tag_type=or";
        sent(&script, &format!("GET {prefix}/queues/q1/groups/g-1/messages?{query}"), None);
    }
    let answers = [document!("5.3.4-answer"), document!("7.1.12-answer")];
    for (client, script, prefix) in versions(answers.map(|body| Play::Answer(200, body))) {
        let dead_letters = SourcePath::dead_letters("q1", "g-1");
        let received = client.consume(&dead_letters, &ConsumeOptions::default()).await.unwrap();
        assert_eq!((received.len(), received[0].tags.len(), received[0].attributes.len()), (2, 0, 2));
        let query = "max_msgs=10&time_wait=3&ack_wait=30";
        sent(&script, &format!("GET {prefix}/queues/q1/groups/g-1/deadletters?{query}"), None);
    }
}

#[tokio::test]
async fn acknowledging() {
    let cases = [
        (
            SourcePath::messages("q1", "g-1"),
            "ack",
            [
                (document!("5.3.3-request"), document!("5.3.3-answer")),
                (document!("7.1.10-request"), document!("7.1.10-answer")),
            ],
        ),
        (
            SourcePath::dead_letters("q1", "g-1"),
            "deadletters/ack",
            [
                (document!("5.3.5-request"), document!("5.3.5-answer")),
                (document!("7.1.13-request"), document!("7.1.13-answer")),
            ],
        ),
    ];
    for (source, path, documents) in cases {
        let plays = documents.map(|(_, answer)| Play::Answer(200, answer));
        for ((client, script, prefix), (request, _)) in versions(plays).iter().zip(documents) {
            let wanted: Value = serde_json::from_str(request).unwrap();
            let handle = AckHandle::new(wanted["message"][0]["handler"].as_str().unwrap());
            let outcome = client.acknowledge(&source, &[(handle, AckStatus::Success)]).await.unwrap();
            assert_eq!((outcome.success, outcome.fail), (1, 2));
            sent(script, &format!("POST {prefix}/queues/q1/groups/g-1/{path}"), Some(request));
        }
    }
}

#[tokio::test]
async fn tags() {
    let tag = |key: &str, value: &str| QueueTag { key: key.into(), value: value.into() };
    for (client, script, prefix) in versions([Play::Answer(204, ""), Play::Answer(204, "")]) {
        client.put_tags(&queue(), &[tag("key1", "value1"), tag("key2", "value2")]).await.unwrap();
        sent(&script, &format!("POST {prefix}/queue/q1/tags/action"), Some(document!("5.4.1-request")));
    }
    for (client, script, prefix) in versions([Play::Answer(204, ""), Play::Answer(204, "")]) {
        client.delete_tags(&queue(), &[("key1", Some("value1")), ("key2", None)]).await.unwrap();
        let body = r#"{"action":"delete","tags":[{"key":"key1","value":"value1"},{"key":"key2"}]}"#;
        sent(&script, &format!("POST {prefix}/queue/q1/tags/action"), Some(body));
    }
    let answer = Play::Answer(200, document!("5.4.2-answer"));
    for (client, script, prefix) in versions([answer.clone(), answer]) {
        assert_eq!(client.tags(&queue()).await.unwrap(), [tag("key1", "value1"), tag("key2", "value2")]);
        sent(&script, &format!("GET {prefix}/queue/q1/tags"), None);
    }
    let answer = Play::Answer(200, document!("5.4.3-answer"));
    for (client, script, prefix) in versions([answer.clone(), answer]) {
        let tags = client.project_tags().await.unwrap();
        assert_eq!((tags[0].key.as_str(), tags[0].values.len(), tags[1].values.len()), ("key1", 2, 1));
        sent(&script, &format!("GET {prefix}/queue/tags"), None);
    }
}

#[tokio::test]
async fn quotas() {
    let answers = [document!("5.5.1-answer"), document!("7.1.11-answer")];
    let expected = [("quotas", 6, 5, 3), ("quotas/dms", 1, 30, 5)];
    for ((client, script, prefix), (path, count, quota, used)) in
        versions(answers.map(|body| Play::Answer(200, body))).iter().zip(expected)
    {
        let quotas = client.quotas().await.unwrap();
        assert_eq!(quotas.len(), count);
        let queues = quotas.iter().find(|quota| quota.kind == "queue").unwrap();
        assert_eq!((queues.quota, queues.used, queues.min, queues.max), (quota, Some(used), Some(0), Some(500)));
        sent(script, &format!("GET {prefix}/{path}"), None);
    }
}

#[tokio::test]
async fn answers_may_grow_and_write_numbers_as_text() {
    let list = r#"{"queues":[{"id":"q","name":"n","queue_mode":"NEW_MODE","created":"1495701557000","description":null,
        "group_count":"2","future":{"x":[1]}}],"total":1,"more":true}"#;
    let groups = r#"{"groups":[{"id":"g","name":"n","produced_messages":"4","consumed_messages":-1,
        "available_messages":"0","available_deadletters":"2"}]}"#;
    let script = Script::new([Play::Answer(200, list), Play::Answer(200, groups)]);
    let client = script.client();
    let queues = client.queues().await.unwrap();
    assert_eq!(
        (queues[0].created_ms, queues[0].group_count, queues[0].mode),
        (1_495_701_557_000, 2, QueueMode::Normal)
    );
    let groups = client.groups(&queue()).await.unwrap();
    assert_eq!((groups[0].produced_messages, groups[0].consumed_messages), (4, 0));
    assert_eq!((groups[0].produced_dead_letters, groups[0].available_dead_letters), (None, Some(2)));
}
