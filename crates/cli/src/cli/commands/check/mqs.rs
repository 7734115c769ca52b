//! `check --online` over ROMA Connect MQS, which lists neither topics nor groups: whether the service knows the key, and what the key
//! may do. It is asked with requests of no messages, which change nothing.

use crate::{
    cli::support::{context::Context, failure::Failure},
    config::{Config, OnReject, Publisher, Worker},
    sidecar::assemble::connect,
};
use dms_protocol::queue::{QueueId, SourcePath};
use dms_worker::{
    client::{Client, Error},
    internal::{may_consume, may_send},
};

/// Asks about every topic that the configuration names.
pub(super) async fn online(config: &Config, context: &Context) -> Result<(), Failure> {
    let client = connect::to_service(config)?;
    let mut mistakes = Vec::new();
    for worker in &config.workers {
        let label = format!("worker {}", worker.label());
        let source = SourcePath::messages(worker.queue.as_str(), worker.group.as_str());
        let answer = Answer::of(may_consume(&client, &source).await)?;
        mistakes.extend(answer.judge(&label, &worker.queue, "consume from", context));
        if let Some(topic) = parking(worker) {
            let answer = Answer::of(asked_to_send(&client, topic).await)?;
            mistakes.extend(answer.judge(&format!("{label} (park)"), topic, "send to", context));
        }
    }
    for (place, publisher) in config.publishers.iter().enumerate() {
        for topic in Publisher::queues(publisher) {
            let answer = Answer::of(asked_to_send(&client, topic).await)?;
            mistakes.extend(answer.judge(&format!("publishers[{place}]"), topic, "send to", context));
        }
    }
    if mistakes.is_empty() { Ok(()) } else { Err(Failure::new(mistakes.join("\n  "))) }
}

async fn asked_to_send(client: &Client, topic: &str) -> Result<bool, Error> {
    may_send(client, &QueueId::from(topic)).await
}

fn parking(worker: &Worker) -> Option<&str> {
    match &worker.on_reject {
        OnReject::Park(topic) => Some(topic),
        OnReject::Fail | OnReject::Discard => None,
    }
}

/// What the service says about a topic.
enum Answer {
    Permitted,
    Forbidden,
    /// It is not there, or not yet.
    Missing,
}

impl Answer {
    /// # Errors
    /// When the service is unreachable, or refuses the key.
    fn of(answer: Result<bool, Error>) -> Result<Self, Failure> {
        match answer {
            Ok(true) => Ok(Self::Permitted),
            Ok(false) => Ok(Self::Forbidden),
            Err(error) if error.is_not_found() => Ok(Self::Missing),
            Err(error) => Err(error.into()),
        }
    }

    /// The mistake, if it is one.
    fn judge(&self, who: &str, topic: &str, what: &str, context: &Context) -> Option<String> {
        match self {
            Self::Permitted => None,
            Self::Forbidden => {
                Some(format!("{who}: its user may not {what} topic {topic}: authorize it for the topic"))
            }
            Self::Missing => {
                context.say(&format!(
                    "{who}: topic {topic} or its group is not there yet: a group is created when it first consumes, and a topic only if \
                     the service creates topics on request"
                ));
                None
            }
        }
    }
}
