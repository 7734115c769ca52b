//! The queues, groups and schedules of the configuration: created where they are missing, and set in force.

use std::{collections::HashMap, time::Duration};

use tokio::time::sleep;

use crate::{
    auth::project::{Project, StartQueue, StartSchedule},
    broker::{Broker, BrokerError, ScheduleOverview, ScheduleSource},
    server::error::ServerError,
    state::waiting_schedules::{WaitingSchedule, WaitingSchedules, is_of},
};
use dms_protocol::queue::{ProjectId, QueueId};

/// How often a missing queue of a schedule is looked for.
const QUEUE_LOOKS: Duration = Duration::from_secs(2);
/// How often it is looked whether a queue is still being created.
const CREATION_LOOKS: Duration = Duration::from_millis(20);

/// Creates missing queues and groups of the configuration, and sets its schedules. Returns those that are not in force.
pub(crate) async fn create_missing(
    broker: &dyn Broker,
    projects: &[Project],
) -> Result<Vec<WaitingSchedule>, ServerError> {
    for project in projects {
        let failed = |start: &StartQueue, source| ServerError::StartQueue {
            project: project.id.to_string(),
            queue: start.queue.name.clone(),
            source,
        };
        let Some(first) = project.queues.first() else { continue };
        let known = ids(broker, &project.id).await.map_err(|error| failed(first, error))?;
        // All queues first, so that `create_delay` is waited for once.
        let mut queues = Vec::with_capacity(project.queues.len());
        for start in &project.queues {
            let queue = match known.get(&start.queue.name) {
                Some(queue) => queue.clone(),
                None => create(broker, &project.id, start).await.map_err(|error| failed(start, error))?,
            };
            queues.push(queue);
        }
        for (start, queue) in project.queues.iter().zip(&queues) {
            create_groups(broker, &project.id, queue, start).await.map_err(|error| failed(start, error))?;
        }
    }
    set_schedules(broker, projects).await
}

/// Sets the schedules of the configuration, and removes those that an earlier configuration had. One that cannot be set is logged
/// and the server serves without it, because its queue may have been deleted while the server ran. Returns those.
pub(crate) async fn set_schedules(
    broker: &dyn Broker,
    projects: &[Project],
) -> Result<Vec<WaitingSchedule>, ServerError> {
    let mut waiting = Vec::new();
    for project in projects {
        let failed = |source| ServerError::StartSchedules { project: project.id.to_string(), source };
        waiting.extend(set_schedules_of(broker, project).await.map_err(failed)?);
    }
    Ok(waiting)
}

/// Sets the schedules of the configuration that are not in force, at the start of a server whose shards are opened later, and perhaps
/// by other servers. Notes those whose queue is missing. It tries again until the owners of all queues answer.
pub(crate) async fn look_for_schedules(broker: &dyn Broker, projects: &[Project], waiting: &WaitingSchedules) {
    let mut projects = projects.to_vec();
    projects.retain(|project| !project.schedules.is_empty());
    while !projects.is_empty() && !waiting.is_known() {
        match set_missing_schedules(broker, &projects).await {
            Ok(found) => return waiting.set_first(found),
            Err(error) => tracing::debug!(%error, "the schedules of the configuration could not be looked for yet"),
        }
        sleep(QUEUE_LOOKS).await;
    }
}

async fn set_missing_schedules(broker: &dyn Broker, projects: &[Project]) -> Result<Vec<WaitingSchedule>, BrokerError> {
    let (there, mut waiting) = (broker.schedules().await?, Vec::new());
    for project in projects {
        let is_in_force = |start: &StartSchedule| there.iter().any(|there| is_of(there, &project.id, start));
        let missing: Vec<_> = project.schedules.iter().filter(|start| !is_in_force(start)).cloned().collect();
        waiting.extend(set_each(broker, &project.id, &missing).await?);
    }
    Ok(waiting)
}

/// Sets schedules whose queue was missing and exists now, until the future is dropped.
pub(crate) async fn set_waiting_schedules(broker: &dyn Broker, waiting: &WaitingSchedules) {
    loop {
        waiting.any().await;
        sleep(QUEUE_LOOKS).await;
        for schedule in waiting.all() {
            let WaitingSchedule { project, start, .. } = &schedule;
            let Ok(queues) = broker.queues(project).await else { continue };
            let Some(found) = queues.iter().find(|queue| queue.name == start.queue) else { continue };
            let source = ScheduleSource::Configuration;
            if let Ok(_set) = broker.set_schedule(project, &found.id, start.schedule.clone(), source).await {
                waiting.remove(&schedule);
                let (queue, schedule) = (&start.queue, &start.schedule.name);
                tracing::info!(%project, queue, schedule, "a schedule of the configuration is in force, because its queue exists now");
            }
        }
    }
}

async fn set_schedules_of(broker: &dyn Broker, project: &Project) -> Result<Vec<WaitingSchedule>, BrokerError> {
    let is_wanted = |there: &ScheduleOverview| project.schedules.iter().any(|start| is_of(there, &project.id, start));
    for there in broker.schedules().await?.into_iter().filter(|there| there.project == project.id) {
        if there.source == ScheduleSource::Configuration && !is_wanted(&there) {
            broker.remove_schedule(&project.id, &there.queue, &there.schedule.name, there.source).await?;
        }
    }
    set_each(broker, &project.id, &project.schedules).await
}

async fn set_each(
    broker: &dyn Broker,
    project: &ProjectId,
    schedules: &[StartSchedule],
) -> Result<Vec<WaitingSchedule>, BrokerError> {
    let mut waiting = Vec::new();
    if schedules.is_empty() {
        return Ok(waiting);
    }
    let queues = broker.queues(project).await?;
    for StartSchedule { queue, schedule } in schedules {
        let found = queues.iter().find(|known| known.name == *queue);
        let set = match found {
            Some(found) => {
                let (schedule, source) = (schedule.clone(), ScheduleSource::Configuration);
                broker.set_schedule(project, &found.id, schedule, source).await.map(drop)
            }
            None => Err(BrokerError::QueueNotFound),
        };
        match set {
            Ok(()) => {}
            Err(error @ (BrokerError::QueueNotFound | BrokerError::NotAvailable(_) | BrokerError::KafkaLabels)) => {
                tracing::error!(
                    %project,
                    queue,
                    schedule = schedule.name,
                    %error,
                    "a schedule of the configuration is not in force: create its queue, best in server.queues, and it starts by itself; or \
                     correct the schedule and reload"
                );
                let start = StartSchedule { queue: queue.clone(), schedule: schedule.clone() };
                waiting.push(WaitingSchedule { project: project.clone(), start, reason: error.to_string() });
            }
            Err(error) => return Err(error),
        }
    }
    Ok(waiting)
}

/// The ids of a project's queues, by their names.
async fn ids(broker: &dyn Broker, project: &ProjectId) -> Result<HashMap<String, QueueId>, BrokerError> {
    Ok(broker.queues(project).await?.into_iter().map(|queue| (queue.name, queue.id)).collect())
}

/// Creates a queue, and returns its id. Another server may have done so since the queues were listed.
async fn create(broker: &dyn Broker, project: &ProjectId, start: &StartQueue) -> Result<QueueId, BrokerError> {
    match broker.create_queue(project, start.queue.clone()).await {
        Err(BrokerError::QueueExists(name)) => {
            let found = ids(broker, project).await?.remove(&name);
            found.ok_or(BrokerError::QueueExists(name))
        }
        created => created.map(|created| created.id),
    }
}

/// Creates the groups of a queue that are not there.
async fn create_groups(
    broker: &dyn Broker,
    project: &ProjectId,
    queue: &QueueId,
    start: &StartQueue,
) -> Result<(), BrokerError> {
    match create_missing_groups(broker, project, queue, start).await {
        // Another server has created some of them since they were listed.
        Err(BrokerError::GroupExists(_)) => create_missing_groups(broker, project, queue, start).await,
        created => created,
    }
}

async fn create_missing_groups(
    broker: &dyn Broker,
    project: &ProjectId,
    queue: &QueueId,
    start: &StartQueue,
) -> Result<(), BrokerError> {
    let there = loop {
        match broker.groups(project, queue).await {
            // For `create_delay`, which is for clients and must not keep the server from starting.
            Err(BrokerError::BeingCreated) => sleep(CREATION_LOOKS).await,
            groups => break groups?.groups,
        }
    };
    let missing = |name: &&String| !there.iter().any(|group| group.name == **name);
    let missing: Vec<String> = start.groups.iter().filter(missing).cloned().collect();
    if !missing.is_empty() {
        broker.create_groups(project, queue, &missing).await?;
    }
    Ok(())
}
