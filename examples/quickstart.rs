//! The program of the README: a server, a producer and a worker in one process.
//!
//! ```text
//! cargo run --example quickstart
//! ```

use std::{error::Error, net::SocketAddr};

use dms_server::{Server, ServerConfig};
use dms_worker::{Client, Delivery, Handler, HandlerError, Message, NewQueue, Worker};
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;

#[derive(Serialize, Deserialize)]
struct Order {
    id: u64,
    cents: u64,
}

struct Billing {
    charged: mpsc::UnboundedSender<Order>,
}

#[async_trait::async_trait]
impl Handler for Billing {
    async fn handle(&self, delivery: Delivery) -> Result<(), HandlerError> {
        let order: Order = delivery.json()?; // an undecodable body is rejected, not retried forever
        self.charged.send(order)?; // any other error means "failed": the message is redelivered
        Ok(())
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let server = Server::bind(ServerConfig::default().listen(SocketAddr::from(([127, 0, 0, 1], 0)))).await?;
    let endpoint = format!("http://{}", server.local_addr().ok_or("no address")?);
    tokio::spawn(server.run(std::future::pending()));

    let client = Client::builder(endpoint, "local").build()?;
    let queue = client.create_queue(NewQueue::new("orders").dead_letters_after(3)).await?.id;
    client.create_groups(&queue, &["billing"]).await?;
    let orders = (1..=3).map(|id| Message::json(&Order { id, cents: id * 250 })).collect::<Result<Vec<_>, _>>()?;
    for outcome in client.send(&queue, &orders).await? {
        outcome?;
    }

    let (charged, mut charges) = mpsc::unbounded_channel();
    let worker = Worker::builder(client)
        .queue("orders")
        .group("billing")
        .handler(Billing { charged })
        .concurrency(64)
        .build()?;
    let report = worker
        .run(async {
            for _ in 0..3 {
                let Some(order) = charges.recv().await else { return };
                println!("order {}: charged {} cents", order.id, order.cents);
            }
        })
        .await?;
    println!("{} handled, {} acknowledged", report.done, report.acknowledged);
    Ok(())
}
