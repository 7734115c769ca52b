//! [`Pages`]: what the pages share.

use std::sync::Arc;

use axum::extract::RawPathParams;

use crate::{
    config::Config,
    sidecar::{admin::state::AdminState, dashboard::samples::Charts, running::parts::RunningWorker},
};
use dms_server::internal::dashboard::Gate;

/// What the pages share.
#[derive(Clone)]
pub(super) struct Pages {
    pub(super) admin: Arc<AdminState>,
    pub(super) gate: Gate,
    pub(super) config: Arc<Config>,
    pub(super) charts: Arc<Charts>,
}

impl Pages {
    /// The worker in a path.
    pub(super) fn find(&self, params: &RawPathParams) -> Option<Arc<RunningWorker>> {
        let wanted = params.iter().find(|(key, _)| *key == "worker").map(|(_, value)| value)?;
        self.admin.parts.worker(wanted)
    }
}

/// The path of a worker's page.
pub(super) fn page_of(watch: &RunningWorker) -> String {
    let name: String = form_urlencoded::byte_serialize(watch.name.as_bytes()).collect();
    format!("/workers/{}", name.replace('+', "%20"))
}
