//! Sends many messages: full requests, several in flight, one result for each message.
//!
//! ```text
//! cargo run --example producer_batching
//! ```

use std::{error::Error, net::SocketAddr, time::Duration};

use dms_server::{Server, ServerConfig};
use dms_worker::{Client, Producer, message::Message, queue::NewQueue};
use serde_json::json;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let server = Server::bind(ServerConfig::default().listen(SocketAddr::from(([127, 0, 0, 1], 0)))).await?;
    let endpoint = format!("http://{}", server.local_addr().ok_or("no address")?);
    tokio::spawn(server.run(std::future::pending()));
    let client = Client::builder(endpoint, "local").build()?;
    let queue = client.create_queue(NewQueue::new("orders")).await?.id;

    let producer = Producer::builder(client, queue)
        .linger(Duration::from_millis(5)) // how long a message waits for others to share its request
        .max_in_flight(16) // concurrent requests
        .return_ids(true)
        .build()?;

    // One message; the future completes when the service has stored it.
    let order = Message::json(&json!({"id": 0, "cents": 250}))?.attribute("customer", "c-7").tag("express");
    if let Some(id) = producer.send(order).await?.id {
        println!("stored as {id}");
    }

    // Many messages: each is accepted when there is capacity, and returns a receipt.
    let mut receipts = Vec::new();
    for id in 1..=1_000 {
        receipts.push(producer.enqueue(Message::json(&json!({"id": id, "cents": id * 10}))?).await?);
    }
    for receipt in receipts {
        receipt.await?;
    }

    // An invalid message fails alone, before anything is sent.
    let mixed =
        [Message::text("fine"), Message::text("bad label").tag("no blanks"), Message::text(&"x".repeat(600_000))];
    for result in producer.send_all(mixed).await {
        match result {
            Ok(_) => println!("stored"),
            Err(error) if error.is_unsure() => println!("perhaps stored: {error}"),
            Err(error) => println!("not stored: {error}"),
        }
    }

    let report = producer.close(Duration::from_secs(5)).await;
    println!("{} messages in {} requests, {} lost", report.sent, report.requests, report.failed + report.unsure);
    Ok(())
}
