//! The hot path of the sidecar, for `benches/instructions.sh`: a batch of ten messages of 1 KiB is sent to a server in memory, each
//! message is delivered to an application over HTTP, and the batch is acknowledged. All of it runs on one thread.
//!
//! `HOT_PATH=sidecar_batch:count` is the number of batches, 100 without it.

use std::{
    error::Error,
    fs,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

use axum::{Router, http::StatusCode, routing::post};
use dms_worker::{Client, Message};
use dms_worker_cli::{
    config::{Request, load},
    sidecar::Sidecar,
};
use tokio::{net::TcpListener, sync::Notify};
use tokio_util::sync::CancellationToken;

const BATCH: u64 = 10;

fn main() -> Result<(), Box<dyn Error>> {
    let asked = std::env::var("HOT_PATH").unwrap_or_default();
    let batches = asked.strip_prefix("sidecar_batch:").map_or(Ok(100), str::parse)?;
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(run(batches))
}

async fn run(batches: u64) -> Result<(), Box<dyn Error>> {
    let (handled, changed) = (Arc::new(AtomicU64::new(0)), Arc::new(Notify::new()));
    let (counter, notify) = (handled.clone(), changed.clone());
    let application = Router::new().route(
        "/",
        post(move || {
            counter.fetch_add(1, Relaxed);
            notify.notify_one();
            async { StatusCode::OK }
        }),
    );
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let url = format!("http://{}/", listener.local_addr()?);
    tokio::spawn(async move { axum::serve(listener, application).await });

    let folder = tempfile::tempdir()?;
    let file = folder.path().join("config.yaml");
    let server = "server: {listen: '127.0.0.1:0', queues: [{name: bench, groups: [bench]}]}";
    let worker = format!("workers: [{{name: bench, queue: bench, group: bench, handler: {{http: {{url: '{url}'}}}}}}]");
    fs::write(&file, format!("{server}\n{worker}\n"))?;
    let sidecar = Sidecar::start(load(&Request::new().file(file))?.config).await?;
    let address = sidecar.server_addr().ok_or("the server has no address")?;
    let stop = CancellationToken::new();
    let running = tokio::spawn(sidecar.run(stop.clone()));

    let client = Client::builder(format!("http://{address}"), "local").build()?;
    let queue = client.find_queue("bench").await?.id;
    let messages = vec![Message::text(&"x".repeat(1_024)); usize::try_from(BATCH)?];
    for batch in 1..=batches {
        client.send(&queue, &messages).await?;
        while handled.load(Relaxed) < batch * BATCH {
            changed.notified().await;
        }
    }
    stop.cancel();
    running.await??;
    Ok(())
}
