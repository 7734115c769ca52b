//! [`PublisherEndpoint`]: a publisher with its listener, from its start to its end.

use std::{sync::Arc, time::Duration};

use axum::middleware;
use futures_util::future::join;
use tokio::time::sleep;

use crate::{
    config::{self, server_settings},
    sidecar::{
        assemble::listener::{host_check, limits, listen},
        error::SidecarError,
        publisher::{
            IntakeService, Intakes, REQUESTS_GRACE, idempotency::IdempotencyMemories, producers::Producers, router,
        },
        running::{
            publisher::{PublisherKey, RunningPublisher},
            shared::Shared,
        },
    },
};
use dms_server::{
    Tls,
    internal::{
        bearer::{self, BearerAuth},
        connection_limit::Audience,
        host_check::{self, Remedy},
        listener::Listener,
    },
};
use dms_worker::{client::Client, runtime::RuntimeHandle};

/// The configuration keys that a refusal names as the remedy.
const KEYS: Remedy = Remedy { hosts: "publishers[].hosts", credentials: "publishers[].token" };
/// How long a stopped publisher keeps its connections after it accepted the last one.
const FIRST_REQUEST_TIME: Duration = Duration::from_secs(1);

/// A publisher that listens.
#[derive(Debug)]
pub(crate) struct PublisherEndpoint {
    listener: Listener,
    shared: Shared,
    settings: config::Publisher,
    pub(crate) running: Arc<RunningPublisher>,
}

impl PublisherEndpoint {
    /// A publisher on this address, which the key `publishers[PLACE].listen` names.
    ///
    /// # Errors
    /// When the address cannot be listened on, or the certificate cannot be used.
    pub(crate) async fn listen(
        settings: &config::Publisher,
        (place, key): (usize, PublisherKey),
        shared: &Shared,
    ) -> Result<Self, SidecarError> {
        let name = format!("publishers[{place}].listen");
        let listener = listen(settings.listen, &name, settings.tls.as_ref()).await?;
        let listener = listener.named("publisher", Audience::Callers, &shared.connections);
        Ok(Self::on(listener, settings, key, IdempotencyMemories::default(), shared))
    }

    /// A publisher that replaces another one with other settings. It accepts connections on the same socket, and knows the
    /// idempotency keys of the other one.
    ///
    /// # Errors
    /// When the certificate cannot be used.
    pub(crate) fn successor(
        of: &RunningPublisher,
        settings: &config::Publisher,
        shared: &Shared,
    ) -> Result<Self, SidecarError> {
        let tls = settings.tls.as_ref().map(|tls| Tls::load(server_settings::tls(tls))).transpose()?;
        Ok(Self::on(of.listener.successor(tls), settings, of.key, of.memories.clone(), shared))
    }

    fn on(
        listener: Listener,
        settings: &config::Publisher,
        key: PublisherKey,
        memories: IdempotencyMemories,
        shared: &Shared,
    ) -> Self {
        let guard = BearerAuth::new(settings.token.as_ref().map(config::Secret::expose), "publishers[].token");
        let accepting = listener.successor(listener.tls().cloned());
        // The producers of a predecessor still send what they have.
        let producers = Arc::new(Producers::new(settings.max_pending));
        let running = RunningPublisher {
            key,
            listener,
            guard,
            memories,
            #[cfg(feature = "dashboard")]
            queues: settings.queues().cloned().collect(),
            producers,
            stop: shared.stopping.child_token(),
        };
        Self { listener: accepting, shared: shared.clone(), settings: settings.clone(), running: Arc::new(running) }
    }

    /// Has the runtime answer requests, until the publisher is stopped or the process ends.
    pub(crate) fn start(self, runtime: &RuntimeHandle) {
        runtime.add_task("publisher", |runtime| self.run(runtime));
    }

    async fn run(self, runtime: RuntimeHandle) {
        let Self { listener, shared, settings, running } = self;
        let rule = host_check(settings.token.as_ref(), &settings.hosts, KEYS);
        let guarded = settings.token.is_some();
        let (stop, guard) = (running.stop.clone(), running.guard.clone());
        let service = IntakeService {
            client: Client::clone(&shared.client.get()),
            metrics: shared.producers.clone(),
            runtime,
            producers: Arc::clone(&running.producers),
            memories: running.memories.clone(),
        };
        let intakes = Arc::new(Intakes::new(&settings, &service));
        // A stopped publisher must not keep its socket.
        drop(running);
        let router = router(&intakes)
            .layer(middleware::from_fn_with_state(guard, bearer::check))
            .layer(middleware::from_fn_with_state(rule, host_check::check));
        let connections = shared.stopping.child_token();
        let hand_over = async {
            stop.cancelled().await;
            // A connection that was just accepted may not have sent its request yet, so it stays open a little longer.
            let _ = connections.run_until_cancelled(sleep(FIRST_REQUEST_TIME)).await;
            connections.cancel();
        };
        let limits = limits(1024, guarded, REQUESTS_GRACE);
        join(listener.run_handing_over(router, limits, stop.clone(), connections.clone()), hand_over).await;
        // The runtime closes producers in order when the process ends.
        if !shared.stopping.is_cancelled() {
            intakes.close().await;
        }
    }
}
