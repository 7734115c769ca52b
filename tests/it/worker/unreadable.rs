//! Answers that cannot be read: a message of one fails alone, and a page that is no answer ends no worker.

use async_trait::async_trait;
use bytes::Bytes;
use dms_worker::{
    client::ConsumeOptions,
    queue::SourcePath,
    redrive::Redrive,
    transport::{Transport, TransportError},
};
use http::{Request, Response, StatusCode};
use tokio::time::Instant;

use super::*;

/// The bytes in place of message 7: neither UTF-8 nor JSON.
const TORN: &[u8] = b"{\"body\":,\"who\":\"\xff\"";

/// A connection to the service that corrupts message 7, and on which a portal answers with its page until some time.
#[derive(Debug)]
struct Torn {
    service: InProcess,
    portal_until: Instant,
}

#[async_trait]
impl Transport for Torn {
    async fn send(&self, request: Request<Bytes>, timeout: Duration) -> Result<Response<Bytes>, TransportError> {
        let consumes = request.method() == http::Method::GET && request.uri().path().contains("/groups/");
        if consumes && Instant::now() < self.portal_until {
            let page = Bytes::from_static(b"<html><body>Please accept our terms of use</body></html>");
            return Ok(Response::builder().status(StatusCode::OK).body(page).unwrap());
        }
        let mut answer = self.service.send(request, timeout).await?;
        if consumes {
            let body = std::mem::take(answer.body_mut());
            let seven = br#"{"body":7,"attributes":{}"#;
            let at = body.windows(seven.len()).position(|window| window == seven);
            *answer.body_mut() = match at {
                Some(at) => [&body[..at], TORN, &body[at + seven.len()..]].concat().into(),
                None => body,
            };
        }
        Ok(answer)
    }
}

async fn torn_world(queue: NewQueue, portal: Duration) -> World {
    let mut world = World::new(queue, FailureCounting::Culprit).await;
    let service = InProcess::new(world.server.service());
    let transport = Arc::new(Torn { service, portal_until: Instant::now() + portal });
    world.client = Client::builder("http://in.process", "local").transport(transport).build().unwrap();
    world
}

/// The queue continues in its order, and the message becomes a dead letter like every rejected one.
async fn only_the_torn_message_fails(queue: NewQueue) {
    let world = torn_world(queue, Duration::ZERO).await;
    world.send(0..20).await;
    let (handle, run) = start(world.worker(SECOND / 100, |_| false));
    tokio::time::sleep(SECOND * 200).await;
    handle.stop();
    run.await.unwrap();
    let mut seen = world.seen.lock().unwrap().clone();
    seen.sort_unstable();
    assert_eq!(seen, (0..20).filter(|number| *number != 7).collect::<Vec<_>>());
    assert_eq!(world.counts().await, (19, 0, 1));
}

#[tokio::test(start_paused = true)]
async fn only_the_unreadable_message_fails_in_a_normal_queue() {
    only_the_torn_message_fails(orders()).await;
}

#[tokio::test(start_paused = true)]
async fn only_the_unreadable_message_fails_in_a_fifo_queue() {
    only_the_torn_message_fails(orders().mode(QueueMode::Fifo)).await;
}

#[tokio::test(start_paused = true)]
async fn html_pages_instead_of_answers_are_waited_out() {
    let world = torn_world(orders(), SECOND * 600).await;
    world.send(0..5).await;
    let (handle, run) = start(world.worker(SECOND / 100, |_| false));
    tokio::time::sleep(SECOND * 600).await;
    assert!(!run.is_finished(), "a page of somebody else says nothing about the queue");
    tokio::time::sleep(SECOND * 100).await;
    handle.stop();
    run.await.unwrap();
    assert_eq!(world.runs().len(), 5);
}

/// A redrive sends the others again, and says how many it had to leave.
#[tokio::test(start_paused = true)]
async fn a_redrive_leaves_unreadable_messages() {
    let world = torn_world(orders().dead_letters_after(1), Duration::ZERO).await;
    world.send(5..10).await;
    let (handle, run) = start(world.worker(SECOND / 100, |_| true));
    tokio::time::sleep(SECOND * 100).await;
    handle.stop();
    run.await.unwrap();
    assert_eq!(world.counts().await.2, 5);
    let group = world.client.find_group(&world.queue, "billing").await.unwrap().id;
    let source = SourcePath::dead_letters(world.queue.clone(), group);
    let report = Redrive::new(world.client.clone(), source.clone()).run(std::future::pending()).await.unwrap();
    assert_eq!((report.redriven, report.refused), (4, 1));
    assert_eq!(world.counts().await.2, 1);

    let left = world.client.consume(&source, &ConsumeOptions::default()).await.unwrap();
    assert!(left[0].undecodable().is_some_and(|why| why.contains("not")), "{left:?}");
    assert!(left[0].body.as_bytes().starts_with(TORN));
    let copy = Message::new(left[0].body.clone());
    assert!(world.client.send(&world.queue, &[copy]).await.unwrap_err().is_limit(), "it cannot be sent");
}
