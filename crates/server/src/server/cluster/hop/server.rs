//! [`serve`]: answers the calls of other servers to the shards that this one owns.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{
    io::BufReader,
    net::{TcpListener, TcpStream},
    sync::mpsc,
    task::{AbortHandle, JoinSet},
    time::sleep,
};

use super::{
    CallRequest, CallResponse,
    client::write,
    frame::{Frame, FrameKind},
    refusal::Refusal,
    stream,
};
use crate::server::cluster::{
    Shared,
    call::{Call, Reply},
};

/// The pause after a failed accept, for example because there are no more file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// The maximum number of connections. Each other server needs one.
const MAX_CONNECTIONS: usize = 256;
/// The maximum number of calls of one server at a time. Waiting consume calls are most of them.
const MAX_CALLS: usize = 50_000;

/// Accepts other servers. Dropping the future cuts their connections.
pub(in crate::server::cluster) async fn serve(listener: TcpListener, shared: Arc<Shared>) {
    let mut connections = JoinSet::new();
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                while connections.try_join_next().is_some() {}
                if connections.len() < MAX_CONNECTIONS {
                    connections.spawn(connection(stream, shared.clone()));
                }
            }
            Err(error) => {
                tracing::debug!(%error, "a connection of another server could not be accepted");
                sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// The calls under way by their numbers.
type Calls = Arc<Mutex<HashMap<u64, AbortHandle>>>;

async fn connection(stream: TcpStream, shared: Arc<Shared>) {
    let peer = stream.peer_addr().ok();
    let (from, to) = match stream::accept(stream, &shared.secret, shared.tls.as_ref()).await {
        Ok(halves) => halves,
        Err(error) => {
            let peer = peer.map(tracing::field::display);
            tracing::warn!(%error, peer, "a connection to server.cluster.listen was refused");
            return;
        }
    };
    let mut from = BufReader::new(from);
    let (out, mut frames) = mpsc::unbounded_channel();
    let mut tasks = JoinSet::new();
    let calls = Calls::default();
    let read = async {
        while let Ok(Some(frame)) = Frame::read(&mut from).await {
            while tasks.try_join_next().is_some() {}
            match frame.kind {
                FrameKind::Call => {
                    let (id, shared, out, done) = (frame.id, shared.clone(), out.clone(), calls.clone());
                    // Locked until the call is noted. A task that ends at once waits for the lock before it removes its entry.
                    let mut noted = lock(&calls);
                    if noted.len() >= MAX_CALLS {
                        let _ = out.send(framed(id, CallResponse::Refused(Refusal::TooManyPolls(MAX_CALLS))));
                        continue;
                    }
                    let handle = tasks.spawn(async move {
                        let answer = framed(id, answer(&shared, frame).await);
                        // Removed before the answer is sent, so that a late cancellation does not abort this.
                        lock(&done).remove(&id);
                        let _ = out.send(answer);
                    });
                    noted.insert(id, handle);
                }
                FrameKind::Cancel => {
                    if let Some(task) = lock(&calls).remove(&frame.id) {
                        task.abort();
                    }
                }
                FrameKind::Answer => return,
            }
        }
    };
    tokio::select! {
        () = read => {}
        () = write(to, &mut frames) => {}
    }
}

fn lock(calls: &Calls) -> MutexGuard<'_, HashMap<u64, AbortHandle>> {
    calls.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn answer(shared: &Shared, frame: Frame) -> CallResponse {
    let mut asked: CallRequest = match serde_json::from_slice(&frame.json) {
        Ok(asked) => asked,
        Err(error) => return CallResponse::Refused(Refusal::Store(format!("a call cannot be read: {error}"))),
    };
    for (to, payload) in asked.call.payloads().into_iter().zip(frame.payloads) {
        *to = payload;
    }
    if let Call::EndPolls { project, names } = asked.call {
        return CallResponse::Done(Reply::Ended(shared.polls.end(&project, names)));
    }
    let Some(broker) = shared.seats.local(asked.shard) else { return CallResponse::Moved };
    match asked.call.make(&broker).await {
        Ok(reply) => CallResponse::Done(reply),
        Err(error) => Refusal::of(error).map_or(CallResponse::Moved, CallResponse::Refused),
    }
}

fn framed(id: u64, mut answer: CallResponse) -> Frame {
    let payloads = match &mut answer {
        CallResponse::Done(reply) => reply.payloads().into_iter().map(std::mem::take).collect(),
        _ => Vec::new(),
    };
    // Strings and numbers are always written.
    let json = serde_json::to_vec(&answer).unwrap_or_default();
    Frame { id, kind: FrameKind::Answer, json: json.into(), payloads }
}
