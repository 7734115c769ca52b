//! Queues, groups, tags and quotas (API reference 5.1, 5.2, 5.4, 5.5).

use dms_protocol::queue::{NewQueue, ProjectId, QueueMode, QueueTag};
use dms_server::broker::{
    Broker, BrokerError, Stream, Usage,
    embedded::{EmbeddedConfig, StartPosition},
};

use super::stage::{Stage, on_each_store, on_each_store_with, take, texts};

/// 5.1.1-5.1.4.
#[tokio::test(start_paused = true)]
async fn a_queue_from_creation_to_deletion() {
    let described = NewQueue::new("orders").mode(QueueMode::Fifo).dead_letters_after(7).description("shop");
    on_each_store(described, async |s: Stage| {
        let shown = s.broker.queue(&s.project, &s.queue).await.unwrap();
        assert_eq!((shown.name.as_str(), shown.mode, shown.description.as_str()), ("orders", QueueMode::Fifo, "shop"));
        assert_eq!((shown.dead_letters, shown.max_consume_count, shown.group_count), (Some(true), Some(7), 2));
        assert_eq!((shown.reservation_minutes, shown.max_message_bytes, shown.kafka_topic), (4_320, 524_288, None));
        assert_eq!(shown.created_ms, 1_700_000_000_000);
        let again = s.broker.create_queue(&s.project, NewQueue::new("orders")).await;
        assert!(matches!(again, Err(BrokerError::QueueExists(name)) if name == "orders"));
        s.broker.create_queue(&"other".into(), NewQueue::new("orders")).await.unwrap();
        let newer = s.broker.create_queue(&s.project, NewQueue::new("newer")).await.unwrap();
        let names: Vec<_> = s.broker.queues(&s.project).await.unwrap().into_iter().map(|queue| queue.name).collect();
        assert_eq!(names, ["newer", "orders"]);
        s.broker.delete_queue(&s.project, &newer.id).await.unwrap();
        assert!(matches!(s.broker.queue(&s.project, &newer.id).await, Err(BrokerError::QueueNotFound)));
    })
    .await;
}

/// A project's queues are its own.
#[tokio::test(start_paused = true)]
async fn another_project_does_not_see_a_queue() {
    on_each_store(NewQueue::new("q"), async |s: Stage| {
        let other = ProjectId::new("other");
        assert!(s.broker.queues(&other).await.unwrap().is_empty());
        assert!(matches!(s.broker.queue(&other, &s.queue).await, Err(BrokerError::QueueNotFound)));
        assert!(matches!(s.broker.delete_queue(&other, &s.queue).await, Err(BrokerError::QueueNotFound)));
        let mut path = s.group(0);
        path.project = other;
        let refused = s.broker.lease(&path, Stream::Messages, take(1)).await;
        assert!(matches!(refused, Err(BrokerError::QueueNotFound)));
    })
    .await;
}

/// 5.1.1: 30 queues of each kind; DMS.10240020.
#[tokio::test(start_paused = true)]
async fn quotas_count_kafka_queues_separately() {
    let mut config = EmbeddedConfig::default();
    config.quotas.queues = 2;
    config.project_quotas.insert("rich".into(), config.quotas.queues(3));
    on_each_store_with(config, NewQueue::new("q"), async |s: Stage| {
        let create = |project: &'static str, name: &'static str, mode| async move { (project, name, mode) };
        for (project, name, mode, fits) in [
            ("p", "q2", QueueMode::Normal, true),
            ("p", "q3", QueueMode::Fifo, false),
            ("p", "k1", QueueMode::KafkaHa, true),
            ("p", "k2", QueueMode::KafkaHt, true),
            ("p", "k3", QueueMode::KafkaHt, false),
            ("rich", "q1", QueueMode::Normal, true),
            ("rich", "q2", QueueMode::Normal, true),
            ("rich", "q3", QueueMode::Normal, true),
        ] {
            create(project, name, mode).await;
            let created = s.broker.create_queue(&project.into(), NewQueue::new(name).mode(mode)).await;
            match created {
                Ok(_) => assert!(fits, "{project} {name}"),
                Err(error) => assert!(!fits && matches!(error, BrokerError::QueueQuota(2)), "{project} {name}"),
            }
        }
        assert_eq!(s.broker.usage(&s.project).await.unwrap(), Usage { queues: 2, kafka_queues: 2 });
        assert_eq!(s.broker.quotas(&"rich".into()).queues, 3);
    })
    .await;
}

/// 5.2.1: all or none, at most three, names unique in the queue.
#[tokio::test(start_paused = true)]
async fn groups_are_created_all_or_none() {
    on_each_store(NewQueue::new("q"), async |s: Stage| {
        let create = |names: &'static [&'static str]| {
            let names: Vec<String> = names.iter().map(|&name| name.into()).collect();
            let (broker, project, queue) = (&s.broker, &s.project, &s.queue);
            async move { broker.create_groups(project, queue, &names).await }
        };
        assert!(matches!(create(&["c", "a"]).await, Err(BrokerError::GroupExists(name)) if name == "a"));
        assert!(matches!(create(&["c", "c"]).await, Err(BrokerError::GroupExists(name)) if name == "c"));
        assert!(matches!(create(&["c", "d"]).await, Err(BrokerError::GroupQuota(3))));
        assert!(create(&["c"]).await.unwrap()[0].as_str().starts_with("g-"));
        let list = s.broker.groups(&s.project, &s.queue).await.unwrap();
        assert_eq!(list.groups.iter().map(|group| group.name.as_str()).collect::<Vec<_>>(), ["a", "b", "c"]);
        assert_eq!((list.queue_name.as_str(), list.dead_letters), ("q", false));
        s.broker.delete_group(&s.group(1)).await.unwrap();
        assert!(matches!(s.broker.delete_group(&s.group(1)).await, Err(BrokerError::GroupNotFound)));
        create(&["b"]).await.unwrap();
    })
    .await;
}

/// Groups created later begin at the oldest message, or behind the newest, as configured.
#[tokio::test(start_paused = true)]
async fn new_group_starts_decides_where_a_later_group_starts() {
    for (starts, expected) in [(StartPosition::Beginning, vec!["1", "2", "3"]), (StartPosition::End, vec!["3"])] {
        let config = EmbeddedConfig::default().new_group_starts(starts);
        on_each_store_with(config, NewQueue::new("q"), async |mut s: Stage| {
            s.send(&["1", "2"]).await;
            s.groups = s.broker.create_groups(&s.project, &s.queue, &["late".into()]).await.unwrap();
            s.send(&["3"]).await;
            assert_eq!(texts(&s.take(10).await), expected);
        })
        .await;
    }
}

/// 5.4.1-5.4.3: equal keys are overwritten, missing ones passed over, at most ten.
#[tokio::test(start_paused = true)]
async fn tags_of_queues_and_project() {
    on_each_store(NewQueue::new("q"), async |s: Stage| {
        let tag = |key: &str, value: &str| QueueTag { key: key.into(), value: value.into() };
        let put = |tags| s.broker.put_tags(&s.project, &s.queue, tags);
        put(vec![tag("env", "test"), tag("team", "a")]).await.unwrap();
        put(vec![tag("env", "prod")]).await.unwrap();
        assert_eq!(s.broker.tags(&s.project, &s.queue).await.unwrap(), [tag("env", "prod"), tag("team", "a")]);
        let other = s.broker.create_queue(&s.project, NewQueue::new("other")).await.unwrap().id;
        s.broker.put_tags(&s.project, &other, vec![tag("env", "test"), tag("team", "a")]).await.unwrap();
        let all = s.broker.project_tags(&s.project).await.unwrap();
        let all: Vec<_> = all.into_iter().map(|tag| (tag.key, tag.values.join(","))).collect();
        assert_eq!(all, [("env".to_owned(), "prod,test".to_owned()), ("team".to_owned(), "a".to_owned())]);
        let gone = vec![("env".into(), Some("test".into())), ("team".into(), None), ("none".into(), None)];
        s.broker.delete_tags(&s.project, &s.queue, gone).await.unwrap();
        assert_eq!(s.broker.tags(&s.project, &s.queue).await.unwrap(), [tag("env", "prod")]);
        let many = (0..10).map(|number| tag(&number.to_string(), "")).collect();
        assert!(matches!(put(many).await, Err(BrokerError::TagQuota(10))));
        assert_eq!(s.broker.tags(&s.project, &s.queue).await.unwrap().len(), 1);
    })
    .await;
}

/// Kafka queues name their topic (5.1.1).
#[tokio::test(start_paused = true)]
async fn a_kafka_queue_has_a_topic() {
    on_each_store(NewQueue::new("q").mode(QueueMode::KafkaHa), async |s: Stage| {
        let shown = s.broker.queue(&s.project, &s.queue).await.unwrap();
        assert_eq!(shown.kafka_topic, Some(format!("k-p-{}", s.queue)));
    })
    .await;
}
