//! [`Setup`]: everything a worker is built from, before it runs.

use std::sync::{Arc, atomic::Ordering::Relaxed};

use dms_protocol::internal::setting_checks::SettingChecks;

use crate::{
    client::{Client, Error},
    queue::{Queue, QueueMode},
    wire::Dialect,
    worker::{
        control::Control,
        error::WorkerError,
        failure::{
            FailurePolicy, attempts::AttemptCounts, exhausted::ExhaustedMessages, parking::ParkingQueues,
            policy::OnFailure, reject_pauses::RejectPauses,
        },
        fetch::source::{ClientSource, Source},
        handler::{delivery::Origin, kind::HandlerKind},
        observe::event::Observers,
        pipeline::context::Context,
        settings::{Settings, ordering::Ordering, warnings::QueueFacts},
        targets::Targets,
    },
};

/// Everything a worker is built from.
#[derive(Debug)]
pub(crate) struct Setup {
    pub(crate) client: Client,
    pub(crate) queue: String,
    pub(crate) group: String,
    pub(crate) handler: HandlerKind,
    pub(crate) settings: Settings,
    observers: Observers,
    pub(crate) control: Arc<Control>,
}

impl Setup {
    pub(crate) fn new(
        client: Client,
        queue: String,
        group: String,
        handler: HandlerKind,
        settings: Settings,
        mut observers: Observers,
    ) -> Self {
        let control = Control::new(queue.clone(), group.clone(), &settings);
        observers.add(control.counters.clone());
        Self { client, queue, group, handler, settings, observers, control }
    }

    /// Looks up everything that the worker names.
    pub(crate) async fn look_up(&self) -> Result<Targets, Error> {
        Targets::look_up(&self.client, &self.queue, &self.group, &self.settings).await
    }

    /// Checks the settings against the queue, and records the warnings.
    pub(crate) fn check_queue(&self, queue: &Queue) -> Result<(), WorkerError> {
        let ground = QueueFacts {
            queue: &queue.name,
            dead_letters: queue.dead_letters.or(queue.mode.is_kafka().then_some(false)),
            max_consume_count: queue.max_consume_count,
            extensions: self.client.extensions(),
        };
        self.settings.check_queue(ground)?;
        self.control.set_warnings(self.settings.queue_warnings(ground));
        Ok(())
    }

    /// Whether the names are looked up again after polls failed with this error.
    pub(crate) fn looks_again(&self, error: &Error) -> bool {
        error.is_not_found() || self.puts_up_with(Some(error))
    }

    /// Whether a persistent worker retries after this error. It does not if the key was refused, which an operator has
    /// to change; keys that have worked before are retried by the client and the pollers.
    pub(crate) fn puts_up_with(&self, error: Option<&Error>) -> bool {
        self.control.persistent.load(Relaxed) && error.is_none_or(|error| !error.is_auth())
    }

    /// Assembles the context of a running worker.
    pub(crate) fn assemble(&self, targets: Targets) -> Result<Context, WorkerError> {
        let Self { client, queue, group, handler, settings, observers, control, .. } = self;
        let (mut settings, client, handler, observers, control) =
            (settings.clone(), client.clone(), handler.clone(), observers.clone(), control.clone());
        let mode = targets.queue.mode;
        let fifo = mode == QueueMode::Fifo;
        if matches!(settings.on_failure, OnFailure::Republish(_)) && (fifo || mode.is_kafka()) {
            let problem = format!("needs delays and no order, which a {mode} queue does not have: use redeliver");
            return Err(SettingChecks::one("republish", problem).into());
        }
        if fifo && settings.ordering.is_none() {
            settings.ordering = Ordering::Batch;
        }
        let source: Arc<dyn Source> = Arc::new(ClientSource {
            client,
            path: targets.path,
            filter: settings.filter.clone(),
            last_uris: Arc::default(),
        });
        let is_mqs = settings.dialect == Dialect::Mqs;
        let failure = FailurePolicy {
            on_failure: settings.on_failure.clone(),
            on_reject: settings.on_reject.clone(),
            on_undecodable: settings.on_undecodable.clone(),
            parking: ParkingQueues::new(targets.parking),
            delays: !fifo && !mode.is_kafka() && !settings.dead_letters && !is_mqs,
            wraps: is_mqs,
            dead_letters: targets.queue.dead_letters == Some(true) && !settings.dead_letters,
            of_dead_letters: settings.dead_letters,
            worker: settings.name.clone(),
            queue: targets.queue.name,
            source: source.clone(),
            attempts: AttemptCounts::new(settings.max_attempts, settings.unique_key.clone(), is_mqs),
            exhausted: ExhaustedMessages::new(),
            pauses: RejectPauses::new(),
        };
        let in_order = settings.ordering.is_batch();
        let origin =
            Arc::new(Origin { worker: settings.name.clone(), queue: queue.clone(), group: group.clone(), in_order });
        Ok(Context::new(settings, control, source, handler, failure, observers, origin, fifo))
    }
}
