//! A sidecar that sends the rows of an application's table.

use dms_worker_postgres_fixture::PgServer;
use serde_json::{Value, json};

use super::{App, Running, worker};

#[tokio::test]
async fn committed_rows_of_an_outbox_are_sent_and_deleted() {
    let Some(postgres) = PgServer::shared() else { return };
    let mut app = App::start().await;
    let handler = format!("{{http: {{url: 'http://{}/'}}}}", app.address);
    let yaml = worker(&handler, "");
    let url = postgres.url();
    let outbox = format!("outboxes: [{{postgres: {{url: '{url}', schema: shop}}, poll_interval: 1ms}}]\n");
    let sidecar = Running::start(3, &(yaml + &outbox)).await;
    let sql = |sql: &str| postgres.psql("postgres", sql);
    let insert =
        "INSERT INTO shop.outbox (queue, body, attributes) VALUES ('orders', '{\"id\": 1}', '{\"shop\": \"north\"}')";
    // The sidecar creates the table.
    while sql(&format!("BEGIN; {insert}; ROLLBACK; BEGIN; {insert}; COMMIT")).is_err() {
        tokio::task::yield_now().await;
    }
    let got = app.next().await;
    let attributes: Value = serde_json::from_str(got.header("dms-attributes").unwrap()).unwrap();
    assert_eq!((&got.body, &attributes["shop"]), (&json!({"id": 1}), &json!("north")));
    assert_eq!(attributes["dms-deduplication-key"].as_str().map(str::len), Some(36));
    while sql("SELECT count(*) FROM shop.outbox").unwrap() != ["0"] {
        tokio::task::yield_now().await;
    }
    sidecar.until(|group| group.consumed_messages == 1 && group.produced_messages == 1).await;
    assert!(sidecar.stop().await.drained);
}
