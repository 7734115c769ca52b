//! From the method and the resource of a request to the operation that answers it.

use axum::response::{IntoResponse, Response};
use http::{HeaderValue, header};

use crate::{
    api::{
        access_log::ChangeRecord,
        resource::{Resource, Target},
    },
    auth::{authenticator::Sender, authorize, caller::Caller},
    broker::GroupPath,
    handlers::{ack, consume, groups, iam, polls, queues, quotas, send, tag_search, tags},
    http::{codes, error::ApiError, path::QueuePath, query::Query},
    state::AppState,
};
use dms_protocol::queue::ProjectId;

/// A request that was let in; its body goes beside it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Admitted<'a> {
    /// Its head, and the address that sent it.
    pub(crate) sender: Sender<'a>,
    /// What its path names.
    pub(crate) target: Target<'a>,
    /// Who it comes from.
    pub(crate) caller: &'a Caller,
}

/// Lets the operation that a request asks for answer it.
pub(crate) async fn answer(app: &AppState, request: Admitted<'_>, body: &[u8]) -> Response {
    // The operations of the identity service have no use for one.
    let project = ProjectId::new(request.target.project.unwrap_or_default());
    let act = ChangeRecord::of(app, request, &project, body).await;
    let result = operate(app, request, project, body).await;
    if let Some(act) = act {
        act.log(&result);
    }
    result.unwrap_or_else(IntoResponse::into_response)
}

async fn operate(app: &AppState, request: Admitted<'_>, project: ProjectId, body: &[u8]) -> Result<Response, ApiError> {
    use Resource as R;
    let Admitted { sender, target, caller } = request;
    let parts = sender.parts;
    authorize::check(app, caller, &project, parts.method.as_str(), target.resource).await?;
    let query = || Query::parse(parts.uri.query().unwrap_or_default());
    Ok(match (parts.method.as_str(), target.resource) {
        ("POST", R::Messages(queue)) => send::send(app, &QueuePath::read(project, queue)?, body).await?,
        ("GET", R::Consume(queue, group, stream)) => {
            let path = GroupPath::read(app, project, queue, group).await?;
            consume::consume(app, &path, stream, &query()?, &parts.headers).await?
        }
        ("POST", R::Acks(queue, group, stream)) => {
            let path = GroupPath::read(app, project, queue, group).await?;
            ack::acknowledge(app, &path, stream, body).await?.into_response()
        }

        ("POST", R::Queues) => queues::create(app, caller, &project, body).await?.into_response(),
        ("GET", R::Queues) => queues::list(app, caller, &project, &query()?).await?.into_response(),
        ("GET", R::Queue(queue)) => {
            let path = QueuePath::read(project, queue)?;
            queues::show(app, &path, &query()?).await?.into_response()
        }
        ("DELETE", R::Queue(queue)) => queues::delete(app, &QueuePath::read(project, queue)?).await?.into_response(),
        ("POST", R::Groups(queue)) => {
            let path = QueuePath::read(project, queue)?;
            groups::create(app, &path, body).await?.into_response()
        }
        ("GET", R::Groups(queue)) => {
            let path = QueuePath::read(project, queue)?;
            groups::list(app, &path, &query()?).await?.into_response()
        }
        ("DELETE", R::Group(queue, group)) => {
            let path = GroupPath::read(app, project, queue, group).await?;
            groups::delete(app, &path).await?.into_response()
        }

        ("GET", R::Tags(queue)) => tags::of_queue(app, &QueuePath::read(project, queue)?).await?.into_response(),
        ("POST", R::Tags(queue)) => tags::add(app, &QueuePath::read(project, queue)?, body).await?.into_response(),
        ("POST", R::TagActions(queue)) => {
            let path = QueuePath::read(project, queue)?;
            tags::act(app, &path, body).await?.into_response()
        }
        // A tag may have that key.
        ("DELETE", R::TagActions(queue)) => {
            let path = QueuePath::read(project, queue)?;
            tags::remove(app, &path, "action").await?.into_response()
        }
        ("DELETE", R::Tag(queue, key)) => {
            let path = QueuePath::read(project, queue)?;
            tags::remove(app, &path, key).await?.into_response()
        }
        ("GET", R::ProjectTags) => tags::of_project(app, caller, &project).await?.into_response(),
        ("POST", R::TagSearch) => tag_search::search(app, caller, &project, body).await?.into_response(),
        ("GET", R::Quotas) => quotas::all(app, &project).await?.into_response(),
        ("GET", R::QueueQuota) => quotas::queues_only(app, &project).await?.into_response(),

        ("POST", R::EndPolls) => polls::end(app, &project, body)?.into_response(),

        ("GET" | "HEAD", R::Version) => iam::version(parts).into_response(),
        ("POST", R::TokenStore) => iam::create_token(app, sender, body)?,
        ("GET", R::Projects) => iam::projects(app, caller, &query()?, parts).into_response(),
        (_, resource) => wrong_method(resource),
    })
}

/// Refuses a method, and names those that the resource has.
pub(crate) fn wrong_method(resource: Resource<'_>) -> Response {
    let mut response = codes::METHOD.plain().into_response();
    response.headers_mut().insert(header::ALLOW, HeaderValue::from_static(resource.methods()));
    response
}
