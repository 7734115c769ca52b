//! Queues and quotas (API reference 5.1, 5.5).

use http::Method;

use super::{
    Client,
    call::Call,
    error::{Error, ErrorKind},
    tries::Repeat,
};
use crate::{
    limits::{self, LimitError, MAX_CONSUME_COUNT, RETENTION_HOURS},
    queue::{CreatedQueue, NewQueue, Queue, QueueId, Quota},
    wire,
};

const WITH_DEAD_LETTERS: &str = "include_deadletter=true";

impl Client {
    /// Creates a queue (5.1.1). The hosted service needs one to three seconds until it is ready; the client's other
    /// calls wait for it.
    ///
    /// If the answer is lost, an existing queue with that name and the same settings counts as created by this call.
    ///
    /// # Errors
    /// When a setting is outside its limits, the name is taken, or the quota is used up.
    ///
    /// # Cancel safety
    /// The service may make the change although the future was dropped.
    pub async fn create_queue(&self, queue: NewQueue) -> Result<CreatedQueue, Error> {
        const NAME: &str = "create queue";
        check(&queue).map_err(|error| Error::limit(NAME, error))?;
        let body = wire::queues::encode_new(&queue);
        let call = Call::new(NAME, Method::POST, &["queues"], Repeat::Allowed).body(body)?;
        let created = match self.fetch(call, |answer| Ok(wire::queues::decode_created(answer)?)).await {
            Err(error) if error.is_unsure() => self.twin(&queue).await?.ok_or(error)?,
            result => result?,
        };
        self.remember_created(std::iter::once(created.id.as_str()));
        Ok(created)
    }

    /// The queue of a creation whose answer was lost, if it took effect.
    async fn twin(&self, wanted: &NewQueue) -> Result<Option<CreatedQueue>, Error> {
        let same = |queue: &Queue| {
            queue.name == wanted.name
                && queue.mode == wanted.mode
                && queue.max_consume_count.filter(|_| queue.dead_letters == Some(true)) == wanted.max_consume_count
        };
        let twin = self.queues().await?.into_iter().find(same);
        Ok(twin.map(|queue| CreatedQueue::new(queue.id, queue.name, queue.kafka_topic)))
    }

    /// All queues of the project (5.1.2), with their dead-letter settings.
    ///
    /// # Errors
    /// When the call fails.
    ///
    /// # Cancel safety
    /// Dropping the future has no effect, because the call changes nothing.
    pub async fn queues(&self) -> Result<Vec<Queue>, Error> {
        let call = Call::new("list queues", Method::GET, &["queues"], Repeat::Harmless).query(WITH_DEAD_LETTERS);
        self.fetch(call, |answer| Ok(wire::queues::decode_queues(answer)?)).await
    }

    /// One queue (5.1.3), with its dead-letter settings.
    ///
    /// # Errors
    /// When there is no such queue, or the call fails.
    ///
    /// # Cancel safety
    /// Dropping the future has no effect, because the call changes nothing.
    pub async fn queue(&self, queue: &QueueId) -> Result<Queue, Error> {
        let path = ["queues", queue.as_str()];
        let call = Call::new("show queue", Method::GET, &path, Repeat::Harmless).query(WITH_DEAD_LETTERS);
        self.fetch(call, |answer| Ok(wire::queues::decode_queue(answer)?)).await
    }

    /// Finds a queue by its name or id. Over ROMA Connect MQS, which lists no topics, any name is found without a call.
    ///
    /// # Errors
    /// When there is none ([`is_not_found`](Error::is_not_found)); the text lists the existing queues.
    ///
    /// # Cancel safety
    /// Dropping the future has no effect, because the call changes nothing.
    pub async fn find_queue(&self, name_or_id: &str) -> Result<Queue, Error> {
        if self.speaks_mqs() {
            return self.topic(name_or_id);
        }
        let mut queues = self.queues().await?;
        let by_name = queues.iter().position(|queue| queue.name == name_or_id);
        match by_name.or_else(|| queues.iter().position(|queue| queue.id.as_str() == name_or_id)) {
            Some(index) => Ok(queues.swap_remove(index)),
            None => {
                let known = queues.into_iter().map(|queue| queue.name).collect();
                // A key with rights is shown its own queues only.
                let limited = self.inner.has_credentials();
                let missing = ErrorKind::Missing { what: "queue", name: name_or_id.to_owned(), known, limited };
                Err(Error::new("find queue", missing))
            }
        }
    }

    /// Deletes a queue with all its messages and groups (5.1.4).
    ///
    /// # Errors
    /// When there is no such queue, or the call fails.
    ///
    /// # Cancel safety
    /// The service may make the change although the future was dropped.
    pub async fn delete_queue(&self, queue: &QueueId) -> Result<(), Error> {
        let path = ["queues", queue.as_str()];
        self.delete(Call::new("delete queue", Method::DELETE, &path, Repeat::Allowed)).await
    }

    /// Makes a call that deletes. If an answer was lost and the resource is gone, this call deleted it.
    pub(super) async fn delete(&self, call: Call<'_>) -> Result<(), Error> {
        match self.perform(call).await {
            Err(error) if error.is_unsure() && error.is_not_found() => Ok(()),
            result => result,
        }
    }

    /// The project's quotas (5.5.1).
    ///
    /// # Errors
    /// When the call fails.
    ///
    /// # Cancel safety
    /// Dropping the future has no effect, because the call changes nothing.
    pub async fn quotas(&self) -> Result<Vec<Quota>, Error> {
        // V1.0 has one segment more.
        let path: Vec<&str> = self.inner.wording.quotas.split('/').collect();
        let call = Call::new("show quotas", Method::GET, &path, Repeat::Harmless);
        self.fetch(call, |answer| Ok(wire::queues::decode_quotas(answer)?)).await
    }
}

fn check(queue: &NewQueue) -> Result<(), LimitError> {
    limits::queue_name(&queue.name)?;
    queue.description.as_deref().map_or(Ok(()), limits::description)?;
    if let Some(count) = queue.max_consume_count {
        limits::in_range("max_consume_count", count, &MAX_CONSUME_COUNT, "")?;
    }
    let refuse = |what, value: u32, allowed: &str| {
        Err(LimitError { what, value: value.to_string(), allowed: allowed.to_owned() })
    };
    match (queue.mode.is_kafka(), queue.max_consume_count, queue.retention_hours) {
        (true, Some(count), _) => refuse("max_consume_count", count, "Kafka queues have no dead letters"),
        (false, _, Some(hours)) => refuse("retention_hours", hours, "only Kafka queues take it"),
        (true, None, Some(hours)) => limits::in_range("retention_hours", hours, &RETENTION_HOURS, ""),
        _ => Ok(()),
    }
}
