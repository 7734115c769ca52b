//! Maps the settings of a worker in the configuration to a [`WorkerBuilder`], once: to check them and to run the worker.

use std::time::Duration;

use crate::config::schema::{
    config::Config,
    handler::{self, CommandHandler, CommandMode},
    values::{Auto, Span},
    worker as keys,
};
use dms_protocol::queue::TagFilter;
use dms_worker::{
    Dialect,
    client::Client,
    internal::check_settings,
    layers::Retry,
    worker::{
        AckWait, Batching, Collect, InvalidSetting, InvalidSettings, MaxMessages, OnFailure, OnReject, Ordering, Rate,
        Republish, Worker, WorkerBuilder, batch_handler_fn, handler_fn,
    },
};

/// The rate limit of a worker.
pub(crate) fn rate(worker: &keys::Worker) -> Result<Option<Rate>, InvalidSettings> {
    Ok(worker.rate_limit.map(|rate| Rate::try_new(rate.count(), rate.per())).transpose()?)
}

/// The most messages that a worker's polls ask for.
pub(crate) fn max_messages(worker: &keys::Worker) -> MaxMessages {
    worker.max_messages.fixed().map_or(MaxMessages::Auto, MaxMessages::Fixed)
}

/// Which messages share a request.
pub(crate) fn batching(batch: handler::Batch) -> Batching {
    match batch {
        handler::Batch::Consumed => Batching::Consumed,
        handler::Batch::Collect(handler::Collect { max_messages, linger }) => {
            Batching::Collected(Collect::new().max_messages(max_messages).linger(linger.get()))
        }
    }
}

/// When a program that is started for a message is stopped. One that stays has its time from when it is given a message, which its
/// delivery sees to.
fn program_timeout(command: &CommandHandler) -> Option<Duration> {
    match command.mode {
        CommandMode::PerMessage => command.timeout.map(Span::get),
        CommandMode::JsonLines => None,
    }
}

/// The settings that cannot work, by the names of the library.
pub(crate) fn invalid_settings(worker: &keys::Worker, dialect: Dialect) -> Vec<InvalidSetting> {
    let checked = check_settings(dialect, |builder| {
        // The sidecar enforces the timeout of most handlers, and the worker enforces the others. It has to fit into the lease.
        let builder = settings(builder, worker).handler_timeout(worker.handler.timeout().map(Span::get));
        match worker.handler.http.as_ref().and_then(|http| http.batch) {
            Some(batch) => builder.batching(batching(batch)),
            None => builder,
        }
    });
    checked.map_or_else(|refused| refused.all().to_vec(), |()| Vec::new())
}

/// A worker with these settings and an empty handler, for checks only.
pub(crate) fn idle_worker(client: &Client, worker: &keys::Worker, config: &Config) -> Result<Worker, InvalidSettings> {
    let builder = Worker::builder(client.clone()).queue(&worker.queue).group(&worker.group);
    let builder = match worker.handler.http.as_ref().and_then(|http| http.batch) {
        Some(batch) => builder.batch_handler(batch_handler_fn(|_| async { Ok(Vec::new()) })).batching(batching(batch)),
        None => builder.handler(handler_fn(|| async { Ok(()) })),
    };
    settings(builder, worker).shutdown_grace(config.shutdown.grace.get()).rate_limit(rate(worker)?).build()
}

/// Applies the configuration's settings to a builder.
pub(crate) fn settings(builder: WorkerBuilder, worker: &keys::Worker) -> WorkerBuilder {
    let ack_wait = match worker.ack_wait {
        Auto::Auto if worker.handler.timeout().is_none() => AckWait::Auto,
        _ => worker.ack_wait().into(),
    };
    let builder = builder
        .name(worker.label())
        .concurrency(worker.concurrency)
        .weight(worker.weight)
        .max_in_flight_bytes(worker.max_in_flight_bytes)
        .max_messages(max_messages(worker))
        .remember_finished(worker.remember_finished)
        .poll_wait(worker.poll_wait.get())
        .ack_wait(ack_wait)
        .pollers(worker.pollers.fixed())
        .handler_timeout(worker.handler.command.as_ref().and_then(program_timeout))
        .ordering(match &worker.ordering {
            keys::Ordering::None => Ordering::None,
            keys::Ordering::Batch => Ordering::Batch,
            keys::Ordering::KeyAttribute(name) => Ordering::by_attribute(name.clone()),
            keys::Ordering::KeyPointer(pointer) => Ordering::by_pointer(pointer.clone()),
        })
        .tags(TagFilter { tags: worker.tags.clone(), mode: worker.tag_type })
        .on_failure(match &worker.on_failure {
            keys::OnFailure::Redeliver => OnFailure::Redeliver,
            keys::OnFailure::Republish(republish) => OnFailure::Republish(
                Republish::new()
                    .max_attempts(republish.max_attempts)
                    .first_delay(republish.backoff.get())
                    .max_delay(republish.max_backoff.get())
                    .then(match &republish.then {
                        keys::Then::Fail => OnReject::Fail,
                        keys::Then::Park(queue) => OnReject::Park(queue.clone()),
                    }),
            ),
        })
        .on_reject(match &worker.on_reject {
            keys::OnReject::Fail => OnReject::Fail,
            keys::OnReject::Park(queue) => OnReject::Park(queue.clone()),
            keys::OnReject::Discard => OnReject::Discard,
        });
    // One that cannot work was refused with the configuration.
    let builder = match worker.retry.as_ref().and_then(|retry| retry.policy().ok()) {
        Some(policy) => builder.layer(Retry::new(policy)),
        None => builder,
    };
    let builder = match &worker.unique_attribute {
        Some(name) => builder.unique_attribute(name.clone()),
        None => builder,
    };
    let builder = match &worker.unique_pointer {
        Some(pointer) => builder.unique_pointer(pointer.clone()),
        None => builder,
    };
    let builder = match worker.max_attempts {
        Some(attempts) => builder.max_attempts(attempts),
        None => builder,
    };
    if worker.source == keys::Source::DeadLetters { builder.dead_letters() } else { builder }
}
