//! Maps the settings of a worker in the configuration to a [`WorkerBuilder`].

use std::time::Duration;

use crate::config::{self, Config};
use dms_protocol::queue::TagFilter;
use dms_worker::{
    client::Client,
    layers::Retry,
    worker::{
        AckWait, Batching, Collect, InvalidSettings, MaxMessages, OnFailure, OnReject, Ordering, Rate, Republish,
        Worker, WorkerBuilder, batch_handler_fn, handler_fn,
    },
};

/// The rate limit of a worker.
pub(crate) fn rate(worker: &config::Worker) -> Result<Option<Rate>, InvalidSettings> {
    Ok(worker.rate_limit.map(|rate| Rate::try_new(rate.count(), rate.per())).transpose()?)
}

/// The most messages that a worker's polls ask for.
pub(crate) fn max_messages(worker: &config::Worker) -> MaxMessages {
    worker.max_messages.fixed().map_or(MaxMessages::Auto, MaxMessages::Fixed)
}

/// Which messages share a request.
pub(crate) fn batching(batch: config::Batch) -> Batching {
    match batch {
        config::Batch::Consumed => Batching::Consumed,
        config::Batch::Collect(config::Collect { max_messages, linger }) => {
            Batching::Collected(Collect::new().max_messages(max_messages).linger(linger.get()))
        }
    }
}

/// When a program that is started for a message is stopped. One that stays has its time from when it is given a message, which its
/// delivery sees to.
fn program_timeout(command: &config::CommandHandler) -> Option<Duration> {
    match command.mode {
        config::CommandMode::PerMessage => command.timeout.map(config::Span::get),
        config::CommandMode::JsonLines => None,
    }
}

/// A worker with these settings and an empty handler, for checks only.
pub(crate) fn idle_worker(
    client: &Client,
    worker: &config::Worker,
    config: &Config,
) -> Result<Worker, InvalidSettings> {
    let builder = Worker::builder(client.clone()).queue(&worker.queue).group(&worker.group);
    let builder = match worker.handler.http.as_ref().and_then(|http| http.batch) {
        Some(batch) => builder.batch_handler(batch_handler_fn(|_| async { Ok(Vec::new()) })).batching(batching(batch)),
        None => builder.handler(handler_fn(|| async { Ok(()) })),
    };
    settings(builder, worker, config).rate_limit(rate(worker)?).build()
}

/// Applies the configuration's settings to a builder.
pub(crate) fn settings(builder: WorkerBuilder, worker: &config::Worker, config: &Config) -> WorkerBuilder {
    let ack_wait = match worker.ack_wait {
        config::Auto::Auto if worker.handler.timeout().is_none() => AckWait::Auto,
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
        .shutdown_grace(config.shutdown.grace.get())
        .ordering(match &worker.ordering {
            config::Ordering::None => Ordering::None,
            config::Ordering::Batch => Ordering::Batch,
            config::Ordering::KeyAttribute(name) => Ordering::by_attribute(name.clone()),
        })
        .tags(TagFilter { tags: worker.tags.clone(), mode: worker.tag_type })
        .on_failure(match &worker.on_failure {
            config::OnFailure::Redeliver => OnFailure::Redeliver,
            config::OnFailure::Republish(republish) => OnFailure::Republish(
                Republish::new()
                    .max_attempts(republish.max_attempts)
                    .first_delay(republish.backoff.get())
                    .max_delay(republish.max_backoff.get())
                    .then(match &republish.then {
                        config::Then::Fail => OnReject::Fail,
                        config::Then::Park(queue) => OnReject::Park(queue.clone()),
                    }),
            ),
        })
        .on_reject(match &worker.on_reject {
            config::OnReject::Fail => OnReject::Fail,
            config::OnReject::Park(queue) => OnReject::Park(queue.clone()),
            config::OnReject::Discard => OnReject::Discard,
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
    if worker.source == config::Source::DeadLetters { builder.dead_letters() } else { builder }
}
