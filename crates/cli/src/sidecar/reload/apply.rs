//! Applies a [`Prepared`] configuration: stops and starts publishers, outboxes and workers. This fails only while the process is
//! stopping.

use std::{
    collections::BTreeSet,
    sync::{Arc, atomic::Ordering::Relaxed},
    time::Duration,
};

use futures_util::future::{join, join_all};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use crate::{
    config::{Config, Limits},
    sidecar::{
        assemble::{outbox::RelayUnit, publisher::PublisherEndpoint, runtime::sharing, unit::WorkerUnit},
        reload::{
            controls::Controls,
            prepare::{PreparedWorker, WorkerLimits, lacks_room},
        },
        running::{parts::RunningWorker, publisher::PublisherKey},
    },
};
use dms_worker::runtime::AddWorkerError;

/// Longer than the longest poll followed by the longest lease, so that a reload interrupts no handler.
const LONGEST_DRAIN: Duration = Duration::from_secs(420);

impl Controls {
    /// Starts new publishers and stops removed ones. A publisher that replaces another one accepts connections before the other one
    /// stops.
    pub(super) fn replace_publishers(&self, publishers: Vec<(PublisherKey, Option<PublisherEndpoint>)>) {
        let parts = &self.shared.parts;
        let before = parts.publishers();
        let (mut after, mut starting) = (Vec::new(), Vec::new());
        for (key, endpoint) in publishers {
            match endpoint {
                Some(endpoint) => {
                    tracing::info!(listen = endpoint.running.listener.url(), "publisher started");
                    after.push(Arc::clone(&endpoint.running));
                    starting.push(endpoint);
                }
                None => after.extend(parts.publisher(key)),
            }
        }
        parts.set_publishers(after.clone());
        starting.into_iter().for_each(|endpoint| endpoint.start(&self.runtime));
        for stopped in before.iter().filter(|old| !after.iter().any(|kept| Arc::ptr_eq(kept, old))) {
            tracing::info!(
                listen = stopped.listener.url(),
                "publisher stopping; requests in progress are still answered"
            );
            stopped.stop.cancel();
        }
    }

    /// Stops removed relays, waits for their batches in progress, and starts new ones.
    pub(super) async fn replace_outboxes(&self, outboxes: Vec<(crate::config::Outbox, Option<RelayUnit>)>) {
        let parts = &self.shared.parts;
        let before = parts.outboxes();
        let mut left: Vec<_> = before.iter().cloned().collect();
        let mut after = Vec::new();
        let mut starting = Vec::new();
        for (settings, relay) in outboxes {
            match relay {
                Some(relay) => {
                    after.push(Arc::clone(&relay.running));
                    starting.push(relay);
                }
                None => {
                    let same = left.iter().position(|running| running.settings == settings);
                    after.extend(same.map(|place| left.remove(place)));
                }
            }
        }
        left.iter().for_each(|stopped| stopped.stop.cancel());
        join_all(left.iter().map(|stopped| stopped.ended.cancelled())).await;
        parts.set_outboxes(after);
        starting.into_iter().for_each(|relay| relay.start(&self.runtime));
    }

    /// Changes the limits of workers that continue, stops removed workers, and starts new ones. Returns when the stopped workers have
    /// drained.
    ///
    /// A worker with the name or the stream of a stopped one starts after that one has drained, because names are unique and the order
    /// of messages is kept. If the shared limits have no room for the old and the new workers at the same time, it starts after all of
    /// them, and only then the new limits are in force. All other workers start at once.
    pub(super) async fn replace_workers(&self, workers: Vec<PreparedWorker>, config: &Config) {
        let parts = &self.shared.parts;
        let before = parts.workers();
        let added = workers.iter().filter(|new| !before.iter().any(|old| old.name == new.name)).count();
        let is_crowded = lacks_room(&config.limits, before.len() + added).is_some();
        if !is_crowded {
            self.set_limits(config);
        }
        let stays: BTreeSet<_> =
            workers.iter().filter(|worker| worker.unit.is_none()).map(|worker| worker.name.clone()).collect();
        let stopped: Vec<_> = before.iter().filter(|old| !stays.contains(&old.name)).collect();
        stopped.iter().for_each(|old| old.retiring.store(true, Relaxed));
        let names: Vec<_> = workers.iter().map(|worker| worker.name.clone()).collect();
        let mut starts = Vec::new();
        for PreparedWorker { name, unit, limits } in workers {
            match unit {
                Some(unit) => {
                    let waits_for =
                        stopped.iter().filter(|old| is_crowded || old.name == name || old.has_stream_of(&unit.running));
                    let waits_for: Vec<_> = waits_for.map(|old| old.ended.clone()).collect();
                    let is_paused = before.iter().any(|old| old.name == name && old.throttle.is_paused_by_operator());
                    starts.push(async move {
                        join_all(waits_for.iter().map(CancellationToken::cancelled)).await;
                        if is_crowded {
                            self.set_limits(config);
                        }
                        self.start(unit, is_paused);
                    });
                }
                None => {
                    if let (Some(worker), Some(limits)) = (parts.worker(&name), limits) {
                        change_limits(&worker, limits);
                    }
                }
            }
        }
        join(join_all(stopped.iter().map(|old| self.retire(old))), join_all(starts)).await;
        parts.set_workers(names.iter().filter_map(|name| parts.worker(name)).collect());
        if is_crowded {
            self.set_limits(config);
        }
    }

    /// Sets the limits that the workers share.
    fn set_limits(&self, config: &Config) {
        let Limits { in_flight, bytes, .. } = config.limits;
        if let Err(error) = self.runtime.set_limits(in_flight, bytes, sharing(config)) {
            tracing::error!(%error, "the section limits is not in force: reload again, or restart the process");
        }
    }

    /// Starts a worker. It is paused if an operator had paused its predecessor.
    fn start(&self, unit: WorkerUnit, is_paused: bool) {
        // An operator may have stopped all workers while the old ones drained.
        if self.shared.parts.is_drained() {
            return;
        }
        let running = Arc::clone(&unit.running);
        running.begun.store(true, Relaxed);
        if is_paused {
            running.throttle.operator(true);
        }
        match unit.start(&self.runtime, &self.shared.metrics) {
            Ok(()) => {
                tracing::info!(worker = running.name, "worker started with its new settings");
                self.shared.parts.show(&running);
            }
            Err(AddWorkerError::Stopped) => {}
            Err(error) => tracing::error!(worker = running.name, %error, "the worker cannot be started"),
        }
    }

    /// Stops a worker and waits until it has drained. No handler is interrupted, unless the process ends meanwhile.
    async fn retire(&self, old: &RunningWorker) {
        let _ended = old.ended.clone().drop_guard();
        tracing::info!(worker = old.name, "worker draining, because the configuration has changed");
        // The drain does not wait for an application that is down; its messages are handed back.
        old.stop.cancel();
        let handle = old.throttle.worker();
        handle.set_shutdown_grace(LONGEST_DRAIN);
        let removal = self.runtime.remove_worker(&old.name);
        tokio::pin!(removal);
        let shutdown = async {
            self.shared.stopping.cancelled().await;
            sleep(self.runtime.shutdown_grace()).await;
        };
        let end = tokio::select! {
            biased;
            end = &mut removal => end,
            () = shutdown => {
                handle.stop_now();
                removal.await
            }
        };
        self.shared.metrics.unwatch(handle);
        self.shared.parts.hide(old);
        match end.map(|end| end.result) {
            Some(Ok(report)) => self.shared.parts.keep_counts(&old.name, report),
            Some(Err(error)) => tracing::warn!(worker = old.name, %error, "the stopped worker had failed"),
            // The runtime has ended, and its report has the counts.
            None => {}
        }
    }
}

/// Changes the limits of a worker while it runs.
fn change_limits(worker: &RunningWorker, limits: WorkerLimits) {
    let handle = worker.throttle.worker();
    handle.set_rate_limit(limits.rate);
    handle.set_max_in_flight_bytes(limits.bytes);
    worker.throttle.concurrency(limits.concurrency);
    if let Err(error) = handle.set_max_messages(limits.max_messages) {
        tracing::error!(worker = worker.name, %error, "max_messages was not changed");
    }
    tracing::info!(worker = worker.name, "worker limits changed");
}
