//! `check --online` beyond the existence of queues and groups: rights, dead letters, parking queues and the clock. None of the requests
//! has a side effect.

use std::time::Duration;

use crate::{
    cli::support::{confirm::counted, failure::Failure, probe},
    config::{Config, OnFailure, OnReject, Publisher, Source, Then, Worker},
    sidecar::assemble::connect,
};
use dms_protocol::{
    internal::{clock, text::brief},
    queue::SourcePath,
};
use dms_worker::{
    client::{Client, QueueOverview},
    internal::{may_consume, may_send},
};

/// The difference of the clocks that is reported. A signature is accepted for 15 minutes.
const SKEW: Duration = Duration::from_secs(60);

/// The results.
#[derive(Debug, Default)]
pub(super) struct Findings {
    /// Settings that cannot work with this service.
    pub(super) mistakes: Vec<String>,
    /// Settings that work, and are probably not intended.
    pub(super) remarks: Vec<String>,
}

/// Checks everything that the configuration names and that exists.
pub(super) async fn findings(client: &Client, config: &Config) -> Result<Findings, Failure> {
    let mut found = Findings::default();
    let queues = client.overview().await?;
    for worker in &config.workers {
        found.worker(client, worker, config, &queues).await?;
    }
    for (place, publisher) in config.publishers.iter().enumerate() {
        for queue in Publisher::queues(publisher).filter_map(|name| named(&queues, name)) {
            found.sends(client, &format!("publishers[{place}]"), queue).await?;
        }
    }
    Ok(found)
}

impl Findings {
    async fn worker(
        &mut self,
        client: &Client,
        worker: &Worker,
        config: &Config,
        queues: &[QueueOverview],
    ) -> Result<(), Failure> {
        let label = format!("worker {}", worker.label());
        let Some(queue) = named(queues, &worker.queue) else { return Ok(()) };
        let is_meant = |name: &str, id: &str| worker.group == name || worker.group == id;
        let group = queue.groups.iter().map(|group| &group.group);
        let Some(group) = group.into_iter().find(|group| is_meant(&group.name, group.id.as_str())) else {
            return Ok(());
        };
        let name = &queue.queue.name;
        if !may_consume(client, &SourcePath::messages(queue.queue.id.clone(), group.id.clone())).await? {
            self.mistakes
                .push(format!("{label}: its key may not consume from queue {name}: give it the right `consume`"));
        }
        if matches!(worker.on_failure, OnFailure::Republish(_)) {
            self.sends(client, &format!("{label} (on_failure: republish)"), queue).await?;
        }
        for parking in parking(worker) {
            let Some(parking) = named(queues, parking) else { continue };
            self.sends(client, &format!("{label} (park)"), parking).await?;
            self.parked(&label, parking);
        }
        let consumed = |other: &Worker| {
            other.source == Source::DeadLetters
                && [name.as_str(), queue.queue.id.as_str()].contains(&other.queue.as_str())
                && [group.name.as_str(), group.id.as_str()].contains(&other.group.as_str())
        };
        match group.available_dead_letters {
            Some(dead @ 1..) if !config.workers.iter().any(consumed) => self.remarks.push(format!(
                "{label}: {} in group {} of queue {name}, and no worker here consumes them: see `dms-worker dlq list {name} {}`",
                counted(dead, "dead letter"), group.name, group.name
            )),
            _ => {}
        }
        Ok(())
    }

    async fn sends(&mut self, client: &Client, who: &str, queue: &QueueOverview) -> Result<(), Failure> {
        if !may_send(client, &queue.queue.id).await? {
            let name = &queue.queue.name;
            self.mistakes.push(format!("{who}: its key may not send to queue {name}: give it the right `send`"));
        }
        Ok(())
    }

    fn parked(&mut self, label: &str, parking: &QueueOverview) {
        let name = &parking.queue.name;
        if parking.groups.is_empty() {
            self.remarks.push(format!(
                "{label}: the parking queue {name} has no group, so parked messages cannot be consumed: `dms-worker group create {name} NAME` adds one"
            ));
        }
        for group in &parking.groups {
            let waiting = group.group.available_messages;
            if waiting > 0 && group.waiting_polls == Some(0) && group.leased == Some(0) {
                self.remarks.push(format!(
                    "{label}: {} parked in {name} and nobody consumes group {}: see `dms-worker peek {name} {}`",
                    counted(waiting, "message"),
                    group.group.name,
                    group.group.name
                ));
            }
        }
    }
}

/// The parking queues of a worker.
fn parking(worker: &Worker) -> impl Iterator<Item = &str> {
    let exhausted = match &worker.on_failure {
        OnFailure::Republish(republish) => match &republish.then {
            Then::Park(queue) => Some(queue.as_str()),
            Then::Fail => None,
        },
        OnFailure::Redeliver => None,
    };
    let rejected = match &worker.on_reject {
        OnReject::Park(queue) => Some(queue.as_str()).filter(|queue| exhausted != Some(queue)),
        OnReject::Fail | OnReject::Discard => None,
    };
    exhausted.into_iter().chain(rejected)
}

fn named<'a>(queues: &'a [QueueOverview], name: &str) -> Option<&'a QueueOverview> {
    queues.iter().find(|queue| queue.queue.name == name || queue.queue.id.as_str() == name)
}

/// Describes the difference between the clocks of this machine and of the service, if it is large.
pub(super) async fn skew(config: &Config) -> Option<String> {
    let trust = config.dms.ca_file.clone().map_or(probe::Trust::System, probe::Trust::Authorities);
    let date = probe::date(&connect::endpoint(config), &trust).await?;
    let now = clock::now();
    let (apart, which) = match now.duration_since(date) {
        ahead if ahead.is_positive() => (ahead.unsigned_abs(), "ahead of"),
        behind => (behind.unsigned_abs(), "behind"),
    };
    (apart >= SKEW).then(|| {
        format!(
            "the clock of this machine is {} {which} the service's clock: signed requests are refused from 15 minutes on; set the clock",
            brief(Duration::from_secs(apart.as_secs()))
        )
    })
}
