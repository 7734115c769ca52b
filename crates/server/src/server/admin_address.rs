//! [`AdminAddress`]: the address for operators, and the dashboard there.

use std::sync::Arc;

use tokio_util::sync::CancellationToken;

#[cfg(feature = "dashboard")]
use crate::dashboard::server::{Dashboard, router};
use crate::{
    admin,
    net::{
        limits::{ADMIN_CONNECTIONS, HttpLimits},
        listener::Listener,
    },
    server::with_strangers,
    state::AppState,
};

/// The admin address of a server.
#[derive(Debug)]
pub(super) struct AdminAddress {
    /// `None` if the server has no admin address.
    pub(super) listener: Option<Listener>,
    /// The dashboard; `None` if it is not served.
    #[cfg(feature = "dashboard")]
    pub(super) dashboard: Option<Arc<Dashboard>>,
}

impl AdminAddress {
    /// Serves until `ended` is cancelled.
    pub(super) async fn serve(self, app: &Arc<AppState>, ended: &CancellationToken) {
        let Some(listener) = self.listener else { return };
        let (routes, limits) = (admin::router(app), limits(app));
        #[cfg(feature = "dashboard")]
        if let Some(dashboard) = &self.dashboard {
            // Its pages have a rule of their own for requests of browsers, so the check of the others does not apply to them.
            let routes = routes.merge(router(app, dashboard));
            tokio::join!(listener.run(routes, limits, ended.clone()), dashboard.run(app, ended));
            return;
        }
        listener.run(routes, limits, ended.clone()).await;
    }
}

fn limits(app: &AppState) -> HttpLimits {
    let limits = with_strangers(app.limits.clone(), app.admin_auth.asks());
    HttpLimits { connections: limits.connections.min(ADMIN_CONNECTIONS), ..limits }
}
