//! [`Controls`]: changes to a running sidecar.

use crate::{
    config::{Config, Dms},
    sidecar::{
        assemble::runtime::on_worker_failure,
        observe::configuration::ConfigurationState,
        reload::{prepare::Prepared, secrets, server},
        running::shared::Shared,
    },
};
use dms_server::{ServerHandle, Tls, internal::bearer::BearerPair};
use dms_worker::runtime::RuntimeHandle;

/// Changes to a running sidecar.
#[derive(Clone, Debug)]
pub struct Controls {
    pub(in crate::sidecar) shared: Shared,
    pub(in crate::sidecar) runtime: RuntimeHandle,
    /// The certificates of the embedded server and the admin endpoint.
    pub(in crate::sidecar) fixed_certificates: Vec<Tls>,
    pub(in crate::sidecar) server: Option<ServerHandle>,
    pub(in crate::sidecar) admin: BearerPair,
    pub(in crate::sidecar) configuration: ConfigurationState,
}

impl Controls {
    /// Sets how many messages a worker may have in flight. Returns false if there is no such worker.
    pub fn set_concurrency(&self, worker: &str, messages: usize) -> bool {
        self.shared.parts.worker(worker).inspect(|worker| worker.throttle.concurrency(messages)).is_some()
    }

    /// Applies another configuration to the sidecar, which runs with the configuration `in_force`, and writes the applied settings
    /// into `in_force`. Afterwards the two differ only in keys that need a restart of the process.
    ///
    /// Unchanged workers continue without a pause. Workers whose limits or secrets change continue with the new ones. Workers with
    /// other changes, and removed workers, drain: their handlers finish, and their messages are acknowledged. Returns when
    /// that is done.
    ///
    /// # Errors
    /// Returns all mistakes if the configuration cannot work here. Nothing has changed then.
    ///
    /// # Cancel safety
    /// Dropping the future may leave a stopped worker without its successor.
    pub async fn apply(&self, in_force: &mut Config, new: &Config) -> Result<(), Vec<String>> {
        if !new.has_work() {
            return Err(vec!["there is nothing to run: no workers, publishers or outboxes".to_owned()]);
        }
        if self.shared.parts.is_drained() {
            let reason = "POST /drain has stopped all workers for good: restart the process to apply a configuration";
            return Err(vec![reason.to_owned()]);
        }
        let prepared = Prepared::new(in_force, new, &self.shared).await?;
        let taken = match &self.server {
            Some(handle) => {
                let taken = server::take_callers(handle, &mut in_force.server, &new.server);
                server::take_settings(handle, &mut in_force.server, &new.server);
                server::create_queues(handle, &mut in_force.server, &new.server).await;
                server::set_schedules(handle, &mut in_force.server, &new.server).await;
                taken
            }
            None => true,
        };
        // The client of the embedded server continues with keys that this server accepts.
        let client = self.shared.client.get();
        let auth = if taken { prepared.dms.auth.clone() } else { in_force.dms.auth.clone() };
        let effective = Config { dms: prepared.dms, ..new.clone() };
        if prepared.is_other_client {
            if !taken {
                prepared.client.authorize_as(&client);
            }
            self.shared.client.set(prepared.client);
            tracing::info!(
                endpoint = %effective.dms.endpoint,
                project = effective.dms.project_id,
                "the section dms has changed: all workers, publishers and outboxes restart with a new client"
            );
        } else if taken && secrets::needs_credentials(in_force, &effective) {
            client.authorize_as(&prepared.client);
        }
        let mut changed = secrets::renew_apps(&self.shared.parts, in_force, new);
        changed.extend(secrets::renew_publishers(&self.shared.parts, in_force, new));
        changed.extend(secrets::renew_admin(&self.admin, in_force, new));
        changed.extend((in_force.dms.auth != auth).then(|| "dms.auth".to_owned()));
        in_force.dms = Dms { auth, ..effective.dms };
        if !changed.is_empty() {
            tracing::info!(keys = changed.join(", "), "the new secrets are in use");
        }
        self.runtime.set_shutdown_grace(new.shutdown.grace.get());
        self.replace_publishers(prepared.publishers);
        self.replace_outboxes(prepared.outboxes).await;
        self.runtime.set_on_worker_failure(on_worker_failure(new));
        self.replace_workers(prepared.workers, new).await;
        if (in_force.limits, in_force.on_worker_failure) != (new.limits, new.on_worker_failure) {
            tracing::info!("the new values of limits and on_worker_failure are in force");
        }
        (in_force.limits, in_force.on_worker_failure) = (new.limits, new.on_worker_failure);
        in_force.workers.clone_from(&new.workers);
        in_force.publishers.clone_from(&new.publishers);
        in_force.outboxes.clone_from(&new.outboxes);
        in_force.shutdown = new.shutdown;
        in_force.secret_variables.clone_from(&new.secret_variables);
        Ok(())
    }

    /// The handle of the server in this process, if there is one.
    pub fn server(&self) -> Option<&ServerHandle> {
        self.server.as_ref()
    }

    /// The certificates of everything that listens.
    pub fn certificates(&self) -> Vec<Tls> {
        let publishers = self.shared.parts.publishers();
        let publishers = publishers.iter().filter_map(|publisher| publisher.listener.tls().cloned());
        self.fixed_certificates.iter().cloned().chain(publishers).collect()
    }

    /// The state of the configuration, for the admin endpoint.
    pub fn configuration(&self) -> &ConfigurationState {
        &self.configuration
    }
}
