//! [`HopClient`]: asks other servers. Calls to one of them share a connection, which is made when it is needed.

use std::{
    collections::HashMap,
    io,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::BytesMut;
use tokio::{
    io::{AsyncWriteExt, BufReader},
    sync::{Mutex as AsyncMutex, mpsc, oneshot},
    time::{Instant, timeout},
};
use tokio_util::task::AbortOnDropHandle;

use super::{
    CallRequest, CallResponse,
    frame::{Frame, FrameKind},
    stream::{self, Incoming, Outgoing},
};
use crate::{
    broker::BrokerError,
    log_limit::Warnings,
    net::peer_tls::PeerTls,
    server::cluster::call::{Call, Reply},
    store::postgres::PeerUrl,
};
use dms_protocol::secret::Secret;

/// How long connecting may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// How many bytes are gathered for one write.
const WRITE_BYTES: usize = 256 << 10;

/// Why a call to another server has no reply.
#[derive(Debug)]
pub(in crate::server::cluster) enum HopError {
    /// Nothing was sent.
    NotSent(String),
    /// The server does not own the shard, and did nothing.
    Moved,
    /// The connection broke. The call may have been made.
    Broken,
    /// The broker there refused or failed.
    Refused(BrokerError),
}

/// The connection to a server, locked while it is made.
type Place = Arc<AsyncMutex<Connecting>>;

#[derive(Debug, Default)]
struct Connecting {
    open: Option<Arc<Connection>>,
    /// When connecting failed last, and why.
    failed: Option<(Instant, String)>,
}

/// The connections to other servers.
#[derive(Debug)]
pub(in crate::server::cluster) struct HopClient {
    secret: Secret,
    tls: Option<PeerTls>,
    connections: Mutex<HashMap<Arc<str>, Place>>,
    warnings: Warnings,
}

impl HopClient {
    pub(in crate::server::cluster) fn new(secret: Secret, tls: Option<PeerTls>) -> Self {
        Self { secret, tls, connections: Mutex::default(), warnings: Warnings::default() }
    }

    /// The connection to the server at a URL, made if there is none. Nothing is asked yet, so a call can still be made at
    /// another server.
    ///
    /// # Errors
    /// [`HopError::NotSent`].
    pub(in crate::server::cluster) async fn connect(&self, address: &Arc<str>) -> Result<Arc<Connection>, HopError> {
        let asked = Instant::now();
        // All connections are locked for a moment only. The place of this one stays locked while it is made, so that calls at the
        // same time share it.
        let place = {
            let mut connections = self.connections.lock().unwrap_or_else(PoisonError::into_inner);
            connections.entry(Arc::clone(address)).or_default().clone()
        };
        let mut place = place.lock().await;
        if let Some(open) = place.open.as_ref().filter(|open| !open.out.is_closed()) {
            return Ok(open.clone());
        }
        // Calls share a failure, too: if each of them tried for itself, the last of many would wait for all the others.
        if let Some((_, why)) = place.failed.as_ref().filter(|(when, _)| *when >= asked) {
            return Err(HopError::NotSent(why.clone()));
        }
        match timeout(CONNECT_TIMEOUT, Connection::open(address, &self.secret, self.tls.as_ref())).await {
            Ok(Ok(made)) => Ok(place.open.insert(Arc::new(made)).clone()),
            failed => {
                let why = match failed {
                    Ok(Err(error)) => {
                        self.warn(address, &error);
                        error.to_string()
                    }
                    _ => format!("no connection within {} s", CONNECT_TIMEOUT.as_secs()),
                };
                place.failed = Some((Instant::now(), why.clone()));
                Err(HopError::NotSent(why))
            }
        }
    }
}

impl HopClient {
    /// Warns of errors that an operator has to remove. A server that is not there is usual.
    fn warn(&self, address: &str, error: &io::Error) {
        use io::ErrorKind::{InvalidData, InvalidInput, PermissionDenied};
        if matches!(error.kind(), InvalidData | InvalidInput | PermissionDenied)
            && let Some(suppressed) = self.warnings.admit(Instant::now())
        {
            tracing::warn!(
                %error,
                address,
                suppressed,
                "another server of the cluster cannot be used, so requests for its queues wait; check server.cluster.tls and the certificates of both"
            );
        }
    }
}

type Pending = Mutex<HashMap<u64, oneshot::Sender<CallResponse>>>;

/// An open connection.
#[derive(Debug)]
pub(in crate::server::cluster) struct Connection {
    out: mpsc::UnboundedSender<Frame>,
    pending: Arc<Pending>,
    next: AtomicU64,
    _task: AbortOnDropHandle<()>,
}

/// A call whose answer is waited for. Dropping it withdraws the call.
struct Waiting {
    connection: Arc<Connection>,
    id: u64,
}

impl Drop for Waiting {
    fn drop(&mut self) {
        // Without an answer, the other server may still be working on it.
        if lock(&self.connection.pending).remove(&self.id).is_some() {
            let _ = self.connection.out.send(Frame::cancel(self.id));
        }
    }
}

impl Connection {
    async fn open(url: &str, secret: &Secret, tls: Option<&PeerTls>) -> io::Result<Self> {
        let url = PeerUrl::parse(url).ok_or_else(|| io::Error::other("its URL cannot be read"))?;
        let halves = stream::connect(url, secret, tls).await?;
        let (out, frames) = mpsc::unbounded_channel();
        let pending = Arc::new(Pending::default());
        let task = tokio::spawn(run(halves, frames, pending.clone()));
        Ok(Self { out, pending, next: AtomicU64::new(1), _task: AbortOnDropHandle::new(task) })
    }

    /// Makes a call.
    ///
    /// # Cancel safety
    /// Dropping the future drops the call there: a `lease` hands out nothing then.
    pub(in crate::server::cluster) async fn call(
        self: &Arc<Self>,
        shard: i32,
        mut call: Call,
    ) -> Result<Reply, HopError> {
        let payloads = call.payloads().into_iter().map(std::mem::take).collect();
        let json =
            serde_json::to_vec(&CallRequest { shard, call }).map_err(|error| HopError::NotSent(error.to_string()))?;
        let (waiting, answer) = self.send(json, payloads)?;
        let answered = answer.await;
        drop(waiting);
        match answered {
            Ok(CallResponse::Done(reply)) => Ok(reply),
            Ok(CallResponse::Moved) => Err(HopError::Moved),
            Ok(CallResponse::Refused(refusal)) => Err(HopError::Refused(refusal.into())),
            Err(_) => Err(HopError::Broken),
        }
    }

    fn send(
        self: &Arc<Self>,
        json: Vec<u8>,
        payloads: Vec<bytes::Bytes>,
    ) -> Result<(Waiting, oneshot::Receiver<CallResponse>), HopError> {
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        let (answer, answered) = oneshot::channel();
        // Before the call is sent, so that its answer always finds it.
        lock(&self.pending).insert(id, answer);
        let waiting = Waiting { connection: self.clone(), id };
        match self.out.send(Frame { id, kind: FrameKind::Call, json: json.into(), payloads }) {
            Ok(()) => Ok((waiting, answered)),
            Err(_) => Err(HopError::NotSent("the connection was closed".to_owned())),
        }
    }
}

fn lock(pending: &Pending) -> MutexGuard<'_, HashMap<u64, oneshot::Sender<CallResponse>>> {
    pending.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Writes calls and reads answers until the connection ends. Calls without an answer learn that it broke.
async fn run((from, to): (Incoming, Outgoing), mut frames: mpsc::UnboundedReceiver<Frame>, pending: Arc<Pending>) {
    tokio::select! {
        () = read(from, &pending) => {}
        () = write(to, &mut frames) => {}
    }
    // From here on nothing is sent, so that no call is added after the pending ones were dropped.
    frames.close();
    lock(&pending).clear();
}

async fn read(from: Incoming, pending: &Pending) {
    let mut from = BufReader::new(from);
    while let Ok(Some(mut frame)) = Frame::read(&mut from).await {
        let Some(waiting) = lock(pending).remove(&frame.id) else { continue };
        let Ok(mut answer) = serde_json::from_slice(&frame.json) else { return };
        if let CallResponse::Done(reply) = &mut answer {
            for (to, payload) in reply.payloads().into_iter().zip(std::mem::take(&mut frame.payloads)) {
                *to = payload;
            }
        }
        let _ = waiting.send(answer);
    }
}

/// Writes frames, as many at once as are waiting.
pub(super) async fn write(mut to: Outgoing, frames: &mut mpsc::UnboundedReceiver<Frame>) {
    let mut bytes = BytesMut::new();
    while let Some(frame) = frames.recv().await {
        frame.put(&mut bytes);
        while bytes.len() < WRITE_BYTES {
            let Ok(frame) = frames.try_recv() else { break };
            frame.put(&mut bytes);
        }
        // Encrypted bytes may still be in a buffer after they were written.
        if to.write_all(&bytes).await.is_err() || to.flush().await.is_err() {
            return;
        }
        bytes.clear();
    }
}
