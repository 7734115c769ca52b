//! [`ServerHandle`]: changes a running server.

use std::sync::{Arc, Weak, atomic::Ordering};

use crate::{
    api::access_log,
    auth::project::Project,
    server::{config::ServerConfig, configured, error::ServerError, startup},
    state::AppState,
};
use dms_protocol::queue::ProjectId;

/// Changes a running server: its keys and users, settings, queues and schedules. Clones refer to the same server, and do not keep
/// it alive.
///
/// # Examples
/// ```
/// use dms_server::{Project, Server, ServerConfig};
///
/// #[tokio::main(flavor = "current_thread")]
/// async fn main() -> Result<(), Box<dyn std::error::Error>> {
///     let shop = |secret_key: &str| vec![Project::new("shop").access_key("AK", secret_key)];
///     let server = Server::bind(ServerConfig::default().projects(shop("old secret"))).await?;
///     // From now on, the old secret is refused.
///     assert_eq!(server.handle().replace_callers(&shop("new secret"))?, 1);
///     Ok(())
/// }
/// ```
#[derive(Clone, Debug)]
pub struct ServerHandle(Weak<AppState>);

impl ServerHandle {
    pub(crate) fn new(app: &Arc<AppState>) -> Self {
        Self(Arc::downgrade(app))
    }

    /// Replaces the keys and users of the projects with the same ids, and returns how many were added, changed or removed.
    /// Nothing else of a project changes. Projects that the server does not have are ignored. Tokens of removed users, and of
    /// users whose password changed, become invalid. Each change is a line of the access log.
    ///
    /// # Errors
    /// When the projects are invalid, when the server would become open or would no longer be open, and when the server has
    /// ended. Nothing changes then.
    pub fn replace_callers(&self, projects: &[Project]) -> Result<usize, ServerError> {
        let app = self.0.upgrade().ok_or(ServerError::Ended)?;
        let changes = app.authenticator.replace_callers(projects)?;
        changes.iter().for_each(access_log::caller_changed);
        Ok(changes.len())
    }

    /// Creates the queues and groups of these projects that do not exist, as the start of the server does. Existing ones do not
    /// change, and none is deleted.
    ///
    /// # Errors
    /// When one cannot be created, for example because of a quota, and when the server has ended. Those before it were created.
    ///
    /// # Cancel safety
    /// Dropping the future may leave out some of them; the next call creates those.
    pub async fn create_missing_queues(&self, projects: &[Project]) -> Result<(), ServerError> {
        let app = self.0.upgrade().ok_or(ServerError::Ended)?;
        let waiting = configured::create_missing(&*app.broker, projects).await?;
        app.waiting_schedules.set(&ids(projects), waiting);
        Ok(())
    }

    /// Sets the schedules of these projects, and removes those that an earlier configuration had, as the start of the server does.
    /// Schedules that were added by command stay.
    ///
    /// # Errors
    /// When the broker fails, and when the server has ended.
    ///
    /// # Cancel safety
    /// Dropping the future may leave out some of them; the next call sets those.
    pub async fn set_schedules(&self, projects: &[Project]) -> Result<(), ServerError> {
        let app = self.0.upgrade().ok_or(ServerError::Ended)?;
        let waiting = configured::set_schedules(&*app.broker, projects).await?;
        app.waiting_schedules.set(&ids(projects), waiting);
        Ok(())
    }

    /// Takes the settings of the broker and the quotas of the projects from another configuration: quotas, retention,
    /// `failure_counting`, `new_group_starts`, `create_delay`, the limits of consume calls and of leased messages, and
    /// [`metrics_max_groups`](ServerConfig::metrics_max_groups). Messages beyond a shorter retention are deleted; quotas do not touch
    /// what exists already. Everything else of the configuration is ignored, also `fifo_blocks` and `dead_letter_retention`.
    ///
    /// A broker that was given to [`Server::with_broker`](crate::Server::with_broker) keeps its own settings. The other servers of a
    /// cluster keep theirs.
    ///
    /// # Errors
    /// When the configuration is invalid, and when the server has ended. Nothing changes then.
    pub fn reconfigure(&self, config: &ServerConfig) -> Result<(), ServerError> {
        config.check()?;
        let app = self.0.upgrade().ok_or(ServerError::Ended)?;
        app.reconfigure.apply(&startup::broker_settings(config));
        app.metrics_max_groups.store(config.metrics_max_groups, Ordering::Relaxed);
        Ok(())
    }

    /// Asks for another token at the admin address from now on. Returns false, and changes nothing, where no token was asked for, or
    /// none is given: that takes a restart, and so does a server that has ended.
    pub fn renew_admin_token(&self, token: Option<&str>) -> bool {
        self.0.upgrade().is_some_and(|app| app.admin_auth.renew(token))
    }

    /// The same for the read token of the admin address.
    pub fn renew_admin_read_token(&self, token: Option<&str>) -> bool {
        self.0.upgrade().is_some_and(|app| app.admin_read_auth.renew(token))
    }
}

fn ids(projects: &[Project]) -> Vec<ProjectId> {
    projects.iter().map(|project| project.id.clone()).collect()
}
