//! [`Callers`]: the keys and users of a server that runs.

use std::sync::{Arc, Weak};

use crate::{api::access_log, auth::project::Project, server::error::ServerError, state::AppState};

/// The keys and users of a server that runs; they can be changed. Clones change the same server, and keep none alive.
#[derive(Clone, Debug)]
pub struct Callers(Weak<AppState>);

impl Callers {
    pub(crate) fn new(app: &Arc<AppState>) -> Self {
        Self(Arc::downgrade(app))
    }

    /// Takes the keys and users of these projects in place of those that the server's projects of the same ids have, and says
    /// how many are new, gone or different. Nothing else of a project changes, and projects that the server does not have
    /// are passed over. TokenStore of users who are gone or have another password are good no longer. Each change is a line
    /// of the access log.
    ///
    /// # Errors
    /// When they contradict each other, one of them is empty, or the server would be open to anybody or no longer open:
    /// then nothing changes. And when the server has ended.
    pub fn replace(&self, projects: &[Project]) -> Result<usize, ServerError> {
        let app = self.0.upgrade().ok_or_else(|| ServerError::Config("the server has ended".to_owned()))?;
        let changes = app.authenticator.replace_callers(projects).map_err(ServerError::Config)?;
        changes.iter().for_each(access_log::caller_changed);
        Ok(changes.len())
    }

    /// Asks for another token at the admin address from now on. Returns false, and changes nothing, where no token was asked for, or
    /// none is given: that takes a restart, and so does a server that has ended.
    pub fn renew_admin_token(&self, token: Option<&str>) -> bool {
        self.0.upgrade().is_some_and(|app| app.admin_auth.renew(token))
    }
}
