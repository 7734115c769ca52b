//! `GET …/quotas` (API reference 5.5.1, 7.1.11).

use serde::Serialize;

use crate::{
    handlers::request::ApiRequest,
    http::{error::ApiError, json::Json},
};
use dms_protocol::queue::Quota;

/// The maximum to which a quota of queues or groups can be raised, as in the examples of the reference.
const MAX_QUOTA: u64 = 500;

/// The answer.
#[derive(Debug, Serialize)]
pub(crate) struct QuotasView {
    quotas: Resources,
}

#[derive(Debug, Serialize)]
struct Resources {
    resources: Vec<Quota>,
}

/// `GET /v2/{project_id}/quotas` (5.5.1): queues, Kafka queues, groups of a queue, tags of a queue. The server has no Kafka or
/// RabbitMQ instances and lists none.
pub(crate) async fn all(request: &ApiRequest<'_>) -> Result<Json<QuotasView>, ApiError> {
    Ok(view(read(request).await?))
}

/// `GET /v1.0/{project_id}/quotas/dms` (7.1.11): queues alone.
pub(crate) async fn queues_only(request: &ApiRequest<'_>) -> Result<Json<QuotasView>, ApiError> {
    let quotas = read(request).await?;
    Ok(view(quotas.into_iter().filter(|quota| quota.kind == "queue").collect()))
}

fn view(resources: Vec<Quota>) -> Json<QuotasView> {
    Json(QuotasView { quotas: Resources { resources } })
}

async fn read(request: &ApiRequest<'_>) -> Result<Vec<Quota>, ApiError> {
    let (broker, project) = (&request.app.broker, request.project_id());
    let usage = broker.usage(&project).await?;
    let limits = broker.quotas(&project);
    let line = |kind: &str, limit: usize, used, range: Option<(u64, u64)>| {
        let mut quota = Quota::new(kind, limit as u64);
        quota.used = used;
        (quota.min, quota.max) = range.unzip();
        quota
    };
    Ok(vec![
        line("queue", limits.queues, Some(usage.queues as u64), Some((0, MAX_QUOTA))),
        line("kafkaQueue", limits.queues, Some(usage.kafka_queues as u64), None),
        // The limit of groups is for each queue, so there is no total in use. The example of the reference has 0.
        line("group", limits.groups_per_queue, Some(0), Some((1, MAX_QUOTA))),
        line("tags", limits.tags_per_queue, None, None),
    ])
}
