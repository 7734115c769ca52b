//! Preparations before the first request: opening the broker and creating the configured queues.

use std::sync::Arc;

use crate::{
    auth::project::{Project, StartQueue},
    broker::{Broker, BrokerError, embedded::EmbeddedBroker},
    server::{config::ServerConfig, error::ServerError},
};
use dms_protocol::queue::{ProjectId, QueueId};

/// Opens the embedded broker with the settings of the configuration.
pub(crate) async fn open(config: &ServerConfig) -> Result<Arc<dyn Broker>, ServerError> {
    let mut options = config.broker.clone();
    for project in &config.projects {
        if let Some(quotas) = project.quotas {
            options.project_quotas.insert(project.id.clone(), quotas);
        }
    }
    let broker = match &config.data_dir {
        None => EmbeddedBroker::in_memory(options, config.clock).await,
        Some(directory) => EmbeddedBroker::open(directory, options, config.clock).await?,
    };
    Ok(Arc::new(broker))
}

/// Creates missing queues and groups of the configuration.
pub(crate) async fn create_missing(broker: &dyn Broker, projects: &[Project]) -> Result<(), ServerError> {
    for project in projects {
        for start in &project.queues {
            create(broker, &project.id, start).await.map_err(|source| ServerError::StartQueue {
                project: project.id.to_string(),
                queue: start.queue.name.clone(),
                source,
            })?;
        }
    }
    Ok(())
}

async fn create(broker: &dyn Broker, project: &ProjectId, start: &StartQueue) -> Result<(), BrokerError> {
    let known = broker.queues(project).await?.into_iter().find(|queue| queue.name == start.queue.name);
    let queue: QueueId = match known {
        Some(queue) => queue.id,
        None => broker.create_queue(project, start.queue.clone()).await?.id,
    };
    let there = broker.groups(project, &queue).await?.groups;
    let missing = |name: &&String| !there.iter().any(|group| group.name == **name);
    let missing: Vec<String> = start.groups.iter().filter(missing).cloned().collect();
    if !missing.is_empty() {
        broker.create_groups(project, &queue, &missing).await?;
    }
    Ok(())
}
