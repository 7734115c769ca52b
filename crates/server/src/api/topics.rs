//! [`Topic`]: the queue and the group that a request of the MQS dialect names.
//!
//! Paths of the dialect have names where those of the DMS API have ids. A topic is a queue, and it is created when it is first
//! named if `server.mqs.auto_create` is on. A group is created when it first consumes.

use std::borrow::Cow;

use crate::{
    api::access_log::ChangeRecord,
    auth::rights::Right,
    broker::{Broker, BrokerError},
    handlers::request::ApiRequest,
    http::{codes, error::ApiError, operation::Operation, path::decoded},
    state::{AppState, topic_names::TopicPlace},
};
use dms_protocol::{
    internal::json::quoted,
    limits,
    queue::{GroupId, NewQueue, ProjectId, QueueId},
};

/// The names in the path of a request, whose caller has the right that the route requires.
#[derive(Debug)]
pub(crate) struct Topic<'a> {
    project: &'a str,
    name: Cow<'a, str>,
    group: Option<Cow<'a, str>>,
}

impl<'a> Topic<'a> {
    /// Reads the names and checks the right of the caller.
    ///
    /// # Errors
    /// DMS.10240311 when the caller lacks the right, DMS.10240012 or DMS.10240007 when the name of the group is not allowed.
    pub(crate) fn read(request: &ApiRequest<'a>, right: Right) -> Result<Self, ApiError> {
        let [name, group] = request.params;
        let (name, group) = (decoded(name)?, decoded(group)?);
        request.caller.may(right, request.project, &name)?;
        // A request that sends names no group.
        if right == Right::Send {
            return Ok(Self { project: request.project, name, group: None });
        }
        limits::mqs_group_name(&group).map_err(|error| match group.len() {
            1..=limits::MAX_MQS_GROUP_NAME => codes::NAME_CHARS.at(error.of("The name of the group")),
            _ => codes::GROUP_NAME_LENGTH.saying(error.of("The name of the group")),
        })?;
        Ok(Self { project: request.project, name, group: Some(group) })
    }

    /// The ids, if the names were used before. The queue or the group may have been deleted since.
    pub(crate) fn known(&self, app: &AppState) -> Option<TopicPlace> {
        app.topics.get(self.project, &self.name, self.group.as_deref())
    }

    /// Asks the broker for the ids, and creates what is missing: the queue if that is allowed, and the group of a consumer.
    ///
    /// # Errors
    /// DMS.10240401 or DMS.10240405 when the queue or the group is missing, and the errors of creating them.
    pub(crate) async fn find(&self, request: &ApiRequest<'_>, operation: Operation) -> Result<TopicPlace, ApiError> {
        let project = ProjectId::new(self.project);
        let creates = operation != Operation::Ack;
        let queue = self.queue(request, &project, creates).await?;
        let group = match self.group.as_deref() {
            Some(name) => Some(self.group(request, (&project, &queue), name, creates).await?),
            None => None,
        };
        let place = TopicPlace { queue, group };
        request.app.topics.remember(&project, &self.name, self.group.as_deref(), &place);
        Ok(place)
    }

    async fn queue(&self, request: &ApiRequest<'_>, project: &ProjectId, creates: bool) -> Result<QueueId, ApiError> {
        let broker = &*request.app.broker;
        if let Some(queue) = self.existing_queue(broker, project).await? {
            return Ok(queue);
        }
        if !creates || !request.app.topics.auto_create {
            let name = quoted(&self.name);
            return Err(
                codes::QUEUE_NOT_FOUND.saying(format!("There is no topic {name}: create a queue of this name."))
            );
        }
        let record = ChangeRecord::creation(request, &self.name, None);
        let created = self.create_queue(request, project).await;
        record.log_creation(created.as_ref().err());
        created
    }

    async fn create_queue(&self, request: &ApiRequest<'_>, project: &ProjectId) -> Result<QueueId, ApiError> {
        let name = &*self.name;
        limits::queue_name(name).map_err(|error| match name.len() {
            1..=limits::MAX_QUEUE_NAME => codes::NAME_CHARS.at(error.of("The name of the topic")),
            _ => codes::QUEUE_NAME_LENGTH.at(error.of("The name of the topic")),
        })?;
        request.caller.may(Right::Manage, self.project, name)?;
        let broker = &*request.app.broker;
        match broker.create_queue(project, NewQueue::new(name)).await {
            Ok(created) => Ok(created.id),
            // Another request has just created it.
            Err(BrokerError::QueueExists(_)) => {
                self.existing_queue(broker, project).await?.ok_or_else(|| codes::QUEUE_NOT_FOUND.plain())
            }
            Err(error) => Err(error.into()),
        }
    }

    async fn existing_queue(&self, broker: &dyn Broker, project: &ProjectId) -> Result<Option<QueueId>, ApiError> {
        let queues = broker.queues(project).await?;
        Ok(queues.into_iter().find(|queue| queue.name == self.name).map(|queue| queue.id))
    }

    async fn group(
        &self,
        request: &ApiRequest<'_>,
        place: (&ProjectId, &QueueId),
        name: &str,
        creates: bool,
    ) -> Result<GroupId, ApiError> {
        if let Some(group) = existing_group(&*request.app.broker, place, name).await? {
            return Ok(group);
        }
        if !creates {
            let text = format!("The topic {} has no group {}.", quoted(&self.name), quoted(name));
            return Err(codes::GROUP_NOT_FOUND.saying(text));
        }
        let record = ChangeRecord::creation(request, &self.name, Some(name));
        let created = create_group(&*request.app.broker, place, name).await;
        record.log_creation(created.as_ref().err());
        created
    }
}

async fn create_group(
    broker: &dyn Broker,
    place @ (project, queue): (&ProjectId, &QueueId),
    name: &str,
) -> Result<GroupId, ApiError> {
    let missing = || codes::GROUP_NOT_FOUND.plain();
    match broker.create_groups(project, queue, &[name.to_owned()]).await {
        Ok(ids) => ids.into_iter().next().ok_or_else(missing),
        // Another request has just created it.
        Err(BrokerError::GroupExists(_)) => existing_group(broker, place, name).await?.ok_or_else(missing),
        Err(error) => Err(error.into()),
    }
}

async fn existing_group(
    broker: &dyn Broker,
    (project, queue): (&ProjectId, &QueueId),
    name: &str,
) -> Result<Option<GroupId>, ApiError> {
    let list = broker.groups(project, queue).await?;
    Ok(list.groups.into_iter().find(|group| group.name == name).map(|group| group.id))
}
