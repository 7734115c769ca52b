//! The accept loop: a bounded number of connections, and an orderly end.

use std::sync::Arc;

use axum::Router;
use tokio::{
    net::TcpListener,
    sync::Semaphore,
    time::{Duration, sleep, timeout},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{config::HttpLimits, connection};

/// How long to pause when accepting fails for want of file descriptors or memory.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Accepts connections until `stopping` is set off, then waits for the requests in progress, no longer than the grace.
pub(crate) async fn run(listener: TcpListener, router: Router, limits: HttpLimits, stopping: CancellationToken) {
    let permits = Arc::new(Semaphore::new(limits.connections));
    let connections = TaskTracker::new();
    // Ends the connections that outlive the grace when this function is left, and all of them when it is dropped.
    let killed = CancellationToken::new();
    let _kill = killed.clone().drop_guard();
    let accept = async {
        loop {
            // The permit comes first: a connection over the limit waits in the kernel's queue, not in our memory.
            let Ok(permit) = Arc::clone(&permits).acquire_owned().await else { return };
            let stream = match listener.accept().await {
                Ok((stream, _)) => stream,
                Err(error) => {
                    tracing::warn!(%error, "a connection could not be accepted");
                    sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            };
            if let Err(error) = stream.set_nodelay(true) {
                tracing::debug!(%error, "TCP_NODELAY could not be set");
            }
            let serving = connection::serve(stream, router.clone(), limits.clone(), stopping.clone());
            let killed = killed.clone();
            connections.spawn(async move {
                let _permit = permit;
                killed.run_until_cancelled(serving).await;
            });
        }
    };
    stopping.run_until_cancelled(accept).await;
    drop(listener);
    connections.close();
    if timeout(limits.shutdown_grace, connections.wait()).await.is_err() {
        tracing::warn!(left = connections.len(), "connections outlived the grace period and are cut");
    }
}
