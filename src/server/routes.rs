//! The paths of the API.

use std::sync::Arc;

use axum::{
    Router,
    extract::DefaultBodyLimit,
    middleware::from_fn_with_state,
    routing::{delete, get, post},
};

use super::{ack, admit, app::App, consume, groups, iam, inject, queues, quotas, rim, send, tag_search, tags};

/// The whole API: V2 and V1.0 differ in the prefix, and in fields that both accept.
pub(super) fn router(app: &Arc<App>) -> Router {
    Router::new()
        .nest("/v2/{project_id}", operations())
        .nest("/v1.0/{project_id}", operations())
        // Behind the check of callers, because some faults change what a signature covers.
        .route_layer(from_fn_with_state(Arc::clone(app), inject::inject))
        // Outside of `nest`, which cuts the prefix off the path that a signature covers.
        .route_layer(from_fn_with_state(Arc::clone(app), admit::admit))
        .merge(identity(app))
        .fallback(rim::unknown_url)
        .method_not_allowed_fallback(rim::wrong_method)
        // Bodies are bounded where they are read.
        .layer(DefaultBodyLimit::disable())
        .layer(from_fn_with_state(Arc::clone(app), rim::wrap))
        .with_state(Arc::clone(app))
}

fn operations() -> Router<Arc<App>> {
    Router::new()
        .route("/queues", post(queues::create).get(queues::list))
        .route("/queues/{queue_id}", get(queues::show).delete(queues::delete))
        .route("/queues/{queue_id}/groups", post(groups::create).get(groups::list))
        .route("/queues/{queue_id}/groups/{group_id}", delete(groups::delete))
        .route("/queues/{queue_id}/messages", post(send::send))
        .route("/queues/{queue_id}/groups/{group_id}/messages", get(consume::messages))
        .route("/queues/{queue_id}/groups/{group_id}/ack", post(ack::messages))
        .route("/queues/{queue_id}/groups/{group_id}/deadletters", get(consume::dead_letters))
        .route("/queues/{queue_id}/groups/{group_id}/deadletters/ack", post(ack::dead_letters))
        // `queue`, in the singular, is what the reference has for tags.
        .route("/queue/{queue_id}/tags", get(tags::of_queue).post(tags::add))
        .route("/queue/{queue_id}/tags/action", post(tags::act).delete(tags::remove))
        .route("/queue/{queue_id}/tags/{key}", delete(tags::remove))
        .route("/queue/tags", get(tags::of_project))
        .route("/queue/resource_instances/action", post(tag_search::search))
        .route("/quotas", get(quotas::all))
        .route("/quotas/dms", get(quotas::queues_only))
}

fn identity(app: &Arc<App>) -> Router<Arc<App>> {
    let admitted = Router::new()
        .route("/v3/projects", get(iam::projects))
        .route_layer(from_fn_with_state(Arc::clone(app), admit::admit));
    let anybody = Router::new()
        .route("/v3", get(iam::version))
        .route("/v3/", get(iam::version))
        .route("/v3/auth/tokens", post(iam::create_token))
        .route_layer(from_fn_with_state(Arc::clone(app), inject::inject))
        .route_layer(from_fn_with_state(Arc::clone(app), admit::receive));
    admitted.merge(anybody)
}
