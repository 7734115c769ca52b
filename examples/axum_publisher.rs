//! A web application that publishes: it answers a request when the service has stored the message.
//!
//! ```text
//! cargo run --example axum_publisher
//! ```

use std::{error::Error, net::SocketAddr, time::Duration};

use axum::{Router, extract::State, http::StatusCode, routing::post};
use dms_server::{Server, ServerConfig};
use dms_worker::{Client, Message, NewQueue, Producer};
use serde::{Deserialize, Serialize};
use tokio::net::TcpListener;

#[derive(Serialize, Deserialize)]
struct Order {
    id: u64,
    cents: u64,
}

async fn order(State(orders): State<Producer>, body: String) -> (StatusCode, String) {
    let message = serde_json::from_str::<Order>(&body).and_then(|order| Message::json(&order));
    let message = match message {
        Ok(message) => message,
        Err(error) => return (StatusCode::BAD_REQUEST, error.to_string()),
    };
    match orders.send(message).await {
        Ok(sent) => (StatusCode::ACCEPTED, sent.id.map(|id| id.to_string()).unwrap_or_default()),
        // The message may have been stored: the caller may repeat it, and consumers should be idempotent.
        Err(error) if error.is_unsure() => (StatusCode::GATEWAY_TIMEOUT, error.to_string()),
        Err(error) => (StatusCode::SERVICE_UNAVAILABLE, error.to_string()),
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let server = Server::bind(ServerConfig::default().listen(SocketAddr::from(([127, 0, 0, 1], 0)))).await?;
    let endpoint = format!("http://{}", server.local_addr().ok_or("no address")?);
    tokio::spawn(server.run(std::future::pending()));
    let client = Client::builder(endpoint, "local").build()?;
    let queue = client.create_queue(NewQueue::new("orders")).await?.id;

    // One producer for the application: concurrent requests share batches.
    let producer = Producer::builder(client, queue).linger(Duration::from_millis(5)).return_ids(true).build()?;
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let url = format!("http://{}/orders", listener.local_addr()?);
    let app = Router::new().route("/orders", post(order)).with_state(producer.clone());
    tokio::spawn(async { axum::serve(listener, app).await });

    for body in [r#"{"id": 1, "cents": 250}"#, "no order"] {
        let answer = reqwest::Client::new().post(&url).body(body).send().await?;
        println!("{}: {}", answer.status(), answer.text().await?);
    }

    // At the end: what was accepted is sent.
    let report = producer.close(Duration::from_secs(5)).await;
    println!("{} sent, {} failed", report.sent, report.failed);
    Ok(())
}
