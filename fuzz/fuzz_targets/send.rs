//! The body of a send: accepted bodies are valid JSON and are returned to consumers; bodies refused as invalid JSON are not JSON.
#![no_main]

use std::{
    sync::{Arc, LazyLock},
    time::Duration,
};

use bytes::Bytes;
use dms_server::{Project, Server, ServerConfig};
use dms_worker::{
    Client,
    client::ConsumeOptions,
    message::{AckHandle, AckStatus},
    queue::{GroupId, NewQueue, QueueId, SourcePath},
    transport::{InProcess, Transport},
};
use http::Request;
use libfuzzer_sys::fuzz_target;
use serde::de::IgnoredAny;
use tokio::runtime::Runtime;

struct Scene {
    runtime: Runtime,
    server: Arc<InProcess>,
    client: Client,
    queue: QueueId,
    source: SourcePath,
}

static SCENE: LazyLock<Scene> = LazyLock::new(|| {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().expect("a runtime");
    let config = ServerConfig::default().projects(vec![Project::new("p")]);
    let server = runtime.block_on(Server::bind(config)).expect("a server");
    let server = Arc::new(InProcess::new(server.service()));
    let client = Client::builder("http://dms.example", "p").transport(server.clone()).build().expect("a client");
    let (queue, group) = runtime.block_on(make(&client));
    let source = SourcePath::messages(queue.clone(), group);
    Scene { runtime, server, client, queue, source }
});

async fn make(client: &Client) -> (QueueId, GroupId) {
    let queue = client.create_queue(NewQueue::new("q")).await.expect("a queue").id;
    let groups = client.create_groups(&queue, &["g"]).await.expect("a group");
    (queue, groups[0].0.clone())
}

impl Scene {
    /// The status and the text of the answer.
    async fn send(&self, body: &[u8]) -> (u16, String) {
        let request = Request::post(format!("http://localhost/v2/p/queues/{}/messages", self.queue))
            .header("content-type", "application/json")
            .body(Bytes::copy_from_slice(body))
            .expect("a request");
        let answer = self.server.send(request, Duration::from_secs(5)).await.expect("an answer");
        (answer.status().as_u16(), String::from_utf8(answer.into_body().to_vec()).expect("UTF-8"))
    }

    /// Takes all messages and acknowledges them.
    async fn consume(&self) {
        loop {
            let batch = self.client.consume(&self.source, &ConsumeOptions::default()).await.expect("messages");
            if batch.is_empty() {
                return;
            }
            for message in &batch {
                assert_eq!(message.undecodable(), None);
            }
            let acks: Vec<(AckHandle, AckStatus)> =
                batch.iter().map(|message| (message.handle.clone(), AckStatus::Success)).collect();
            self.client.acknowledge(&self.source, &acks).await.expect("the leases are ours");
        }
    }
}

fuzz_target!(|body: &[u8]| {
    SCENE.runtime.block_on(async {
        let (status, text) = SCENE.send(body).await;
        let json = serde_json::from_slice::<IgnoredAny>(body).is_ok() && std::str::from_utf8(body).is_ok();
        match status {
            201 => {
                assert!(json, "accepted, and no JSON");
                SCENE.consume().await;
            }
            400 => assert!(!(json && text.contains("is not JSON")), "refused as no JSON, and it is: {text}"),
            413 => {}
            other => panic!("{other}: {text}"),
        }
    });
});
