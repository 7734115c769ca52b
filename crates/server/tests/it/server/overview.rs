//! The extensions `overview` and `peek`.

use std::time::Duration;

use dms_server::ServerConfig;
use serde_json::{Value, json};

use super::{Api, vector_clock};

async fn queue_of(api: &Api, name: &str) -> Value {
    let overview = api.get("/overview").await.expect(200);
    let queues = overview["queues"].as_array().unwrap();
    queues.iter().find(|queue| queue["name"] == name).unwrap().clone()
}

#[tokio::test(start_paused = true)]
async fn one_call_shows_all_queues_with_their_groups() {
    let api = Api::start().await;
    let body = r#"{"name":"orders","description":"new ones","redrive_policy":"enable","max_consume_count":1}"#;
    let queue = api.queue(body).await;
    let (billing, _) = (api.group(&queue, "billing").await, api.group(&queue, "shipping").await);
    api.queue_and_group("empty").await;
    for number in 0..4 {
        api.send(&queue, &format!(r#"{{"body":{number}}}"#)).await;
    }
    api.post(&format!("{queue}/messages"), r#"{"messages":[{"body":9,"delay_time":60000}]}"#).await.expect(201);
    let first = api.consume(&billing, "max_msgs=1").await;
    api.ack(&billing, &first, "success").await.expect(200);
    let second = api.consume(&billing, "max_msgs=1").await;
    api.ack(&billing, &second, "fail").await.expect(200);
    api.consume(&billing, "max_msgs=1").await;
    tokio::time::sleep(Duration::from_secs(2)).await;

    let overview = api.get("/overview").await.expect(200);
    assert_eq!(overview["time"].as_i64(), Some(1_795_379_582_000));
    let names: Vec<_> = overview["queues"].as_array().unwrap().iter().map(|queue| &queue["name"]).collect();
    assert_eq!(names, ["orders", "empty"]);
    let mut orders = overview["queues"][0].clone();
    let groups = orders["groups"].take();
    assert_eq!(orders["id"].as_str().map(|id| format!("/queues/{id}")), Some(queue));
    for (member, value) in [
        ("description", json!("new ones")),
        ("queue_mode", json!("NORMAL")),
        ("redrive_policy", json!("enable")),
        ("max_consume_count", json!(1)),
        ("produced_messages", json!(5)),
        ("delayed_messages", json!(1)),
        ("total_produced_messages", json!(4)),
        ("produced_per_second", json!(2.0)),
        ("delete_when_settled", json!(false)),
    ] {
        assert_eq!(orders[member], value, "{member}");
    }
    let mut billing = groups[0].clone();
    billing["id"].take();
    let wanted = json!({
        "id": null, "name": "billing", "available_messages": 1, "leased_messages": 1, "consumed_messages": 1,
        "available_deadletters": 1, "produced_deadletters": 1, "damaged_messages": 0, "oldest_age_ms": 2000,
        "waiting_polls": 0, "consumed_per_second": 0.5,
    });
    assert_eq!(billing, wanted);
    assert_eq!(groups[1]["available_messages"], 4);
    let empty = &overview["queues"][1]["groups"][0];
    assert!(empty.get("oldest_age_ms").is_none() && empty["consumed_per_second"] == 0.0, "{empty}");

    let only = api.get("/overview?queue=empty").await.expect(200);
    assert_eq!(only["queues"].as_array().unwrap().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn an_overview_has_pages() {
    let api = Api::start().await;
    let mut paths = Vec::new();
    for number in 0..5 {
        paths.push(api.queue(&format!(r#"{{"name":"q{number}"}}"#)).await);
    }
    let page = async |query: &str| {
        let page = api.get(&format!("/overview?{query}")).await.expect(200);
        let names: String =
            page["queues"].as_array().unwrap().iter().filter_map(|queue| queue["name"].as_str()).collect();
        (names, page["next_marker"].as_str().map(str::to_owned))
    };
    let (names, next) = page("limit=2").await;
    assert_eq!((names.as_str(), next.as_deref()), ("q0q1", paths[1].rsplit('/').next()));
    let marker = format!("limit=2&marker={}", next.unwrap());
    assert_eq!(page(&marker).await.0, "q2q3");
    let last = format!("marker={}", paths[3].rsplit('/').next().unwrap());
    assert_eq!(page(&last).await, ("q4".to_owned(), None));
    assert_eq!(page("limit=5").await.1, None, "a full page that is the last one");
    api.get("/overview?limit=0").await.refused(400, "DMS.10540014");
    api.call("DELETE", &paths[1], "").await.expect(204);
    let said = api.get(&format!("/overview?{marker}")).await.refused(400, "DMS.10540014");
    assert!(said.contains("start again without it"), "{said}");
}

/// A rate is of the last 10 to 15 seconds, so it ends with the traffic.
#[tokio::test(start_paused = true)]
async fn rates_follow_the_traffic() {
    let api = Api::start().await;
    let (queue, group) = api.queue_and_group("q").await;
    for _ in 0..40 {
        api.send(&queue, r#"{"body":1}"#).await;
        let message = api.consume(&group, "max_msgs=1").await;
        api.ack(&group, &message, "success").await.expect(200);
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    let busy = queue_of(&api, "q").await;
    assert_eq!((&busy["produced_per_second"], &busy["groups"][0]["consumed_per_second"]), (&json!(2.0), &json!(2.0)));
    tokio::time::sleep(Duration::from_secs(20)).await;
    assert_eq!(queue_of(&api, "q").await["produced_per_second"], 0.0);
}

#[tokio::test(start_paused = true)]
async fn waiting_consumers_are_counted() {
    let api = Api::start().await;
    let (_, group) = api.queue_and_group("q").await;
    let path = format!("{group}/messages?time_wait=10");
    let poll = api.get(&path);
    let look = async {
        tokio::time::sleep(Duration::from_secs(1)).await;
        queue_of(&api, "q").await["groups"][0]["waiting_polls"].clone()
    };
    assert_eq!(tokio::join!(poll, look).1, 1);
    assert_eq!(queue_of(&api, "q").await["groups"][0]["waiting_polls"], 0);
}

/// The age of a backlog that is no longer in memory is read once, and a restart does not change it.
#[cfg(feature = "disk")]
#[tokio::test(start_paused = true)]
async fn the_age_of_a_backlog_survives_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let config = || ServerConfig::default().clock(vector_clock()).data_dir(dir.path().to_owned());
    let api = Api::with(config()).await;
    let (queue, group) = api.queue_and_group("q").await;
    for number in 0..3 {
        api.send(&queue, &format!(r#"{{"body":{number}}}"#)).await;
        tokio::time::sleep(Duration::from_secs(10)).await;
    }
    let message = api.consume(&group, "max_msgs=1").await;
    api.ack(&group, &message, "success").await.expect(200);
    let age = queue_of(&api, "q").await["groups"][0]["oldest_age_ms"].clone();
    assert_eq!(age, 20_000);
    let now = Duration::from_millis(api.get("/overview").await.expect(200)["time"].as_u64().unwrap());
    api.server.close().await;

    let clock = dms_server::clock::Clock::following_tokio(std::time::UNIX_EPOCH + now);
    let api = Api::with(ServerConfig::default().clock(clock).data_dir(dir.path().to_owned())).await;
    for waited in [0, 5_000] {
        tokio::time::sleep(Duration::from_millis(waited)).await;
        assert_eq!(queue_of(&api, "q").await["groups"][0]["oldest_age_ms"], 20_000 + waited);
    }
    api.server.close().await;
}

#[tokio::test(start_paused = true)]
async fn peeking_shows_messages_and_leases_none() {
    let api = Api::start().await;
    let queue = api.queue(r#"{"name":"q","redrive_policy":"enable","max_consume_count":1}"#).await;
    let group = api.group(&queue, "g").await;
    for number in 0..4 {
        api.send(&queue, &format!(r#"{{"body":{number},"attributes":{{"n":{number}}},"tags":["t"]}}"#)).await;
    }
    let first = api.consume(&group, "max_msgs=1").await;
    api.ack(&group, &first, "fail").await.expect(200);
    api.consume(&group, "max_msgs=1&ack_wait=30").await;

    let page = api.get(&format!("{group}/peek?max=2")).await.expect(200);
    let states: Vec<_> = page.as_array().unwrap().iter().map(|m| (&m["message"]["body"], &m["state"])).collect();
    assert_eq!(states, [(&json!(1), &json!("leased")), (&json!(2), &json!("available"))]);
    assert_eq!(page[0]["left_ms"], 30_000);
    assert_eq!(page[1]["message"], json!({ "body": 2, "attributes": { "n": 2 }, "tags": ["t"] }));
    let from = page[1]["sequence"].as_u64().unwrap() + 1;
    let rest = api.get(&format!("{group}/peek?from={from}")).await.expect(200);
    assert_eq!(rest.as_array().unwrap().len(), 1);
    let dead = api.get(&format!("{group}/peek?stream=deadletters")).await.expect(200);
    assert_eq!((&dead[0]["message"]["body"], &dead[0]["dead_letter"]["reason"]), (&json!(0), &json!("failed")));
    assert_eq!(api.consume(&group, "max_msgs=10").await.as_array().unwrap().len(), 2, "nothing else was leased");

    api.get(&format!("{group}/peek?stream=x")).await.refused(400, "DMS.10540014");
    api.get(&format!("{group}/peek?max=0")).await.refused(400, "DMS.10540014");
    api.get(&format!("{queue}/groups/g-00000000-0000-4000-8000-000000000000/peek")).await.refused(404, "DMS.10240405");
}

/// All pages of a group: the sequence numbers of each page, and the size of its answer.
async fn pages(api: &Api, group: &str, max: usize) -> Vec<(Vec<u64>, usize)> {
    let (mut pages, mut from) = (Vec::new(), 0);
    loop {
        let answer = api.get(&format!("{group}/peek?from={from}&max={max}")).await;
        let size = answer.text.len();
        let page = answer.expect(200);
        let page: Vec<_> = page.as_array().unwrap().iter().map(|shown| shown["sequence"].as_u64().unwrap()).collect();
        let Some(last) = page.last() else { return pages };
        from = last + 1;
        pages.push((page, size));
    }
}

/// Leased, failed and new messages, and delayed ones: each is on one page, whatever the pages are cut by.
#[tokio::test(start_paused = true)]
async fn pages_of_a_look_are_bounded_and_have_no_gaps() {
    let api = Api::start().await;
    let (queue, group) = api.queue_and_group("q").await;
    let text = "x".repeat(400_000);
    for number in 1..=30 {
        let delay = if number > 20 { r#","delay_time":60000"# } else { "" };
        api.send(&queue, &format!(r#"{{"body":"{text}"{delay}}}"#)).await;
        if number == 12 {
            // Two batches: one is leased, one failed.
            api.consume(&group, "max_msgs=10&ack_wait=300").await;
            let failed = api.consume(&group, "max_msgs=10").await;
            assert_eq!(api.ack(&group, &failed, "fail").await.status, 200);
        }
    }
    let delayed = 1_u64 << 40;
    let all: Vec<_> = (1..=20).chain((1..=10).map(|seq| delayed + seq)).collect();
    for max in [1, 3, 7, 1_000] {
        let pages = pages(&api, &group, max).await;
        let shown: Vec<_> = pages.iter().flat_map(|(page, _)| page.clone()).collect();
        assert_eq!(shown, all, "max={max}");
        let largest = pages.iter().map(|(_, size)| *size).max().unwrap();
        assert!(largest < 5 * 1024 * 1024, "max={max}: {largest} bytes");
    }
}

/// A page ends with the messages, and not where the label filter skips many of them.
#[tokio::test(start_paused = true)]
async fn a_look_goes_on_behind_messages_that_the_label_filter_skips() {
    let api = Api::start().await;
    let (queue, group) = api.queue_and_group("q").await;
    api.send(&queue, r#"{"body":1,"tags":["mine"]}"#).await;
    let first = api.consume(&group, "tag=mine").await;
    api.ack(&group, &first, "success").await.expect(200);
    let ten = [r#"{"body":2,"tags":["other"]}"#; 10].join(",");
    for _ in 0..30 {
        api.send(&queue, &ten).await;
    }
    api.send(&queue, r#"{"body":3,"tags":["mine"]}"#).await;
    assert_eq!(pages(&api, &group, 100).await.into_iter().map(|(page, _)| page).collect::<Vec<_>>(), [[302]]);
}

#[tokio::test(start_paused = true)]
async fn a_server_without_extensions_has_neither() {
    let api = Api::with(ServerConfig::default().extensions(false).clock(vector_clock())).await;
    let (_, group) = api.queue_and_group("q").await;
    api.get("/overview").await.refused(404, "DMS.10240406");
    api.get(&format!("{group}/peek")).await.refused(404, "DMS.10240406");
}
