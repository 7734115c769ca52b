//! The answers to callers while the store cannot write to the disk.
#![allow(clippy::unwrap_used)]

use std::{sync::Arc, time::Duration};

use axum::body::Body;
use http::Request;
use http_body_util::BodyExt;
use serde_json::{Value, json};
use tower::ServiceExt;

use crate::{
    Project, Server, ServerConfig, StartQueue,
    broker::{
        NewSchedule, ScheduledMessage,
        embedded::{
            EmbeddedConfig,
            tests::{FlakyStore, Scene},
        },
    },
};
use dms_protocol::queue::{NewQueue, ProjectId};

struct Api(Server);

impl Api {
    async fn call(&self, method: &str, path: &str, body: Value) -> (u16, Value) {
        let body = if body.is_null() { Body::empty() } else { Body::from(body.to_string()) };
        let request = Request::builder().method(method).uri(format!("/v2/p{path}")).body(body).unwrap();
        let response = self.0.service().oneshot(request).await.unwrap();
        let status = response.status().as_u16();
        let text = response.into_body().collect().await.unwrap().to_bytes();
        (status, serde_json::from_slice(&text).unwrap_or_default())
    }

    async fn send(&self, queue: &str, text: &str) -> (u16, Value) {
        self.call("POST", &format!("{queue}/messages"), json!({ "messages": [{ "body": text }] })).await
    }

    async fn consume(&self, group: &str) -> Value {
        self.call("GET", &format!("{group}/messages?time_wait=1"), Value::Null).await.1
    }

    async fn ack(&self, group: &str, consumed: &Value) -> (u16, Value) {
        let line = json!({ "handler": consumed[0]["handler"], "status": "success" });
        self.call("POST", &format!("{group}/ack"), json!({ "message": [line] })).await
    }
}

/// No change is answered with success unless it is on the disk. Afterwards the server works again, and the refused changes are
/// missing.
#[tokio::test(start_paused = true)]
async fn failing_syncs_are_answered_with_500_until_they_work_again() {
    let store = Arc::new(FlakyStore::default());
    let broker = Scene::on(Arc::clone(&store) as _).await.broker;
    let api = Api(Server::with_broker(ServerConfig::default(), Arc::new(broker)).await.unwrap());
    let listed = api.call("GET", "/queues", Value::Null).await.1;
    let queue = format!("/queues/{}", listed["queues"][0]["id"].as_str().unwrap());
    let groups = api.call("GET", &format!("{queue}/groups"), Value::Null).await.1;
    let group = format!("{queue}/groups/{}", groups["groups"][0]["id"].as_str().unwrap());
    assert_eq!(api.send(&queue, "before").await.0, 201);
    let leased = api.consume(&group).await;

    store.fail(true);
    for (status, body) in [
        api.send(&queue, "refused").await,
        api.ack(&group, &leased).await,
        api.call("POST", "/queues", json!({ "name": "refused" })).await,
        api.call("DELETE", &group, Value::Null).await,
    ] {
        assert_eq!((status, body["error_code"].as_str()), (500, Some("DMS.10250002")), "{body}");
        assert_eq!(body["error_msg"], "Internal service error. The store failed; try again later.");
    }
    assert_eq!(api.call("GET", &queue, Value::Null).await.0, 200, "what changes nothing is answered");

    store.fail(false);
    assert_eq!(api.ack(&group, &leased).await, (200, json!({ "success": 1, "fail": 0 })));
    assert_eq!(api.send(&queue, "after").await.0, 201);
    let consumed = api.consume(&group).await;
    assert_eq!((consumed.as_array().map(Vec::len), &consumed[0]["message"]["body"]), (Some(1), &json!("after")));
    assert_eq!(api.call("GET", "/queues", Value::Null).await.1["total"], 1);
}

/// Nothing has to be reloaded: the schedule starts when its queue is made.
#[tokio::test(start_paused = true)]
async fn a_schedule_of_the_configuration_waits_for_its_queue() {
    let message = ScheduledMessage::parse("1").unwrap();
    let project = Project::new("p").schedule("reports", NewSchedule::new("nightly", "@daily", message));
    let server = Server::bind(ServerConfig::default().projects(vec![project])).await.unwrap();
    let app = Arc::clone(&server.app);
    tokio::spawn(server.run(std::future::pending()));
    let waiting = app.waiting_schedules.all();
    let line = "schedule nightly of queue reports in project p is not in force: ";
    assert!(waiting.len() == 1 && waiting[0].line().starts_with(line), "{waiting:?}");
    assert!(app.broker.schedules().await.unwrap().is_empty());
    app.broker.create_queue(&ProjectId::new("p"), NewQueue::new("reports")).await.unwrap();
    // The clock is paused: it goes on when nothing else is left to do.
    while app.waiting_schedules.count() > 0 {
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    assert_eq!(app.broker.schedules().await.unwrap()[0].schedule.name, "nightly");
}

/// The delay is for clients. It must not keep the server from starting, and is waited for once.
#[tokio::test(start_paused = true)]
async fn queues_of_the_configuration_are_created_whatever_create_delay_says() {
    let mut project = Project::new("p").schedule("a", minutely());
    project.queues = ["a", "b", "c"].map(|name| StartQueue::new(NewQueue::new(name)).group("g")).into();
    let delayed = EmbeddedConfig { create_delay: Duration::from_secs(3), ..EmbeddedConfig::default() };
    let began = tokio::time::Instant::now();
    let server = Server::bind(ServerConfig::default().projects(vec![project]).broker(delayed)).await.unwrap();
    assert!(began.elapsed() < Duration::from_secs(4), "{:?}", began.elapsed());
    let queues = server.app.broker.queues(&ProjectId::new("p")).await.unwrap();
    assert!(queues.len() == 3 && queues.iter().all(|queue| queue.group_count == 1), "{queues:?}");
    assert_eq!(server.app.broker.schedules().await.unwrap().len(), 1);
}

fn minutely() -> NewSchedule {
    NewSchedule::new("minutely", "* * * * *", ScheduledMessage::parse("1").unwrap())
}
