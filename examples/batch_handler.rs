//! A batch handler: messages are collected across polls and handled in one call, for example for a bulk insert, with one verdict for each.
//!
//! ```text
//! cargo run --example batch_handler
//! ```

use std::{error::Error, time::Duration};

use async_trait::async_trait;
use dms_worker::{
    queue::NewQueue,
    testing::TestServer,
    worker::{BatchHandler, Batching, Collect, Delivery, HandlerError},
};

struct Archive;

#[async_trait]
impl BatchHandler for Archive {
    async fn handle_batch(&self, deliveries: Vec<Delivery>) -> Result<Vec<Result<(), HandlerError>>, HandlerError> {
        let rows: Vec<Result<u64, HandlerError>> = deliveries.iter().map(Delivery::json).collect();
        let (good, bad): (Vec<_>, Vec<_>) = rows.iter().partition(|row| row.is_ok());
        println!("one insert of {} rows; {} cannot be decoded", good.len(), bad.len());
        Ok(rows.into_iter().map(|row| row.map(drop)).collect())
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    // A server in this process. Its clock jumps ahead when all tasks wait.
    tokio::time::pause();
    let server = TestServer::start().await;
    let rows = server.group(NewQueue::new("rows").dead_letters_after(1), "archive").await;
    rows.send(1..=95).await;
    rows.send(["no number"]).await;

    let collect = Collect::new().max_messages(50).linger(Duration::from_secs(2));
    let worker = rows.batch_worker(Archive).batching(Batching::Collected(collect)).concurrency(100);
    let report = rows.run_worker(worker).await;
    println!("{} done, {} rejected, {} acknowledged", report.done, report.rejected, report.acknowledged);
    rows.assert_dead_lettered(["no number"]).await;
    Ok(())
}
