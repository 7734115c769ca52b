//! Preparations before the first request: opening the broker, and creating the queues and schedules of the configuration.

use std::sync::Arc;

#[cfg(feature = "postgres")]
use crate::server::cluster::ClusterBroker;
use crate::{
    broker::{
        Broker,
        embedded::{EmbeddedBroker, EmbeddedConfig},
    },
    server::{config::ServerConfig, configured::create_missing, error::ServerError},
    state::{Reconfigure, endable_polls::EndablePolls, waiting_schedules::WaitingSchedule},
};

/// Creates the missing queues and groups of the configuration and sets its schedules.
///
/// Returns the schedules that are not in force; `None` if the broker does all that itself when it takes over, and they are to be
/// looked for with [`look_for_schedules`](crate::server::configured::look_for_schedules).
pub(crate) async fn create_first(
    broker: &dyn Broker,
    config: &ServerConfig,
) -> Result<Option<Vec<WaitingSchedule>>, ServerError> {
    #[cfg(feature = "postgres")]
    if config.postgres.is_some() {
        return Ok(None);
    }
    create_missing(broker, &config.projects).await.map(Some)
}

/// The settings of the broker, with the quotas of all projects.
pub(crate) fn broker_settings(config: &ServerConfig) -> EmbeddedConfig {
    let mut options = config.broker.clone();
    for project in &config.projects {
        if let Some(quotas) = project.quotas {
            options.project_quotas.insert(project.id.clone(), quotas);
        }
    }
    options
}

/// Opens the embedded broker with the settings of the configuration, and returns how to change these.
/// Other servers of a cluster end the `polls` of this one.
pub(crate) async fn open(
    config: &ServerConfig,
    #[cfg_attr(not(feature = "postgres"), expect(unused_variables))] polls: &Arc<EndablePolls>,
) -> Result<(Arc<dyn Broker>, Reconfigure), ServerError> {
    let options = broker_settings(config);
    #[cfg(feature = "postgres")]
    if let Some(postgres) = &config.postgres {
        let (postgres, projects) = (postgres.clone(), config.projects.clone());
        let broker = ClusterBroker::join(postgres, options, projects, config.clock, polls.clone()).await?;
        let broker = Arc::new(broker);
        let changed = Arc::clone(&broker);
        return Ok((broker, Reconfigure::by(move |options| changed.reconfigure(options))));
    }
    let broker = match &config.data_dir {
        None => EmbeddedBroker::in_memory(options, config.clock).await,
        Some(directory) => EmbeddedBroker::open(directory, options, config.clock).await?,
    };
    let broker = Arc::new(broker);
    let changed = Arc::clone(&broker);
    Ok((broker, Reconfigure::by(move |options| changed.reconfigure(options.clone()))))
}
