//! Preparations before the first request: opening the broker and creating the configured queues.

use std::sync::Arc;

#[cfg(feature = "postgres")]
use crate::server::cluster::ClusterBroker;
use crate::{
    auth::project::{Project, StartQueue},
    broker::{Broker, BrokerError, embedded::EmbeddedBroker},
    server::{config::ServerConfig, error::ServerError},
    state::endable_polls::EndablePolls,
};
use dms_protocol::queue::{ProjectId, QueueId};

#[cfg(feature = "postgres")]
const BOTH_STORES: &str = "server.data_dir and server.postgres both say where messages are kept: leave one of them out";

/// Creates the missing queues and groups of the configuration, unless the broker does so itself when it takes over.
pub(crate) async fn create_first(broker: &dyn Broker, config: &ServerConfig) -> Result<(), ServerError> {
    #[cfg(feature = "postgres")]
    if config.postgres.is_some() {
        return Ok(());
    }
    create_missing(broker, &config.projects).await
}

/// Opens the embedded broker with the settings of the configuration.
/// Other servers of a cluster end the `polls` of this one.
pub(crate) async fn open(
    config: &ServerConfig,
    #[cfg_attr(not(feature = "postgres"), expect(unused_variables))] polls: &Arc<EndablePolls>,
) -> Result<Arc<dyn Broker>, ServerError> {
    let mut options = config.broker.clone();
    for project in &config.projects {
        if let Some(quotas) = project.quotas {
            options.project_quotas.insert(project.id.clone(), quotas);
        }
    }
    #[cfg(feature = "postgres")]
    if let Some(postgres) = &config.postgres {
        if config.data_dir.is_some() {
            return Err(ServerError::Config(BOTH_STORES.to_owned()));
        }
        let (postgres, projects) = (postgres.clone(), config.projects.clone());
        return Ok(Arc::new(ClusterBroker::join(postgres, options, projects, config.clock, polls.clone()).await?));
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
