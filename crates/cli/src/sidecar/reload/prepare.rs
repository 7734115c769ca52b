//! [`Prepared`]: does everything that can fail in applying another configuration, before anything changes.

use crate::{
    config::{
        self, Config,
        worker_settings::{max_messages, rate},
    },
    sidecar::{
        assemble::{
            connect,
            outbox::RelayUnit,
            shared::Shared,
            unit::{WorkerUnit, unit},
        },
        publisher::PublisherEndpoint,
        reload::{
            parts::PublisherKey,
            plan::{PartChange, Plan},
        },
    },
};
use dms_worker::{
    client::Client,
    limits::MAX_BYTES,
    worker::{MaxMessages, Rate},
};

/// The parts that another configuration starts, ready to run.
#[derive(Debug)]
pub(crate) struct Prepared {
    /// The credentials of the service.
    pub(super) credentials: Client,
    /// In the order of the new configuration.
    pub(super) workers: Vec<PreparedWorker>,
    /// In the order of the new configuration; `None` for one that continues.
    pub(super) publishers: Vec<(PublisherKey, Option<PublisherEndpoint>)>,
    /// In the order of the new configuration; `None` for one that continues.
    pub(super) outboxes: Vec<(config::Outbox, Option<RelayUnit>)>,
}

/// A worker of another configuration.
#[derive(Debug)]
pub(super) struct PreparedWorker {
    pub(super) name: String,
    /// Starts it; `None` if it continues.
    pub(super) unit: Option<WorkerUnit>,
    /// The changed limits of a worker that continues.
    pub(super) limits: Option<WorkerLimits>,
}

/// The limits of a worker that can change while it runs.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct WorkerLimits {
    pub(super) concurrency: usize,
    pub(super) bytes: usize,
    pub(super) max_messages: MaxMessages,
    pub(super) rate: Option<Rate>,
}

impl Prepared {
    /// Sets up what another configuration starts, and listens on its new addresses.
    ///
    /// # Errors
    /// All mistakes. The parts that were set up are dropped then.
    pub(super) async fn new(old: &Config, new: &Config, shared: &Shared) -> Result<Self, Vec<String>> {
        let plan = Plan::between(old, new);
        let mut mistakes = room(old, new).err().into_iter().collect::<Vec<_>>();
        // A change of these sections needs a restart, so the parts that are started now get the old ones.
        let effective = Config { dms: old.dms.clone(), limits: old.limits, ..new.clone() };
        let credentials = connect::to_service(new).map_err(|error| mistakes.push(error.to_string())).ok();
        let mut workers = Vec::new();
        for (worker, change) in new.workers.iter().zip(&plan.workers) {
            let before = old.workers.iter().find(|old| old.label() == worker.label());
            match prepare_worker((before, worker), *change, &effective, shared) {
                Ok(worker) => workers.push(worker),
                Err(error) => mistakes.push(error),
            }
        }
        let mut publishers = Vec::new();
        let keys = PublisherKey::all(&new.publishers);
        for (place, ((publisher, key), change)) in new.publishers.iter().zip(keys).zip(&plan.publishers).enumerate() {
            let endpoint = match (change, shared.parts.publisher(key)) {
                (PartChange::Stays, _) => Ok(None),
                (_, Some(before)) => PublisherEndpoint::successor(&before, publisher, shared).map(Some),
                (_, None) => PublisherEndpoint::listen(publisher, (place, key), shared).await.map(Some),
            };
            match endpoint {
                Ok(endpoint) => publishers.push((key, endpoint)),
                Err(error) => mistakes.push(error.to_string()),
            }
        }
        let mut outboxes = Vec::new();
        for (place, (outbox, change)) in new.outboxes.iter().zip(&plan.outboxes).enumerate() {
            let relay = match change {
                PartChange::Stays => Ok(None),
                _ => RelayUnit::new(place, outbox, shared).map(Some),
            };
            match relay {
                Ok(relay) => outboxes.push((outbox.clone(), relay)),
                Err(error) => mistakes.push(error.to_string()),
            }
        }
        match credentials {
            Some(credentials) if mistakes.is_empty() => Ok(Self { credentials, workers, publishers, outboxes }),
            _ => Err(mistakes),
        }
    }
}

fn prepare_worker(
    (old, new): (Option<&config::Worker>, &config::Worker),
    change: PartChange,
    config: &Config,
    shared: &Shared,
) -> Result<PreparedWorker, String> {
    let (unit, limits) = match change {
        PartChange::Stays => (None, WorkerLimits::changed(old, new)?),
        PartChange::Restarts | PartChange::Starts => {
            (Some(unit(new, config, shared).map_err(|error| error.to_string())?), None)
        }
    };
    Ok(PreparedWorker { name: new.label(), unit, limits })
}

impl WorkerLimits {
    /// The limits in the new settings, if they have changed. Otherwise limits that an operator has set are kept.
    fn changed(old: Option<&config::Worker>, new: &config::Worker) -> Result<Option<Self>, String> {
        let of = |worker: &config::Worker| {
            let rate = rate(worker).map_err(|error| format!("worker {}: {error}", worker.label()))?;
            let (concurrency, bytes) = (worker.concurrency, worker.max_in_flight_bytes);
            Ok::<_, String>(Self { concurrency, bytes, max_messages: max_messages(worker), rate })
        };
        let limits = of(new)?;
        let same = old.map(of).transpose()?.is_some_and(|before| before == limits);
        Ok((!same).then_some(limits))
    }
}

/// Checks the number of workers against the shared limits in force, which do not change before a restart.
fn room(old: &Config, new: &Config) -> Result<(), String> {
    let workers = new.workers.len();
    let limits = [("in_flight", old.limits.in_flight, workers), ("bytes", old.limits.bytes, workers * MAX_BYTES)];
    match limits.into_iter().find(|(_, limit, least)| limit.is_some_and(|limit| limit < *least)) {
        None => Ok(()),
        Some((key, limit, least)) => Err(format!(
            "limits.{key} in force is {}, and {workers} workers need at least {least}: restart the process with a larger one",
            limit.unwrap_or_default()
        )),
    }
}
