//! Two queues in one process: shared limits, a producer that the handlers use, one shutdown, one report.
//!
//! ```text
//! cargo run --example many_queues
//! ```

use std::{error::Error, net::SocketAddr, sync::Arc};

use dms_server::{Server, ServerConfig};
use dms_worker::{
    Client, Producer, Worker,
    message::Message,
    queue::NewQueue,
    runtime::Runtime,
    worker::{Delivery, HandlerError, handler_fn},
};
use tokio::sync::Semaphore;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let server = Server::bind(ServerConfig::default().listen(SocketAddr::from(([127, 0, 0, 1], 0)))).await?;
    let endpoint = format!("http://{}", server.local_addr().ok_or("no address")?);
    tokio::spawn(server.run(std::future::pending()));
    let client = Client::builder(endpoint, "local").build()?;
    for name in ["orders", "mails"] {
        let queue = client.create_queue(NewQueue::new(name)).await?.id;
        client.create_groups(&queue, &["workers"]).await?;
        for number in 0..20 {
            client.send(&queue, &[Message::text(&format!("{name} {number}"))]).await?;
        }
    }
    let audit = client.create_queue(NewQueue::new("audit")).await?.id;
    let audit = Producer::builder(client.clone(), audit).build()?;

    let handled = Arc::new(Semaphore::new(0));
    let worker = |queue: &str, weight: u32| {
        let (audit, handled) = (audit.clone(), handled.clone());
        let handler = handler_fn(move |delivery: Delivery| {
            let (audit, handled) = (audit.clone(), handled.clone());
            async move {
                // Not awaited: the runtime sends the remaining messages when the workers have ended.
                let _receipt =
                    audit.enqueue(Message::new(delivery.body().clone())).await.map_err(HandlerError::retry)?;
                handled.add_permits(1);
                Ok(())
            }
        });
        Worker::builder(client.clone()).queue(queue).group("workers").handler(handler).weight(weight).build()
    };
    let runtime = Runtime::builder()
        .worker(worker("orders", 3)?) // three times the capacity of `mails` when both need it
        .worker(worker("mails", 1)?)
        .producer("audit", audit.clone())
        .max_in_flight(16)
        .build()?;
    let report = runtime.run(async { drop(handled.acquire_many(40).await) }).await;

    for end in &report.workers {
        println!("{}: {} handled", end.name, end.result.as_ref().map_or(0, |counts| counts.done));
    }
    println!("audit: {} sent, drained: {}", report.producers[0].report.sent, report.drained);
    Ok(())
}
