//! Defaults that adapt to the settings.
//!
//! A default never makes a valid configuration invalid: where a value that is set leaves no room for the usual default of another
//! key, that default gives way. Values that are set are never changed; `check` reports contradictions.

use std::time::Duration;

use crate::config::{
    schema::{
        config::Config,
        handler::{Batch, Collect},
        server::{QueueSpec, Quotas},
        values::{Auto, Span},
        worker::{OnFailure, Republish, Worker},
    },
    source::path::KeyPath,
};
use dms_protocol::limits::{ACK_WAIT_SECS, MAX_CONCURRENCY, MAX_DELAY};
use dms_worker::internal::{ACK_MARGIN, worker_defaults};

/// Whether a layer sets a key.
pub(crate) type IsSet<'a> = &'a dyn Fn(&KeyPath) -> bool;

/// Adapts the defaults in `config` to the keys that are set.
pub(crate) fn follow(config: &mut Config, is_set: IsSet<'_>) {
    follow_project(config, is_set);
    let server = KeyPath::dotted("server");
    follow_quotas(&mut config.server.quotas, &config.server.queues, &server, is_set);
    for (place, project) in config.server.projects.iter_mut().enumerate() {
        let path = server.child("projects").child(place);
        follow_quotas(&mut project.quotas, &project.queues, &path, is_set);
    }
    for (place, worker) in config.workers.iter_mut().enumerate() {
        let path = KeyPath::dotted("workers").child(place);
        follow_lease(worker, &path, is_set);
        follow_batch(worker, &path, is_set);
        if let OnFailure::Republish(republish) = &mut worker.on_failure {
            follow_delays(republish, &path.child("on_failure").child("republish"), is_set);
        }
    }
}

/// An embedded server and its clients use the same project unless both are set.
fn follow_project(config: &mut Config, is_set: IsSet<'_>) {
    let (dms, server) = (KeyPath::dotted("dms.project_id"), KeyPath::dotted("server.project_id"));
    if !config.dms.is_embedded() {
        return;
    }
    match (is_set(&dms), is_set(&server)) {
        (false, true) => config.dms.project_id.clone_from(&config.server.project_id),
        (true, false) if config.server.projects.iter().all(|project| project.id != config.dms.project_id) => {
            config.server.project_id.clone_from(&config.dms.project_id);
        }
        _ => {}
    }
}

/// The default quotas admit the queues and groups that are listed.
fn follow_quotas(quotas: &mut Quotas, queues: &[QueueSpec], path: &KeyPath, is_set: IsSet<'_>) {
    let path = path.child("quotas");
    if !is_set(&path.child("queues")) {
        quotas.queues = quotas.queues.max(queues.len());
    }
    if !is_set(&path.child("groups_per_queue")) {
        let most = queues.iter().map(|queue| queue.groups.len()).max().unwrap_or_default();
        quotas.groups_per_queue = quotas.groups_per_queue.max(most);
    }
}

/// The lease is long enough for the timeout and the linger that are set; defaults of these two fit into the lease that is set.
fn follow_lease(worker: &mut Worker, path: &KeyPath, is_set: IsSet<'_>) {
    let handler = path.child("handler");
    let http = handler.child("http");
    let timeout_is_set = is_set(&http.child("timeout")) || is_set(&handler.child("command").child("timeout"));
    let linger_is_set = is_set(&http.child("batch").child("collect").child("linger"));
    if !is_set(&path.child("ack_wait")) {
        let usual = worker_defaults::ACK_WAIT;
        worker.ack_wait = Auto::Fixed(Span::from(usual.max(needed_lease(worker, timeout_is_set, linger_is_set))));
    }
    let longest = worker.ack_wait().saturating_sub(ACK_MARGIN);
    let Some(http) = &mut worker.handler.http else { return };
    let linger = match (&http.batch, linger_is_set) {
        (Some(Batch::Collect(collect)), true) => collect.linger.get(),
        _ => Duration::ZERO,
    };
    if !timeout_is_set {
        http.timeout = Span::from(fitting(http.timeout.get(), longest.saturating_sub(linger)));
    }
    if let (Some(Batch::Collect(collect)), false) = (&mut http.batch, linger_is_set) {
        collect.linger = Span::from(fitting(collect.linger.get(), longest.saturating_sub(http.timeout.get())));
    }
}

/// The shortest lease, in whole seconds, that has room for the settings that are written, and for the usual defaults of the others
/// where the limits allow it.
fn needed_lease(worker: &Worker, timeout_is_set: bool, linger_is_set: bool) -> Duration {
    if !timeout_is_set && !linger_is_set {
        return Duration::ZERO;
    }
    let timeout = worker.handler.timeout().map(Span::get).unwrap_or_default();
    let needed = timeout.saturating_add(worker.handler.linger()).saturating_add(ACK_MARGIN).as_secs().saturating_add(1);
    Duration::from_secs(needed.min(*ACK_WAIT_SECS.end()))
}

/// `usual`, or less where less than a second of `room` would be left: a second less than `room`, and half of a short one.
fn fitting(usual: Duration, room: Duration) -> Duration {
    const SPARE: Duration = Duration::from_secs(1);
    let most = room.saturating_sub(SPARE.min(room / 2));
    usual.min(most).max(Duration::from_millis(1))
}

/// The most messages of a collected batch. It fits into the messages in flight; by default one batch can be collected while another
/// is handled.
fn follow_batch(worker: &mut Worker, path: &KeyPath, is_set: IsSet<'_>) {
    let Some(http) = &mut worker.handler.http else { return };
    let Some(Batch::Collect(Collect { max_messages, .. })) = &mut http.batch else { return };
    if !is_set(&path.child("concurrency")) {
        worker.concurrency = worker.concurrency.max(max_messages.saturating_mul(2).min(MAX_CONCURRENCY));
    } else if !is_set(&path.child("handler").child("http").child("batch").child("collect").child("max_messages")) {
        *max_messages = (*max_messages).min(worker.concurrency.max(1));
    }
}

/// If only one of the first and the longest delay is set, the default of the other adapts to it.
fn follow_delays(republish: &mut Republish, path: &KeyPath, is_set: IsSet<'_>) {
    match (is_set(&path.child("backoff")), is_set(&path.child("max_backoff"))) {
        (true, false) if republish.backoff.get() <= MAX_DELAY => {
            republish.max_backoff = republish.max_backoff.max(republish.backoff);
        }
        (false, true) => republish.backoff = republish.backoff.min(republish.max_backoff),
        _ => {}
    }
}
