//! Purging queues and setting how long they keep messages, on the admin address.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use dms_protocol::queue::NewQueue;
use dms_server::{
    Server,
    broker::{Broker, NewMessage, RetentionPolicy, embedded::EmbeddedConfig},
};
use tokio::sync::oneshot;

use super::{
    PROJECT,
    admin::{config, get, json, post},
};

/// A server with the queue `orders` and its group `g` until `scene` has ended.
async fn on_server(broker: EmbeddedConfig, scene: impl AsyncFn(SocketAddr, Arc<dyn Broker>)) {
    let server = Server::bind(config().broker(broker)).await.unwrap();
    let (admin, broker) = (server.admin_addr().unwrap(), server.broker().clone());
    let (stop, stopped) = oneshot::channel::<()>();
    let running = tokio::spawn(server.run(async { drop(stopped.await) }));
    scene(admin, broker).await;
    stop.send(()).unwrap();
    running.await.unwrap().unwrap();
}

async fn send(broker: &Arc<dyn Broker>, count: usize, delay: Duration) {
    let message = NewMessage {
        json: r#"{"body":1,"attributes":{}}"#.into(),
        body_bytes: 1,
        tags: Vec::new(),
        delay,
        origin: None,
        deduplication: None,
    };
    let queue = broker.overview()[0].queue.id.clone();
    broker.append(&PROJECT.into(), &queue, vec![message; count]).await.unwrap();
}

/// By name or by id, only with POST; unknown queues and groups are refused.
#[tokio::test]
async fn queues_and_groups_are_purged() {
    on_server(EmbeddedConfig::default(), async |admin, broker| {
        send(&broker, 3, Duration::ZERO).await;
        send(&broker, 2, Duration::from_secs(60)).await;
        let overview = broker.overview().remove(0);
        let (queue, group) = (overview.queue.id.to_string(), overview.groups[0].group.id.to_string());

        assert_eq!(get(admin, "/admin/queues/orders/purge", "").await.0, 405, "not by a look");
        for (path, named) in [
            ("nope/purge", "There is no queue \"nope\"."),
            ("nope/update?retention_ms=9000", "There is no queue \"nope\"."),
            ("orders/purge?group=nope", "The queue \"orders\" has no group \"nope\"."),
            ("orders/purge?project=nope", "There is no queue \"orders\" in the project \"nope\"."),
        ] {
            let (status, answer) = post(admin, &format!("/admin/queues/{path}")).await;
            let text = json(&answer)["error_msg"].as_str().unwrap().to_owned();
            assert!(status == 404 && text.ends_with(named), "{path}: {status} {text}");
        }
        let (status, answer) = post(admin, "/admin/queues/orders/update?description=%ff").await;
        assert!(status == 400 && answer.contains("is not UTF-8"), "{status} {answer}");
        // A slip of the pen must not purge more than was meant.
        for (parameters, named) in [
            ("groups=g", "\"groups\" is not a parameter"),
            ("group=", "\"group\" has no value"),
            ("group", "\"group\" has no value"),
            ("group=g&group=h", "\"group\" is given twice"),
        ] {
            let (status, answer) = post(admin, &format!("/admin/queues/orders/purge?{parameters}")).await;
            let text = json(&answer)["error_msg"].to_string().replace("\\\"", "\"");
            assert!(status == 400 && text.contains(named), "{parameters}: {status} {answer}");
        }
        assert_eq!(post(admin, "/admin/queues/orders/update?retention_ms=9000&delete_when_setled=true").await.0, 400);
        assert_eq!(json(&get(admin, "/admin/queues", "").await.1)[0]["produced_messages"], 5);

        let (status, answer) = post(admin, "/admin/queues/orders/purge?group=g").await;
        assert_eq!(status, 200, "{answer}");
        let expected = serde_json::json!({
            "queue_id": queue, "queue": "orders", "group_id": group, "group": "g",
            "purged_messages": 3, "purged_delayed_messages": 0,
        });
        assert_eq!(json(&answer), expected);
        let shown = json(&get(admin, "/admin/queues", "").await.1);
        assert_eq!(
            (&shown[0]["produced_messages"], &shown[0]["groups"][0]["available_messages"]),
            (&5.into(), &0.into())
        );

        let answer = json(&post(admin, &format!("/admin/queues/{queue}/purge?project={PROJECT}")).await.1);
        assert_eq!(
            (&answer["purged_messages"], &answer["purged_delayed_messages"]),
            (&3.into(), &2.into()),
            "{answer}"
        );
        assert_eq!(answer.get("group"), None);
        assert_eq!(json(&get(admin, "/admin/queues", "").await.1)[0]["produced_messages"], 0);
    })
    .await;
}

/// A name that several projects use is not guessed at.
#[tokio::test]
async fn an_ambiguous_queue_name_is_refused() {
    on_server(EmbeddedConfig::default(), async |admin, broker| {
        broker.create_queue(&"second".into(), NewQueue::new("orders")).await.unwrap();
        send(&broker, 3, Duration::ZERO).await;
        let (status, answer) = post(admin, "/admin/queues/orders/purge").await;
        assert_eq!((status, answer.contains("several projects")), (400, true), "{answer}");
        assert_eq!(json(&post(admin, "/admin/queues/orders/purge?project=second").await.1)["purged_messages"], 0);
        assert_eq!(json(&get(admin, "/admin/queues", "").await.1)[0]["produced_messages"], 3);
    })
    .await;
}

/// Each setting is changed separately and reset with `default`; values out of range are refused with the range.
#[tokio::test]
async fn the_retention_of_a_queue_is_set() {
    on_server(EmbeddedConfig::default(), async |admin, _| {
        let update = async |parameters: &str| post(admin, &format!("/admin/queues/orders/update{parameters}")).await;
        let kept = async |parameters: &str| {
            let (status, answer) = update(parameters).await;
            assert_eq!(status, 200, "{answer}");
            let answer = json(&answer);
            let shown = json(&get(admin, "/admin/queues", "").await.1);
            assert_eq!(shown[0]["retention_ms"], answer["retention_ms"]);
            assert_eq!(shown[0]["delete_when_settled"], answer["delete_when_settled"]);
            (answer["retention_ms"].as_u64().unwrap(), answer["delete_when_settled"].as_bool().unwrap())
        };
        let day = 86_400_000;
        assert_eq!(kept("?retention_ms=1000").await, (1_000, false));
        assert_eq!(kept("?delete_when_settled=true").await, (1_000, true));
        assert_eq!(kept("?retention_ms=259200000").await, (3 * day, true));
        assert_eq!(kept("?retention_ms=default").await, (3 * day, true));
        assert_eq!(kept("?retention_ms=5000&delete_when_settled=false").await, (5_000, false));
        for wrong in [
            "",
            "?retention_ms=999",
            "?retention_ms=259200001",
            "?retention_ms=1h",
            "?retention_ms=-1",
            "?delete_when_settled=yes",
        ] {
            let (status, answer) = update(wrong).await;
            assert_eq!(status, 400, "{wrong}: {answer}");
        }
        assert!(update("?retention_ms=0").await.1.contains("1000 to 259200000"));
        assert_eq!(kept("?delete_when_settled=default").await, (5_000, false), "the refused ones changed nothing");
    })
    .await;
}

/// Updates of different settings that arrive together are both in force afterwards.
#[tokio::test]
async fn updates_at_the_same_time_keep_each_other() {
    on_server(EmbeddedConfig::default(), async |admin, broker| {
        for retention in 2_000..2_010_u64 {
            let when_settled = retention % 2 == 0;
            let (first, second) = (
                format!("/admin/queues/orders/update?retention_ms={retention}"),
                format!("/admin/queues/orders/update?delete_when_settled={when_settled}"),
            );
            let (first, second) = tokio::join!(post(admin, &first), post(admin, &second));
            assert_eq!((first.0, second.0), (200, 200));
            let set = broker.overview()[0].retention_set;
            assert_eq!(
                (set.retention, set.delete_when_settled),
                (Some(Duration::from_millis(retention)), Some(when_settled))
            );
        }
    })
    .await;
}

/// The description and the number of failures.
#[tokio::test]
async fn properties_of_a_queue_are_changed() {
    on_server(EmbeddedConfig::default(), async |admin, broker| {
        let update = async |query: &str| post(admin, &format!("/admin/queues/orders/update?{query}")).await;
        let (status, answer) = update("description=new%20ones&max_consume_count=7").await;
        assert_eq!(status, 200, "{answer}");
        let shown = json(&answer);
        assert_eq!((&shown["description"], &shown["max_consume_count"]), (&"new ones".into(), &7.into()), "{shown}");
        let queue = broker.overview()[0].queue.clone();
        assert_eq!((queue.description.as_str(), queue.max_consume_count), ("new ones", Some(7)));
        assert_eq!(json(&update("description=").await.1)["description"], "");
        let shown = json(&update("max_consume_count=none").await.1);
        assert!(shown.get("max_consume_count").is_none(), "{shown}");
        let long = format!("description={}", "x".repeat(161));
        for wrong in ["max_consume_count=0", "max_consume_count=101", "max_consume_count=x", &long, ""] {
            assert_eq!(update(wrong).await.0, 400, "{wrong}");
        }
    })
    .await;
}

/// Settings of a queue that the configuration has cannot be changed here.
#[tokio::test]
async fn configured_settings_of_a_queue_cannot_be_changed() {
    let mut broker = EmbeddedConfig::default();
    let policy = RetentionPolicy { retention: None, delete_when_settled: Some(true) };
    broker.queue_retention.insert((PROJECT.into(), "orders".to_owned()), policy);
    on_server(broker, async |admin, _| {
        let (status, answer) = post(admin, "/admin/queues/orders/update?delete_when_settled=false").await;
        let text = "The configuration of the server sets delete_when_settled of this queue: change it there.";
        assert_eq!((status, json(&answer)["error_msg"].as_str()), (400, Some(text)), "{answer}");
        assert_eq!(post(admin, "/admin/queues/orders/update?retention_ms=5000").await.0, 200);
        let shown = json(&get(admin, "/admin/queues", "").await.1);
        assert_eq!((&shown[0]["delete_when_settled"], &shown[0]["retention_ms"]), (&true.into(), &5_000.into()));
    })
    .await;
}

/// Messages that expire unread are counted for each group; consumed ones are not.
#[tokio::test]
async fn expiry_of_unread_messages_is_counted() {
    on_server(EmbeddedConfig::default(), async |admin, broker| {
        let queue = broker.overview()[0].queue.id.clone();
        broker.create_groups(&PROJECT.into(), &queue, &["reads".to_owned()]).await.unwrap();
        send(&broker, 3, Duration::ZERO).await;
        let count = async |group: &str, stream: &str| {
            let line = format!("dms_server_expired_unread_messages_total{{project=\"{PROJECT}\",queue=\"orders\",group=\"{group}\",stream=\"{stream}\"}} ");
            let metrics = get(admin, "/metrics", "").await.1;
            metrics.lines().find_map(|found| found.strip_prefix(&line)?.parse::<u64>().ok()).expect(&line)
        };
        assert_eq!(count("g", "messages").await, 0, "there from the start");
        post(admin, "/admin/queues/orders/purge?group=reads").await;
        post(admin, "/admin/queues/orders/update?retention_ms=1000").await;
        while broker.overview()[0].queue.produced_messages > 0 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        assert_eq!((count("g", "messages").await, count("reads", "messages").await), (3, 0));
        assert_eq!(count("g", "deadletters").await, 0);
    })
    .await;
}
