//! The table of all routes: method, path, operation, required rights, handler.
//!
//! [`Target::find`] selects the route before the request is authenticated, and [`answer`] calls its handler afterwards.

use std::pin::pin;

use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use http::{HeaderValue, Method, header};

use crate::{
    api::{Dialect, access_log::ChangeRecord, topics::Topic},
    auth::{
        authorize::{Access, authorize},
        rights::Right,
    },
    handlers::{
        ack, consume, end_polls, groups, iam, message, mqs, overview, peek, queues, quotas, request::ApiRequest, send,
        tag_search, tags,
    },
    http::{codes, error::ApiError, operation::Operation},
};

/// One row of the table.
#[derive(Debug)]
pub(crate) struct Route {
    method: &'static str,
    /// The path after the project, or the whole path of the identity service and of the MQS dialect. `{…}` is a parameter.
    path: &'static [&'static str],
    pub(crate) operation: Operation,
    pub(crate) access: Access,
    endpoint: Endpoint,
}

macro_rules! routes {
    ($($endpoint:ident: $method:ident $path:expr => $operation:ident, $access:expr, $handler:path;)*) => {
        /// The name of a row.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        enum Endpoint { $($endpoint),* }

        /// All routes. `Allow` headers list methods in this order.
        const ROUTES: &[Route] = &[$(Route {
            method: stringify!($method),
            path: &$path,
            operation: Operation::$operation,
            access: $access,
            endpoint: Endpoint::$endpoint,
        }),*];

        /// Calls the handler of a row.
        async fn call_any(endpoint: Endpoint, request: &ApiRequest<'_>) -> Result<Response, ApiError> {
            match endpoint {
                $(Endpoint::$endpoint => $handler(request).await.map(IntoResponse::into_response),)*
            }
        }
    };
}

#[rustfmt::skip]
routes! {
    SendMessages:    POST   ["queues", "{queue}", "messages"]                               => Send,               Access::Queue(Right::Send),    send::send;
    ConsumeMessages: GET    ["queues", "{queue}", "groups", "{group}", "messages"]          => Consume,            Access::Queue(Right::Consume), consume::messages;
    AckMessages:     POST   ["queues", "{queue}", "groups", "{group}", "ack"]               => Ack,                Access::Queue(Right::Consume), ack::messages;
    ConsumeDead:     GET    ["queues", "{queue}", "groups", "{group}", "deadletters"]       => ConsumeDeadLetters, Access::Queue(Right::Consume), consume::dead_letters;
    AckDead:         POST   ["queues", "{queue}", "groups", "{group}", "deadletters", "ack"]=> AckDeadLetters,     Access::Queue(Right::Consume), ack::dead_letters;
    PeekMessages:    GET    ["queues", "{queue}", "groups", "{group}", "peek"]              => Peek,               Access::Queue(Right::Consume), peek::messages;
    ShowOverview:    GET    ["overview"]                                                    => Overview,           Access::Project,               overview::show;
    EndPolls:        POST   ["polls", "end"]                                                => EndPolls,           Access::AnyQueue(Right::Consume), end_polls::end;
    ShowMessage:     GET    ["messages", "{message}"]                                       => ShowMessage,        Access::AnyQueue(Right::Consume), message::show;
    RetryMessage:    POST   ["messages", "{message}", "retry"]                              => RetryMessage,       Access::AnyQueue(Right::Consume), message::retry;
    DiscardMessage:  POST   ["messages", "{message}", "discard"]                            => DiscardMessage,     Access::AnyQueue(Right::Consume), message::discard;

    CreateQueue:     POST   ["queues"]                                                      => CreateQueue,        Access::Project,               queues::create;
    ListQueues:      GET    ["queues"]                                                      => ListQueues,         Access::Project,               queues::list;
    ShowQueue:       GET    ["queues", "{queue}"]                                           => ShowQueue,          Access::SeeQueue,              queues::show;
    DeleteQueue:     DELETE ["queues", "{queue}"]                                           => DeleteQueue,        Access::Queue(Right::Manage),  queues::delete;
    CreateGroups:    POST   ["queues", "{queue}", "groups"]                                 => CreateGroups,       Access::Queue(Right::Manage),  groups::create;
    ListGroups:      GET    ["queues", "{queue}", "groups"]                                 => ListGroups,         Access::SeeQueue,              groups::list;
    DeleteGroup:     DELETE ["queues", "{queue}", "groups", "{group}"]                      => DeleteGroup,        Access::Queue(Right::Manage),  groups::delete;

    // The reference writes `queue` in the paths of tags. A tag may have the key `action`.
    ListTags:        GET    ["queue", "{queue}", "tags"]                                    => Tags,               Access::SeeQueue,              tags::of_queue;
    AddTag:          POST   ["queue", "{queue}", "tags"]                                    => Tags,               Access::Queue(Right::Manage),  tags::add;
    ChangeTags:      POST   ["queue", "{queue}", "tags", "action"]                          => Tags,               Access::Queue(Right::Manage),  tags::act;
    DeleteTag:       DELETE ["queue", "{queue}", "tags", "{key}"]                           => Tags,               Access::Queue(Right::Manage),  tags::remove;
    ProjectTags:     GET    ["queue", "tags"]                                               => Tags,               Access::Project,               tags::of_project;
    SearchTags:      POST   ["queue", "resource_instances", "action"]                       => Tags,               Access::Project,               tag_search::search;

    ShowQuotas:      GET    ["quotas"]                                                      => Quotas,             Access::Project,               quotas::all;
    ShowQueueQuota:  GET    ["quotas", "dms"]                                               => Quotas,             Access::Project,               quotas::queues_only;

    ShowVersion:     GET    ["/v3"]                                                         => Identity,           Access::Public,                iam::version;
    HeadVersion:     HEAD   ["/v3"]                                                         => Identity,           Access::Public,                iam::version;
    CreateToken:     POST   ["/v3", "auth", "tokens"]                                       => Identity,           Access::Public,                iam::create_token;
    ListProjects:    GET    ["/v3", "projects"]                                             => Identity,           Access::Project,               iam::projects;

    // The MQS dialect. Acknowledging has the path of consuming.
    MqsProduce:      POST   ["/v1", "topic", "{topic}", "messages"]                         => Send,               Access::Topic(Right::Send),    mqs::produce::produce;
    MqsConsume:      GET    ["/v1", "topic", "{topic}", "group", "{group}", "messages"]     => Consume,            Access::Topic(Right::Consume), mqs::consume::messages;
    MqsAck:          POST   ["/v1", "topic", "{topic}", "group", "{group}", "messages"]     => Ack,                Access::Topic(Right::Consume), mqs::ack::messages;
}

/// The most segments in a path of the table.
const MAX_SEGMENTS: usize = 6;

/// The route and the parameters of a request.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Target<'a> {
    /// The project in the path; `None` for the identity service and for topics.
    pub(crate) project: Option<&'a str>,
    /// The parameters in the path, in their order.
    pub(crate) params: [&'a str; 2],
    /// The route; `None` if the path does not have the method.
    pub(crate) route: Option<&'static Route>,
    /// Whether the path needs no credentials.
    pub(crate) is_public: bool,
}

impl<'a> Target<'a> {
    /// Finds the route of a request; `None` if the dialect has no route with this path. Without `extensions` the paths of
    /// extensions do not exist.
    pub(crate) fn find(dialect: Dialect, method: &Method, path: &'a str, extensions: bool) -> Option<Self> {
        let path = Path::split(dialect, path)?;
        let mut routes = path.routes(extensions);
        let first = routes.next()?;
        let route = std::iter::once(first).chain(routes).find(|route| route.method == method.as_str());
        Some(Self {
            project: path.project,
            params: route.map_or([""; 2], |route| path.params(route)),
            route,
            is_public: first.access == Access::Public,
        })
    }

    /// The operation that logs, metrics and faults name.
    pub(crate) fn operation(self) -> Operation {
        self.route.map_or(Operation::Unknown, |route| route.operation)
    }
}

/// A path in segments. V2 and V1.0 differ in the prefix alone.
#[derive(Clone, Copy, Debug)]
struct Path<'a> {
    project: Option<&'a str>,
    segments: [&'a str; MAX_SEGMENTS],
    /// How many of the segments are in use.
    count: usize,
}

impl<'a> Path<'a> {
    fn split(dialect: Dialect, path: &'a str) -> Option<Self> {
        let (project, first, rest) = match path.strip_prefix("/v2/").or_else(|| path.strip_prefix("/v1.0/")) {
            _ if dialect == Dialect::Mqs => (None, Some("/v1"), path.strip_prefix("/v1/")?),
            Some(rest) => {
                let (project, rest) = rest.split_once('/')?;
                (Some(project), None, rest)
            }
            None if path == "/v3" || path == "/v3/" => (None, Some("/v3"), ""),
            None => (None, Some("/v3"), path.strip_prefix("/v3/")?),
        };
        let mut this = Self { project, segments: [""; MAX_SEGMENTS], count: 0 };
        let rest = (project.is_some() || !rest.is_empty()).then(|| rest.split('/')).into_iter().flatten();
        for segment in first.into_iter().chain(rest) {
            *this.segments.get_mut(this.count)? = segment;
            this.count += 1;
        }
        // The last segment of a path that ends in a slash is missing.
        (this.segments.get(this.count.checked_sub(1)?) != Some(&"")).then_some(this)
    }

    /// The rows with this path.
    fn routes(self, extensions: bool) -> impl Iterator<Item = &'static Route> {
        let fits = move |route: &&Route| {
            route.path.len() == self.count
                && route.path.iter().zip(self.segments).all(|(own, given)| is_param(own) || *own == given)
        };
        ROUTES.iter().filter(move |route| extensions || !route.is_extension()).filter(fits)
    }

    fn params(&self, route: &Route) -> [&'a str; 2] {
        let mut params = [""; 2];
        let given = route.path.iter().zip(self.segments).filter(|(own, _)| is_param(own)).map(|(_, given)| given);
        for (param, given) in params.iter_mut().zip(given) {
            *param = given;
        }
        params
    }
}

impl Route {
    /// Whether the documented API does not have it.
    fn is_extension(&self) -> bool {
        matches!(
            self.operation,
            Operation::EndPolls
                | Operation::Overview
                | Operation::Peek
                | Operation::ShowMessage
                | Operation::RetryMessage
                | Operation::DiscardMessage
        )
    }
}

fn is_param(segment: &str) -> bool {
    segment.starts_with('{')
}

/// Answers a request: checks the rights of the caller, calls the handler, and logs changes of queues and groups.
pub(crate) async fn answer(route: &Route, request: ApiRequest<'_>, body: Bytes) -> Response {
    let request = ApiRequest { body: &body, ..request };
    let change = ChangeRecord::of(&request, route.operation).await;
    let result = pin!(handle(route, &request)).await;
    if let Some(change) = change {
        change.log(&result);
    }
    result.unwrap_or_else(IntoResponse::into_response)
}

/// Calls the handler of a row. All but the three of every message are in a box, so that the futures of thousands of waiting calls do not
/// have the size of the largest handler.
async fn call(endpoint: Endpoint, request: &ApiRequest<'_>) -> Result<Response, ApiError> {
    match endpoint {
        Endpoint::SendMessages => pin!(send::send(request)).await,
        Endpoint::ConsumeMessages => pin!(consume::messages(request)).await,
        Endpoint::AckMessages => pin!(ack::messages(request)).await.map(IntoResponse::into_response),
        rare => Box::pin(call_any(rare, request)).await,
    }
}

async fn handle(route: &Route, request: &ApiRequest<'_>) -> Result<Response, ApiError> {
    let ApiRequest { app, caller, project, params: [queue, _], .. } = *request;
    if let Access::Topic(right) = route.access {
        // In a box, so that the futures of all other requests do not get larger.
        return Box::pin(handle_topic(route, request, right)).await;
    }
    authorize(&*app.broker, caller, project, route.access, queue).await?;
    pin!(call(route.endpoint, request)).await
}

/// Handles a request that names its queue and its group. If they were deleted since their ids were looked up, they are looked up
/// again.
async fn handle_topic(route: &Route, request: &ApiRequest<'_>, right: Right) -> Result<Response, ApiError> {
    let topic = Topic::read(request, right)?;
    let known = topic.known(request.app);
    for place in [known, None] {
        let was_known = place.is_some();
        let place = match place {
            Some(place) => place,
            None => {
                // A mistake in the request must not create the topic.
                mqs::check(request, route.operation)?;
                topic.find(request, route.operation).await?
            }
        };
        let result = call(route.endpoint, &ApiRequest { params: place.params(), ..*request }).await;
        match result {
            Err(error) if was_known && matches!(error.code(), codes::QUEUE_NOT_FOUND | codes::GROUP_NOT_FOUND) => {}
            result => return result,
        }
    }
    Err(codes::QUEUE_NOT_FOUND.plain())
}

/// The answer to a method that the path does not have: 405 with `Allow`.
pub(crate) fn method_not_allowed(dialect: Dialect, path: &str) -> Response {
    let routes = Path::split(dialect, path).map(|path| path.routes(true)).into_iter().flatten();
    let methods: Vec<&str> = routes.map(|route| route.method).collect();
    let mut response = codes::METHOD.plain().into_response();
    if let Ok(allow) = HeaderValue::try_from(methods.join(",")) {
        response.headers_mut().insert(header::ALLOW, allow);
    }
    response
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::collections::BTreeSet;

    use super::*;

    fn found(method: &str, path: &str) -> Option<(Option<Endpoint>, [&'static str; 2])> {
        let method = method.parse().unwrap_or_default();
        let dialect = if path.starts_with("/v1/") { Dialect::Mqs } else { Dialect::Dms };
        let target = Target::find(dialect, &method, path.to_owned().leak(), true)?;
        Some((target.route.map(|route| route.endpoint), target.params))
    }

    #[test]
    fn both_versions_have_the_same_paths() {
        use Endpoint as E;
        for (method, rest, endpoint, params) in [
            ("POST", "queues", Some(E::CreateQueue), ["", ""]),
            ("POST", "queues/q/groups/g/deadletters/ack", Some(E::AckDead), ["q", "g"]),
            ("GET", "queue/tags", Some(E::ProjectTags), ["", ""]),
            ("POST", "polls/end", Some(E::EndPolls), ["", ""]),
            ("GET", "queue/tags/tags", Some(E::ListTags), ["tags", ""]),
            ("POST", "queue/q/tags/action", Some(E::ChangeTags), ["q", ""]),
            ("DELETE", "queue/q/tags/action", Some(E::DeleteTag), ["q", "action"]),
            ("DELETE", "queue/q/tags/a%2Fb", Some(E::DeleteTag), ["q", "a%2Fb"]),
            ("PUT", "queues", None, ["", ""]),
        ] {
            for version in ["v2", "v1.0"] {
                assert_eq!(found(method, &format!("/{version}/p/{rest}")), Some((endpoint, params)), "{method} {rest}");
            }
        }
    }

    #[test]
    fn the_identity_service_is_apart_from_projects() {
        assert_eq!(found("GET", "/v3"), found("GET", "/v3/"));
        assert_eq!(found("POST", "/v3/auth/tokens"), Some((Some(Endpoint::CreateToken), ["", ""])));
        for foreign in [
            "/",
            "/v2",
            "/v2/p",
            "/v2/p/",
            "/v2/p/v3",
            "/v2/p/v3/projects",
            "/v2/p/queues/",
            "/v3/queues",
            "/v3/projects/",
            "/v2/p/queues/q/groups/g/ack/x/y",
            "/v4/p/queues",
            "/v3x",
        ] {
            assert_eq!(found("GET", foreign), None, "{foreign}");
        }
    }

    /// A row that is hidden by another one would never be called.
    #[test]
    fn every_row_is_found_by_its_path() {
        for route in ROUTES {
            let path = route.path.join("/");
            let path = if path.starts_with('/') { path } else { format!("/v2/p/{path}") };
            assert_eq!(found(route.method, &path).and_then(|(endpoint, _)| endpoint), Some(route.endpoint), "{path}");
        }
    }

    /// A document that lacks an operation, or has one too many, makes wrong clients.
    #[test]
    fn the_openapi_document_has_the_operations_of_the_server() {
        let document: serde_json::Value = yaml_serde::from_str(include_str!("../../../../docs/openapi.yaml")).unwrap();
        let paths = document["paths"].as_object().unwrap().iter();
        let methods = paths.flat_map(|(path, item)| item.as_object().unwrap().keys().map(move |method| (method, path)));
        let methods = methods.filter(|(method, _)| !["parameters", "servers"].contains(&method.as_str()));
        let documented: BTreeSet<String> =
            methods.map(|(method, path)| format!("{} {}", method.to_uppercase(), anonymous(path))).collect();

        let of_api = ROUTES.iter().filter(|route| route.method != "HEAD").map(|route| {
            let path = route.path.join("/");
            let path = if path.starts_with('/') { path } else { format!("/{{version}}/{{project_id}}/{path}") };
            format!("{} {}", route.method, anonymous(&path))
        });
        let of_admin = include_str!("../admin/mod.rs").lines().filter_map(|line| {
            let (path, method) = line.trim().strip_prefix(".route(\"")?.split_once("\", ")?;
            Some(format!("{} {}", method.split('(').next()?.to_uppercase(), anonymous(path)))
        });
        let served: BTreeSet<String> = of_api.chain(of_admin).collect();
        assert_eq!(documented.difference(&served).collect::<Vec<_>>(), Vec::<&String>::new(), "not served");
        assert_eq!(served.difference(&documented).collect::<Vec<_>>(), Vec::<&String>::new(), "not documented");
    }

    /// A path without the names of its parameters.
    fn anonymous(path: &str) -> String {
        path.split('/').map(|segment| if is_param(segment) { "{}" } else { segment }).collect::<Vec<_>>().join("/")
    }

    #[test]
    fn each_dialect_has_its_own_paths() {
        let names = ["t", "g"];
        for (method, path, endpoint) in [
            ("GET", "/v1/topic/t/group/g/messages", Endpoint::MqsConsume),
            ("POST", "/v1/topic/t/group/g/messages", Endpoint::MqsAck),
        ] {
            assert_eq!(found(method, path), Some((Some(endpoint), names)));
            assert!(Target::find(Dialect::Dms, &Method::POST, path, true).is_none());
        }
        assert_eq!(found("DELETE", "/v1/topic/t/messages"), Some((None, ["", ""])));
        for path in ["/v1/topic/t", "/v1/topic/t/messages/", "/v1/topic/t/group/g/ack", "/v1//topic/t/messages"] {
            assert_eq!(found("POST", path), None, "{path}");
        }
        for path in ["/v2/p/queues", "/v3", "/v2/p//v1/topic/t/messages"] {
            assert!(Target::find(Dialect::Mqs, &Method::GET, path, true).is_none(), "{path}");
        }
        assert!(Target::find(Dialect::Dms, &Method::POST, "/v2/p//v1/topic/t/messages", true).is_none());
    }

    #[test]
    fn extensions_can_be_switched_off() {
        assert!(Target::find(Dialect::Dms, &Method::POST, "/v2/p/polls/end", false).is_none());
        assert!(Target::find(Dialect::Dms, &Method::GET, "/v2/p/messages/m", false).is_none());
        assert!(Target::find(Dialect::Dms, &Method::POST, "/v2/p/messages/m/retry", false).is_none());
        assert!(Target::find(Dialect::Dms, &Method::GET, "/v2/p/polls/end", false).is_none());
    }
}
