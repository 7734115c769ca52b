//! The keys and users of the server in this process, changed while it runs: by SIGHUP, and when a file with a secret has
//! another content.

use std::{path::PathBuf, time::Duration};

use sha2::{Digest, Sha256};
use tokio::{task::spawn_blocking, time::sleep};

use crate::{config, sidecar::assemble::server_config};
use dms_server::Callers;

/// How often the files are looked at.
const CHECK_INTERVAL: Duration = Duration::from_secs(2);

/// Takes the keys and users of a new configuration, and notes them in the one in force; whether they were taken. What is wrong
/// changes nothing.
pub(crate) fn take(callers: &Callers, config: &mut config::Server, new: &config::Server) -> bool {
    match callers.replace(&server_config::settings(new).projects) {
        Ok(0) => {}
        Ok(changes) => tracing::info!(changes, "the keys and users were read again"),
        Err(error) => {
            tracing::warn!(%error, "the keys and users were read again and not taken: those in force stay");
            return false;
        }
    }
    let (read_token, new_read_token) = (&mut config.admin.0.read_token, &new.admin.0.read_token);
    if read_token != new_read_token
        && callers.renew_admin_read_token(new_read_token.as_ref().map(config::Secret::expose))
    {
        read_token.clone_from(new_read_token);
        tracing::info!("the read token of the admin address was read again");
    }
    if config.admin_token() != new.admin_token()
        && callers.renew_admin_token(new.admin_token().map(config::Secret::expose))
    {
        config.admin_token.clone_from(&new.admin_token);
        config.admin.0.token.clone_from(&new.admin.0.token);
        tracing::info!("the token of the admin address was read again");
    }
    config.auth.clone_from(&new.auth);
    for project in &mut config.projects {
        if let Some(new) = new.projects.iter().find(|new| new.id == project.id) {
            project.auth.clone_from(&new.auth);
        }
    }
    true
}

/// Takes what the files with secrets hold now; whether the server has taken it. The secret of a file that cannot be used stays.
pub(crate) fn read_again(callers: &Callers, config: &mut config::Server) -> bool {
    let (new, unusable) = config.with_files_read_again();
    warn_of_kept(&unusable);
    take(callers, config, &new)
}

/// Says which files of secrets cannot be used.
pub(crate) fn warn_of_kept(unusable: &[String]) {
    for error in unusable {
        tracing::warn!(error, "a secret file cannot be used: the secret in force stays");
    }
}

/// What the files with secrets held when they were last looked at.
#[derive(Debug, Default)]
pub(crate) struct FileWatch {
    seen: Option<Vec<Content>>,
}

/// A hash of a file's content, or that it cannot be read.
type Content = Option<[u8; 32]>;

impl FileWatch {
    /// Waits until one of these files has another content than before; the first look counts as one.
    ///
    /// # Cancel safety
    /// A change that was not reported is reported by the next call.
    pub(crate) async fn changed(&mut self, files: Vec<PathBuf>) {
        if files.is_empty() {
            return std::future::pending().await;
        }
        loop {
            sleep(CHECK_INTERVAL).await;
            let files = files.clone();
            let contents = spawn_blocking(move || files.iter().map(content).collect()).await.ok();
            if contents.is_some() && contents != self.seen {
                self.seen = contents;
                return;
            }
        }
    }
}

fn content(file: &PathBuf) -> Content {
    std::fs::read(file).ok().map(|bytes| Sha256::digest(bytes).into())
}
