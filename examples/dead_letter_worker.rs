//! Consumes dead letters next to the worker that causes them: raises an alert and archives each dead letter in a file.
//!
//! ```text
//! cargo run --example dead_letter_worker
//! ```

use std::{env, error::Error, fs, future::pending, io::Write, net::SocketAddr, path::PathBuf, process};

use dms_server::{Server, ServerConfig};
use dms_worker::{
    Client,
    message::Message,
    queue::NewQueue,
    worker::{Delivery, Handler, HandlerError, Worker, handler_fn},
};
use serde_json::json;
use tokio::sync::mpsc;

/// Appends dead letters to a file as JSON lines, which `dms-worker send` and `dlq redrive --file` read.
struct Archive {
    path: PathBuf,
    alerts: mpsc::UnboundedSender<String>,
}

#[async_trait::async_trait]
impl Handler for Archive {
    async fn handle(&self, delivery: Delivery) -> Result<(), HandlerError> {
        let line = json!({"body": delivery.json::<serde_json::Value>()?, "attributes": delivery.attributes()});
        let path = self.path.clone();
        // On disk before it is acknowledged, so a dead letter is in the queue or in the archive, possibly in both.
        let append = move || {
            let mut file = fs::OpenOptions::new().create(true).append(true).open(path)?;
            writeln!(file, "{line}")?;
            file.sync_data()
        };
        tokio::task::spawn_blocking(append).await??;
        self.alerts.send(format!("order given up: {}", delivery.body().as_str()))?;
        Ok(())
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let server = Server::bind(ServerConfig::default().listen(SocketAddr::from(([127, 0, 0, 1], 0)))).await?;
    let endpoint = format!("http://{}", server.local_addr().ok_or("no address")?);
    tokio::spawn(server.run(pending()));
    let client = Client::builder(endpoint, "local").build()?;
    let queue = client.create_queue(NewQueue::new("orders").dead_letters_after(2)).await?.id;
    client.create_groups(&queue, &["billing"]).await?;
    client.send(&queue, &["12 cents", "a dozen", "7 cents", "some"].map(Message::text)).await?;

    let charge = handler_fn(|delivery: Delivery| async move {
        let text: String = delivery.json()?;
        let cents: u64 = text.trim_end_matches(" cents").parse().map_err(HandlerError::retry)?;
        println!("charged {cents} cents");
        Ok(())
    });
    let (alerts, mut raised) = mpsc::unbounded_channel();
    let path = env::temp_dir().join(format!("dead-letters-{}.jsonl", process::id()));
    let archive = Archive { path: path.clone(), alerts };

    // Two workers with separate limits; they share the client.
    let billing =
        Worker::builder(client.clone()).queue("orders").group("billing").handler(charge).concurrency(64).build()?;
    let dead = Worker::builder(client)
        .queue("orders")
        .group("billing")
        .handler(archive)
        .dead_letters()
        .concurrency(2)
        .build()?;
    let (stop, stopped) = tokio::sync::watch::channel(());
    let until = || {
        let mut stopped = stopped.clone();
        async move { drop(stopped.changed().await) }
    };
    let alerted = async {
        for _ in 0..2 {
            println!("ALERT {}", raised.recv().await.unwrap_or_default());
        }
        stop.send(())
    };
    let (billed, archived, sent) = tokio::join!(billing.run(until()), dead.run(until()), alerted);
    sent?;
    println!("{} charged, {} archived", billed?.done, archived?.done);
    print!("{}", fs::read_to_string(&path)?);
    Ok(fs::remove_file(path)?)
}
