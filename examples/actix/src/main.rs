//! An actix application that publishes: it answers a request when the service has stored the message.
//!
//! ```text
//! dms-worker serve &
//! dms-worker queue create orders --group billing --endpoint http://127.0.0.1:9400
//! cargo run --package dms-worker-actix-example &
//! curl -d '{"id": 1, "cents": 250}' http://127.0.0.1:8080/orders
//! ```

use std::{error::Error, time::Duration};

use actix_web::{App, HttpResponse, HttpServer, post, web};
use dms_worker::{Client, Message, Producer};
use serde::{Deserialize, Serialize};

#[derive(Serialize, Deserialize)]
struct Order {
    id: u64,
    cents: u64,
}

#[post("/orders")]
async fn order(orders: web::Data<Producer>, body: web::Bytes) -> HttpResponse {
    let message = serde_json::from_slice::<Order>(&body).and_then(|order| Message::json(&order));
    let message = match message {
        Ok(message) => message,
        Err(error) => return HttpResponse::BadRequest().body(error.to_string()),
    };
    match orders.send(message).await {
        Ok(sent) => HttpResponse::Accepted().body(sent.id.map(|id| id.to_string()).unwrap_or_default()),
        // The message may have been stored: the caller may repeat it, and consumers should be idempotent.
        Err(error) if error.is_unsure() => HttpResponse::GatewayTimeout().body(error.to_string()),
        Err(error) => HttpResponse::ServiceUnavailable().body(error.to_string()),
    }
}

/// Concurrent requests share batches, so an application has one producer for all its threads.
async fn producer(client: Client) -> Result<Producer, Box<dyn Error>> {
    let queue = client.find_queue("orders").await?.id;
    Ok(Producer::builder(client, queue).linger(Duration::from_millis(5)).return_ids(true).build()?)
}

#[actix_web::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let producer = producer(Client::builder("http://127.0.0.1:9400", "local").build()?).await?;
    let shared = web::Data::new(producer.clone());
    // It stops at Ctrl-C or SIGTERM, and answers the requests that it has.
    HttpServer::new(move || App::new().app_data(shared.clone()).service(order)).bind("127.0.0.1:8080")?.run().await?;
    // At the end: what was accepted is sent.
    let report = producer.close(Duration::from_secs(5)).await;
    println!("{} sent, {} failed", report.sent, report.failed);
    Ok(())
}

#[cfg(test)]
mod tests;
