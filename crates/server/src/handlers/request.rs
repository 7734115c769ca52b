//! [`ApiRequest`]: an authenticated request, as its handler sees it.

use http::request::Parts;

use crate::{
    auth::{caller::Caller, sender::Sender},
    broker::GroupPath,
    http::{error::ApiError, path::QueuePath, query::Query},
    state::AppState,
};
use dms_protocol::queue::ProjectId;

/// An authenticated request whose caller may use the project and has the rights of the route.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ApiRequest<'a> {
    /// The parts of the server that all requests share.
    pub(crate) app: &'a AppState,
    /// The head of the request and its connection.
    pub(crate) sender: Sender<'a>,
    /// The sender.
    pub(crate) caller: &'a Caller,
    /// The project in the path; empty for the identity service.
    pub(crate) project: &'a str,
    /// The parameters in the path, neither decoded nor checked.
    pub(crate) params: [&'a str; 2],
    /// The whole body.
    pub(crate) body: &'a [u8],
}

impl<'a> ApiRequest<'a> {
    /// The head of the request.
    pub(crate) fn head(&self) -> &'a Parts {
        self.sender.parts
    }

    /// The project in the path.
    pub(crate) fn project_id(&self) -> ProjectId {
        ProjectId::new(self.project)
    }

    /// The query string.
    ///
    /// # Errors
    /// DMS.10540014 when a name or a value is not UTF-8.
    pub(crate) fn query(&self) -> Result<Query, ApiError> {
        Query::parse(self.head().uri.query().unwrap_or_default())
    }

    /// The queue that the first parameter of the path names.
    ///
    /// # Errors
    /// DMS.10240015 when the parameter is not a UUID.
    pub(crate) fn queue(&self) -> Result<QueuePath, ApiError> {
        QueuePath::read(self.project_id(), self.params[0])
    }

    /// The group that both parameters of the path name.
    ///
    /// # Errors
    /// DMS.10240015 or DMS.10240016 when a parameter is not an id, and the broker's error when the queue does not exist.
    pub(crate) async fn group(&self) -> Result<GroupPath, ApiError> {
        GroupPath::read(&*self.app.broker, self.project_id(), self.params).await
    }
}
