//! Messages that keep failing become dead letters of their group; here they are mended and worked off.
//!
//! ```text
//! cargo run --example dead_letters
//! ```

use std::{error::Error, sync::Arc};

use dms_worker::{
    Client,
    message::Message,
    queue::NewQueue,
    server::{Server, ServerConfig},
    worker::{Event, HandlerError, Observer, Outcome, Worker, handler_fn},
};
use tokio::sync::Semaphore;

/// Lets the worker run until so many handlers have ended.
struct Ended(Semaphore);

impl Observer for Ended {
    fn observe(&self, event: &Event<'_>) {
        if let Event::Handled { outcome, .. } = event {
            if let Outcome::Failed(error) = outcome {
                println!("failed: {error}");
            }
            self.0.add_permits(1);
        }
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let server = Server::bind(ServerConfig { listen: Some(([127, 0, 0, 1], 0).into()), ..Default::default() }).await?;
    let endpoint = format!("http://{}", server.local_addr().ok_or("no address")?);
    tokio::spawn(server.run(std::future::pending()));
    let client = Client::builder(endpoint, "local").build()?;
    let queue = client.create_queue(NewQueue::new("orders").dead_letters_after(2)).await?.id;
    client.create_groups(&queue, &["billing"]).await?;
    client.send(&queue, &[Message::text("12 cents"), Message::text("a dozen")]).await?;

    // "a dozen" fails twice and becomes a dead letter: three runs in all.
    let charge = handler_fn(|delivery| async move {
        let text: String = delivery.json()?;
        let cents: u64 =
            text.trim_end_matches(" cents").parse().map_err(|_| HandlerError::retry(format!("{text}?")))?;
        println!("charged {cents} cents");
        Ok(())
    });
    work(Worker::builder(client.clone(), "orders", "billing", charge), 3).await?;
    let group = client.find_group(&queue, "billing").await?;
    println!("dead letters: {}", group.available_dead_letters.unwrap_or(0));

    // The same runtime on the group's dead letters.
    let mend = handler_fn(|delivery| async move {
        println!("mended {}", delivery.body().as_str());
        Ok(())
    });
    work(Worker::builder(client.clone(), "orders", "billing", mend).dead_letters(), 1).await?;
    let group = client.find_group(&queue, "billing").await?;
    println!("dead letters: {}", group.available_dead_letters.unwrap_or(0));
    Ok(())
}

async fn work(worker: dms_worker::worker::WorkerBuilder, runs: u32) -> Result<(), Box<dyn Error>> {
    let ended = Arc::new(Ended(Semaphore::new(0)));
    let worker = worker.observer(ended.clone()).build()?;
    worker.run(async { drop(ended.0.acquire_many(runs).await) }).await?;
    Ok(())
}
