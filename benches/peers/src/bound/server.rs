//! The server: `POST /messages`, `GET /messages`, `POST /ack`.

use std::{
    net::SocketAddr,
    path::Path,
    sync::{Arc, Mutex},
};

use axum::{
    Router,
    body::Body,
    extract::State,
    http::header,
    response::{IntoResponse, Response},
    routing::post,
    serve::ListenerExt,
};
use bytes::Bytes;
use serde::Deserialize;
use serde_json::value::RawValue;
use tokio::{net::TcpListener, sync::watch};

use crate::{
    Error,
    bound::log::{Log, Slot},
};

/// The most messages of an answer.
const BATCH: usize = 10;

struct Shared {
    log: Log,
    queue: Arc<Mutex<Queue>>,
    more: watch::Receiver<()>,
}

#[derive(Default)]
struct Queue {
    stored: Vec<Slot>,
    next: usize,
}

pub async fn serve(listen: SocketAddr, folder: &Path) -> Result<(), Error> {
    let (arrived, more) = watch::channel(());
    let queue = Arc::<Mutex<Queue>>::default();
    let published = queue.clone();
    let log = Log::create(folder, move |slots| {
        if !slots.is_empty() {
            published.lock().expect("no panics").stored.extend(slots);
            arrived.send_replace(());
        }
    })?;
    let router = Router::new()
        .route("/messages", post(send).get(receive))
        .route("/ack", post(acknowledge))
        .with_state(Arc::new(Shared { log, queue, more }));
    let listener = TcpListener::bind(listen).await?.tap_io(|stream| drop(stream.set_nodelay(true)));
    Ok(axum::serve(listener, router).await?)
}

#[derive(Deserialize)]
struct Messages<'a> {
    #[serde(borrow)]
    messages: Vec<&'a RawValue>,
}

async fn send(State(shared): State<Arc<Shared>>, body: Bytes) -> Response {
    let Ok(sent) = serde_json::from_slice::<Messages<'_>>(&body) else { return bad() };
    let lengths: Vec<usize> = sent.messages.iter().map(|message| message.get().len()).collect();
    let bytes = sent.messages.iter().map(|message| message.get().as_bytes()).collect::<Vec<_>>().concat();
    let count = lengths.len();
    shared.log.store(bytes, lengths).await;
    json(format!(r#"{{"success":{count}}}"#))
}

async fn receive(State(shared): State<Arc<Shared>>) -> Response {
    let mut more = shared.more.clone();
    let (slots, first) = loop {
        more.mark_unchanged();
        if let Some(found) = shared.queue.lock().expect("no panics").take() {
            break found;
        }
        if more.changed().await.is_err() {
            return json("[]".to_owned());
        }
    };
    let (begin, end) = (slots[0], slots[slots.len() - 1]);
    let bytes = shared.log.read(begin, end);
    let mut answer = Vec::with_capacity(bytes.len() + slots.len() * 64);
    for (index, slot) in slots.iter().enumerate() {
        answer.push(if index == 0 { b'[' } else { b',' });
        answer.extend_from_slice(br#"{"message":"#);
        let at = (slot.at - begin.at) as usize;
        answer.extend_from_slice(&bytes[at..at + slot.length]);
        answer.extend_from_slice(format!(r#","handler":"{:032x}"}}"#, first + index).as_bytes());
    }
    answer.push(b']');
    json(answer)
}

impl Queue {
    /// The next messages, and the number of the first. Acknowledgements may lie between messages in the file.
    fn take(&mut self) -> Option<(Vec<Slot>, usize)> {
        let first = self.next;
        let rest = &self.stored[first..];
        let slots = rest[..rest.len().min(BATCH)].to_vec();
        self.next += slots.len();
        (!slots.is_empty()).then_some((slots, first))
    }
}

#[derive(Deserialize)]
struct Acks<'a> {
    #[serde(borrow)]
    message: Vec<Ack<'a>>,
}

#[derive(Deserialize)]
struct Ack<'a> {
    handler: &'a str,
}

async fn acknowledge(State(shared): State<Arc<Shared>>, body: Bytes) -> Response {
    let Ok(acks) = serde_json::from_slice::<Acks<'_>>(&body) else { return bad() };
    let mut bytes = Vec::with_capacity(acks.message.len() * 8);
    for ack in &acks.message {
        let Ok(number) = u64::from_str_radix(ack.handler, 16) else { return bad() };
        bytes.extend_from_slice(&number.to_le_bytes());
    }
    shared.log.store(bytes, Vec::new()).await;
    json(format!(r#"{{"success":{},"fail":0}}"#, acks.message.len()))
}

fn json(body: impl Into<Body>) -> Response {
    ([(header::CONTENT_TYPE, "application/json")], body.into()).into_response()
}

fn bad() -> Response {
    axum::http::StatusCode::BAD_REQUEST.into_response()
}
