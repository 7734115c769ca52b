//! [`Prepared`]: does everything that can fail in applying another configuration, before anything changes.

use crate::{
    config::{
        self, Config, Dms, Limits,
        worker_settings::{max_messages, rate},
    },
    sidecar::{
        assemble::{
            connect,
            outbox::RelayUnit,
            publisher::PublisherEndpoint,
            unit::{WorkerUnit, unit},
        },
        reload::plan::{PartChange, Plan, is_other_client},
        running::{publisher::PublisherKey, shared::Shared},
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
    /// The section `dms` in force afterwards: the new one, unless a change of it needs a restart.
    pub(super) dms: Dms,
    /// A client of the service as it is configured now.
    pub(super) client: Client,
    /// Whether the new parts use this client. Otherwise the client in use continues, with other credentials at most.
    pub(super) is_other_client: bool,
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
        // The server in this process is started and ended with the process, so the parts stay with the service that they have.
        let stays = old.dms.is_embedded() != new.dms.is_embedded();
        let dms = if stays { old.dms.clone() } else { new.dms.clone() };
        let effective = Config { dms, ..new.clone() };
        let plan = Plan::between(old, &effective);
        let mut mistakes = room(new).err().into_iter().collect::<Vec<_>>();
        let client = connect::to_service_of(&effective, shared.embedded.as_ref());
        let client = client.map_err(|error| mistakes.push(error.to_string())).ok();
        let is_other_client = is_other_client(&old.dms, &effective.dms);
        let shared = &match &client {
            Some(client) if is_other_client => shared.with_client(client.clone()),
            _ => shared.clone(),
        };
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
        match client {
            Some(client) if mistakes.is_empty() => {
                Ok(Self { dms: effective.dms, client, is_other_client, workers, publishers, outboxes })
            }
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

/// Checks the number of workers against the shared limits.
fn room(new: &Config) -> Result<(), String> {
    match lacks_room(&new.limits, new.workers.len()) {
        None => Ok(()),
        Some((key, limit, least)) => Err(format!(
            "limits.{key} is {limit}, and {} workers need at least {least}: raise it, or remove it",
            new.workers.len()
        )),
    }
}

/// The limit that is too low for this number of workers, if one is: its key, its value, and the least value.
pub(super) fn lacks_room(limits: &Limits, workers: usize) -> Option<(&'static str, usize, usize)> {
    let limits = [("in_flight", limits.in_flight, workers), ("bytes", limits.bytes, workers * MAX_BYTES)];
    let mut limits = limits.into_iter().filter_map(|(key, limit, least)| Some((key, limit?, least)));
    limits.find(|(_, limit, least)| limit < least)
}
