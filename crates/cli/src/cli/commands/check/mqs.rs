//! `check --online` over ROMA Connect MQS, which lists neither topics nor groups: whether the service knows the key, and whether the
//! key may consume. It is asked with acknowledgements of no message, which change nothing. Nothing can ask for the right to send
//! without perhaps creating the topic.

use crate::{
    cli::support::{context::Context, failure::Failure},
    config::{Config, OnReject, Publisher, Worker},
    sidecar::assemble::connect,
};
use dms_protocol::queue::SourcePath;
use dms_worker::{client::Client, internal::may_consume};

/// A group whose acknowledgements ask about a topic that is only sent to; also a topic where the configuration names none.
const NO_GROUP: &str = "dms-worker-check";

/// Asks about every topic that the configuration names.
pub(super) async fn online(config: &Config, context: &Context) -> Result<(), Failure> {
    let client = connect::to_service(config)?;
    let mut mistakes = Vec::new();
    if !config.has_work() {
        // About any topic, to learn whether the service knows the key.
        ask(&client, NO_GROUP, NO_GROUP).await?;
    }
    for worker in &config.workers {
        // Says what the worker would warn about. Nothing is looked up.
        super::find(&client, worker, config, context).await?;
        let (label, topic) = (worker.label(), &worker.queue);
        match ask(&client, topic, &worker.group).await? {
            Answer::Permitted => {}
            Answer::Forbidden => mistakes.push(format!(
                "worker {label}: its user may not consume from topic {topic}: authorize it for the topic, or give it the right `consume`"
            )),
            Answer::Missing => context.say(&format!(
                "worker {label}: topic {topic} or its group {} is not there yet: a group is created when it first consumes, and a topic \
                 only if the service creates topics on request",
                worker.group
            )),
        }
        if let Some(parking) = parking(worker) {
            sends(&client, &format!("worker {label} (park)"), parking, context).await?;
        }
    }
    for (place, publisher) in config.publishers.iter().enumerate() {
        for topic in Publisher::queues(publisher) {
            sends(&client, &format!("publishers[{place}]"), topic, context).await?;
        }
    }
    if mistakes.is_empty() { Ok(()) } else { Err(Failure::new(mistakes.join("\n  "))) }
}

/// Checks that the service knows the key that sends to a topic.
async fn sends(client: &Client, who: &str, topic: &str, context: &Context) -> Result<(), Failure> {
    ask(client, topic, NO_GROUP).await?;
    context.say(&format!("{who}: whether topic {topic} is there and its user may send to it shows when it sends"));
    Ok(())
}

/// The answer of the service about a topic.
enum Answer {
    Permitted,
    Forbidden,
    /// The topic or the group is not there, or not yet.
    Missing,
}

/// # Errors
/// When the service is unreachable, or refuses the key.
async fn ask(client: &Client, topic: &str, group: &str) -> Result<Answer, Failure> {
    match may_consume(client, &SourcePath::messages(topic, group)).await {
        Ok(true) => Ok(Answer::Permitted),
        Ok(false) => Ok(Answer::Forbidden),
        Err(error) if error.is_not_found() => Ok(Answer::Missing),
        Err(error) => Err(error.into()),
    }
}

fn parking(worker: &Worker) -> Option<&str> {
    match &worker.on_reject {
        OnReject::Park(topic) => Some(topic),
        OnReject::Fail | OnReject::Discard => None,
    }
}
