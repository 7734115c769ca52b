//! Stops under load cost nothing: with a single allowed failure no message becomes a dead letter, none is lost, none is run twice.

use async_trait::async_trait;
use bytes::Bytes;
use dms_worker::transport::{Transport, TransportError};
use http::{Request, Response, StatusCode};

use super::*;

/// A network on which a round trip takes forty milliseconds. A consume call whose caller has gone reaches the server all the same, as
/// over sockets: messages that it leases then have no consumer.
#[derive(Clone, Debug)]
struct Far {
    server: InProcess,
    /// Whether the service answers without extensions.
    plain: bool,
}

#[async_trait]
impl Transport for Far {
    async fn send(&self, request: Request<Bytes>, timeout: Duration) -> Result<Response<Bytes>, TransportError> {
        if self.plain {
            assert!(!request.headers().contains_key("x-dms-poll"), "an extension that was not announced is not used");
            assert!(!request.uri().path().ends_with("/polls/end"));
        }
        let far = self.clone();
        let answer = tokio::spawn(async move {
            tokio::time::sleep(SECOND / 50).await;
            far.server.send(request, timeout).await
        });
        let mut answer = answer.await.unwrap()?;
        tokio::time::sleep(SECOND / 50).await;
        if self.plain {
            answer.headers_mut().remove("x-dms-extensions");
        }
        assert_ne!(answer.status(), StatusCode::INTERNAL_SERVER_ERROR);
        Ok(answer)
    }
}

/// Ten messages a second, and 25 workers one after the other; each has its moment to stop.
async fn stops_cost_nothing(plain: bool, stop: fn(&WorkerHandle)) {
    let mut world = World::new(NewQueue::new("orders").dead_letters_after(1), FailureCounting::Batch).await;
    let near = world.client.clone();
    let far = Arc::new(Far { server: InProcess::new(world.server.service()), plain });
    world.client = Client::builder("http://in.process", "local").transport(far).build().unwrap();
    let queue = world.queue.clone();
    let sent = tokio::spawn(async move {
        for number in 0..400u64 {
            near.send(&queue, &[Message::json(&number).unwrap()]).await.unwrap().remove(0).unwrap();
            tokio::time::sleep(SECOND / 10).await;
        }
        near
    });
    for life in 0..25 {
        let (handle, run) = start(world.worker(SECOND / 1000, |_| false));
        // The moments are spread over the tenth of a second between two messages.
        tokio::time::sleep(SECOND + SECOND / 250 * life).await;
        stop(&handle);
        let report = run.await.unwrap();
        assert_eq!((report.left, report.polls_given_up, report.redelivered), (0, 0, 0), "life {life}: {report:?}");
    }
    let (handle, run) = start(world.worker(SECOND / 1000, |_| false));
    world.client = sent.await.unwrap();
    while world.counts().await.0 < 400 {
        tokio::time::sleep(SECOND).await;
    }
    handle.stop();
    run.await.unwrap();
    assert_eq!(world.counts().await, (400, 0, 0));
    assert!(world.runs().len() == 400 && world.runs().values().all(|runs| *runs == 1));
}

#[tokio::test(start_paused = true)]
async fn twenty_five_stops_under_load_cost_nothing() {
    stops_cost_nothing(false, WorkerHandle::stop).await;
}

/// Its polls are awaited, and the messages they return are handled.
#[tokio::test(start_paused = true)]
async fn twenty_five_stops_on_a_service_without_extensions_cost_nothing() {
    stops_cost_nothing(true, WorkerHandle::stop).await;
}
