//! A store that fails, as an operator sees it.

use std::{path::Path, sync::Arc};

use dms_server::{
    Server, ServerConfig,
    broker::{
        Broker,
        embedded::{EmbeddedBroker, EmbeddedConfig},
    },
    clock::Clock,
};
use tokio::sync::oneshot;

use super::{
    Api,
    admin::{config, get, json},
};
use crate::log::Log;

/// Leaves no room for the second file of the log: what a full disk looks like.
fn take_room(directory: &Path) -> std::path::PathBuf {
    let obstacle = directory.join("log/0000000002.log");
    std::fs::create_dir(&obstacle).unwrap();
    obstacle
}

/// 100 sends are refused: one line of the log when it begins, one when it is over.
#[tokio::test]
async fn a_full_disk_is_logged_once() {
    let directory = tempfile::tempdir().unwrap();
    let broker = EmbeddedBroker::open(directory.path(), EmbeddedConfig::default(), Clock::system()).await.unwrap();
    let broker: Arc<dyn Broker> = Arc::new(broker);
    let api = Api::of(Server::with_broker(ServerConfig::default(), broker.clone()).await.unwrap());
    let server = Server::with_broker(config().listen(None::<std::net::SocketAddr>), broker).await.unwrap();
    let admin = server.admin_addr().unwrap();
    let (stop, stopped) = oneshot::channel::<()>();
    let running = tokio::spawn(server.run(async { drop(stopped.await) }));
    let queue = api.queue(r#"{"name":"full"}"#).await;
    let send = async || {
        let body = format!(r#"{{"messages":[{{"body":"{}"}}]}}"#, "x".repeat(500_000));
        api.post(&format!("{queue}/messages"), &body).await.status.as_u16()
    };
    assert!(get(admin, "/metrics", "").await.1.contains("dms_server_storage_failing 0\n"));
    assert_eq!(json(&get(admin, "/admin/storage", "").await.1), serde_json::json!({"failing": []}));

    let (log, _guard) = Log::capture();
    let obstacle = take_room(directory.path());
    while send().await == 201 {}
    for _ in 1..100 {
        assert_eq!(send().await, 500);
    }
    let (status, text) = get(admin, "/readyz", "").await;
    let line = text.split_once("\r\n\r\n").unwrap().1;
    assert_eq!(status, 503, "{line}");
    assert!(line.starts_with("storage: commits failing since 20") && line.contains("0000000002.log"), "{line}");
    let shown = json(&get(admin, "/admin/storage", "").await.1);
    let failing = &shown["failing"][0];
    assert_eq!((&failing["part"], &failing["refused"]), (&"commits".into(), &100.into()), "{shown}");
    assert!(get(admin, "/metrics", "").await.1.contains("dms_server_storage_failing 1\n"));

    std::fs::remove_dir(obstacle).unwrap();
    assert_eq!(send().await, 201);
    assert_eq!(get(admin, "/readyz", "").await.0, 200);
    assert!(get(admin, "/metrics", "").await.1.contains("dms_server_storage_failing 0\n"));
    let text = log.text();
    let count =
        |level: &str, text_of: &str| text.lines().filter(|line| line.contains(level) && line.contains(text_of)).count();
    let told = (count(" ERROR ", "the store fails"), count(" INFO ", "the store works again"));
    assert_eq!((told, count(" ERROR ", ""), count(" INFO ", "refused=100")), ((1, 1), 1, 1));
    assert!(count(" WARN ", "the store") <= 1, "the housekeeper's one");
    drop(stop);
    running.await.unwrap().unwrap();
}
