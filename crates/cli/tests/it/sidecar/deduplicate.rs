//! Sidecars that do the work of each key once, with a store that they share.

use dms_worker::message::Message;
use dms_worker_postgres_fixture::PgServer;
use dms_worker_redis_fixture::RedisServer;
use serde_json::json;

use super::{App, Running, worker};

/// A message with the number of an order in its body and in an attribute, and a text to tell it from others.
fn order(id: u64, text: &str) -> Message {
    Message::json(&json!({ "order": { "id": id }, "text": text })).unwrap().attribute("order_id", id)
}

async fn sidecar(app: &App, deduplicate: &str) -> Running {
    let handler = format!("{{http: {{url: 'http://{}/'}}}}", app.address);
    Running::start(3, &worker(&handler, &format!("deduplicate: {{{deduplicate}}}"))).await
}

/// Two sidecars, each with its own queue: the second knows what the first has done.
async fn the_second_knows_what_the_first_has_done(deduplicate: &str) {
    let mut app = App::start().await;
    let first = sidecar(&app, deduplicate).await;
    first.send(&[order(7, "original")]).await;
    assert_eq!(app.next().await.body["text"], "original");
    first.until(|group| group.consumed_messages == 1).await;
    first.stop().await;

    let second = sidecar(&app, deduplicate).await;
    second.send(&[order(7, "duplicate"), order(8, "another")]).await;
    assert_eq!(app.next().await.body["text"], "another");
    second.until(|group| group.consumed_messages == 2).await;
    second.stop().await;
    assert_eq!(app.waiting(), 0, "{deduplicate}");
}

#[tokio::test]
async fn sidecars_share_the_keys_of_finished_work_in_postgresql() {
    let Some(postgres) = PgServer::shared() else { return };
    let store = format!("key: order_id, store: {{postgres: {{url: '{}', schema: keys_of_a_test}}}}", postgres.url());
    the_second_knows_what_the_first_has_done(&store).await;
    let key = postgres.psql("postgres", "SELECT scope || ' ' || key FROM keys_of_a_test.keys ORDER BY key").unwrap();
    assert_eq!(key, ["orders/billing 7", "orders/billing 8"]);
}

#[tokio::test]
async fn sidecars_share_the_keys_of_finished_work_in_redis() {
    let Some(redis) = RedisServer::shared() else { return };
    let store = format!("key: /order/id, scope: shop, store: {{redis: {{url: '{}', prefix: 'test:'}}}}", redis.url());
    the_second_knows_what_the_first_has_done(&store).await;
    assert!(redis.command("GET test:shop:7").unwrap().contains("done"));
}

#[tokio::test]
async fn one_sidecar_remembers_keys_in_memory_and_frees_those_of_failures() {
    let mut app = App::start().await;
    let sidecar = sidecar(&app, "key: order_id").await;
    let failing = Message::json(&json!({ "status": 500, "text": "fails" })).unwrap().attribute("order_id", 7);
    sidecar.send(&[failing]).await;
    for _ in 0..3 {
        assert_eq!(app.next().await.body["text"], "fails");
    }
    sidecar.until(|group| group.produced_dead_letters == Some(1)).await;
    for text in ["works", "duplicate"] {
        sidecar.send(&[order(7, text)]).await;
    }
    assert_eq!(app.next().await.body["text"], "works");
    sidecar.until(|group| group.available_messages == 0).await;
    sidecar.send(&[order(9, "last")]).await;
    assert_eq!(app.next().await.body["text"], "last");
    sidecar.stop().await;
}
