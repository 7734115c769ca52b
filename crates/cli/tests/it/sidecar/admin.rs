//! The admin endpoint: probes, status, control, and who may use it.

use dms_worker::message::Message;
use serde_json::{Value, json};

use super::{App, Running, worker};

struct Admin {
    app: App,
    sidecar: Running,
    http: reqwest::Client,
}

impl Admin {
    async fn start(token: &str) -> Self {
        let app = App::start().await;
        let yaml = worker(&format!("{{http: {{url: 'http://{}/', health_interval: 20ms}}}}", app.address), "")
            + &format!("admin: {{listen: '127.0.0.1:0'{token}}}\n");
        let sidecar = Running::start(3, &yaml).await;
        Self { app, sidecar, http: reqwest::Client::builder().no_proxy().build().unwrap() }
    }

    fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.sidecar.admin.unwrap())
    }

    async fn get(&self, path: &str) -> (u16, String) {
        let answer = self.http.get(self.url(path)).send().await.unwrap();
        (answer.status().as_u16(), answer.text().await.unwrap())
    }

    async fn post(&self, path: &str) -> u16 {
        self.http.post(self.url(path)).send().await.unwrap().status().as_u16()
    }

    async fn worker(&self) -> Value {
        serde_json::from_str::<Value>(&self.get("/status").await.1).unwrap()["workers"][0].clone()
    }
}

#[tokio::test]
async fn probes_and_status_report_the_state_of_a_worker() {
    let mut admin = Admin::start("").await;
    assert_eq!(admin.get("/livez").await, (200, "ok\n".to_owned()));
    admin.sidecar.send(&[Message::text("x")]).await;
    admin.app.next().await;
    admin.sidecar.until(|group| group.consumed_messages == 1).await;
    assert_eq!(admin.get("/readyz").await, (200, "orders/billing: ok\n".to_owned()));
    assert_eq!(admin.get("/startupz").await.0, 200);
    let worker = admin.worker().await;
    assert_eq!((&worker["state"], &worker["ready"], &worker["done"]), (&json!("running"), &json!(true), &json!(1)));
    assert_eq!(worker["in_flight"], 0, "places that polls have reserved are not messages");
    let (_, metrics) = admin.get("/metrics").await;
    assert!(
        metrics.contains("dms_worker_messages_received_total{worker=\"orders/billing\"")
            && metrics.contains("# TYPE dms_worker_messages_received_total counter\n")
    );
    admin.sidecar.stop().await;
}

#[tokio::test]
async fn a_paused_worker_leaves_messages_and_scale_counts_them() {
    let mut admin = Admin::start("").await;
    admin.sidecar.send(&[Message::text("first")]).await;
    admin.app.next().await;
    assert_eq!(admin.post("/pause?worker=orders%2Fbilling").await, 200);
    assert_eq!(admin.worker().await["state"], "paused");
    // A poll that was out already may still take the first ones.
    let many: Vec<_> = (0..10).map(|_| Message::text("x")).collect();
    for _ in 0..10 {
        admin.sidecar.send(&many).await;
    }
    let (status, scale) = admin.get("/scale").await;
    let scale: Value = serde_json::from_str(&scale).unwrap();
    assert_eq!(status, 200);
    assert!(scale["backlog"].as_u64().unwrap() > 0, "{scale}");
    assert_eq!(scale["backlog"], scale["workers"]["orders/billing"]["backlog"]);
    assert_eq!(admin.post("/resume").await, 200);
    admin.sidecar.until(|group| group.consumed_messages == 101).await;
    assert_eq!(admin.post("/pause?worker=nobody").await, 400);
    assert_eq!((admin.post("/concurrency?messages=5").await, admin.post("/concurrency?messages=0").await), (200, 400));
    assert_eq!(admin.worker().await["concurrency"], 5);
    admin.sidecar.stop().await;
}

#[tokio::test]
async fn a_drained_process_is_not_ready_and_still_alive() {
    let admin = Admin::start("").await;
    assert_eq!(admin.post("/drain").await, 200);
    assert_eq!((admin.get("/livez").await.0, admin.get("/readyz").await.0), (200, 503));
    assert!(admin.sidecar.stop().await.drained);
}

#[tokio::test]
async fn an_application_that_is_down_shows_in_the_readiness() {
    let mut admin = Admin::start("").await;
    admin.sidecar.send(&[Message::text("x")]).await;
    admin.app.next().await;
    admin.sidecar.until(|group| group.consumed_messages == 1).await;
    let Admin { app, sidecar, http } = admin;
    let address = app.address;
    app.end().await;
    sidecar.send(&[Message::text("y")]).await;
    let ready =
        async || http.get(format!("http://{}/readyz", sidecar.admin.unwrap())).send().await.unwrap().status().as_u16();
    while ready().await != 503 {
        tokio::task::yield_now().await;
    }
    let mut app = App::on(address).await;
    app.next().await;
    while ready().await != 200 {
        tokio::task::yield_now().await;
    }
    sidecar.stop().await;
}

#[tokio::test]
async fn control_needs_the_token_and_probes_do_not() {
    let admin = Admin::start(", token: t0ken").await;
    assert_eq!((admin.get("/livez").await.0, admin.get("/metrics").await.0), (200, 200));
    for path in ["/status", "/scale"] {
        assert_eq!(admin.get(path).await.0, 401, "{path}");
    }
    assert_eq!(admin.post("/pause").await, 401);
    for (token, expected) in [("wrong", 401), ("t0ken", 200)] {
        let answer = admin.http.post(admin.url("/pause")).bearer_auth(token).send().await.unwrap();
        assert_eq!(answer.status().as_u16(), expected, "{token}");
    }
    admin.sidecar.stop().await;
}
