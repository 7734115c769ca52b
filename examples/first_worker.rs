//! The first worker of the README. It needs a server with the queue `orders` and the group `billing`:
//!
//! ```text
//! dms-worker serve & dms-worker queue create orders --group billing --max-consume-count 3
//! cargo run --example first_worker
//! ```

use dms_worker::{Client, HandlerError, Json, Worker, handler_fn};

#[derive(serde::Deserialize)]
struct Order {
    id: u64,
    cents: u64,
}

async fn bill(Json(order): Json<Order>) -> Result<(), HandlerError> {
    tracing::info!("order {}: {} cents", order.id, order.cents);
    Ok(()) // an error means "failed": the message is redelivered
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    tracing_subscriber::fmt().init();
    let endpoint = std::env::var("DMS_WORKER_DMS__ENDPOINT").unwrap_or("http://127.0.0.1:9400".into());
    let client = Client::builder(endpoint, "local").build()?;
    let worker = Worker::builder(client).queue("orders").group("billing").handler(handler_fn(bill)).build()?;
    worker.run(async { drop(tokio::signal::ctrl_c().await) }).await?;
    Ok(())
}
