//! The body of a consume answer, from a service that may be any: the client reads it message by message or says why not.
#![no_main]

use std::{
    sync::{Arc, LazyLock, Mutex},
    time::Duration,
};

use bytes::Bytes;
use dms_worker::{
    Client,
    client::ConsumeOptions,
    queue::SourcePath,
    transport::{Transport, TransportError},
};
use libfuzzer_sys::fuzz_target;
use tokio::runtime::Runtime;

/// Answers each request with these bytes.
#[derive(Debug, Default)]
struct Says(Mutex<Bytes>);

#[async_trait::async_trait]
impl Transport for Says {
    async fn send(&self, _: http::Request<Bytes>, _: Duration) -> Result<http::Response<Bytes>, TransportError> {
        Ok(http::Response::new(self.0.lock().expect("not poisoned").clone()))
    }
}

struct Scene {
    runtime: Runtime,
    service: Arc<Says>,
    client: Client,
}

static SCENE: LazyLock<Scene> = LazyLock::new(|| {
    let service = Arc::new(Says::default());
    let client = Client::builder("http://dms.example", "p").transport(service.clone()).build().expect("a client");
    // The clock is paused: waits before another try take no time.
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().expect("a runtime");
    Scene { runtime, service, client }
});

fuzz_target!(|answer: &[u8]| {
    *SCENE.service.0.lock().expect("not poisoned") = Bytes::copy_from_slice(answer);
    let (source, options) = (SourcePath::messages("q", "g"), ConsumeOptions::default());
    let Ok(messages) = SCENE.runtime.block_on(SCENE.client.consume(&source, &options)) else { return };
    for message in messages {
        // Whatever is handed on can be shown, and has the bytes that came.
        let shown = format!("{message:?}");
        assert!(!shown.is_empty());
    }
});
