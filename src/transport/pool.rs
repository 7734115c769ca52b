//! [`Pool`]: kept HTTP/1.1 connections, with or without TLS. A request drives the connection that it uses.
//!
//! hyper's own pool runs each connection in a task: a request wakes that task, the answer wakes the caller, and another task
//! puts the connection back. Here the caller takes a connection, polls it together with its request, and puts it back. So an
//! exchange needs one wake-up, when the socket is readable.
//!
//! Nobody polls a connection that waits in the pool. If the peer has closed it, the next request notices that before anything of
//! the request is written, and takes another connection. A task closes the connections that were idle for too long.

use std::{
    collections::VecDeque,
    fmt,
    future::poll_fn,
    mem,
    pin::{Pin, pin},
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
    task::{Context, Waker},
    time::Duration,
};

use bytes::Bytes;
use http::{
    HeaderValue, Request, Response, Uri,
    header::HOST,
    uri::{Authority, PathAndQuery, Scheme},
};
use http_body_util::BodyExt;
use hyper::{
    body::Incoming,
    client::conn::{
        TrySendError,
        http1::{self, SendRequest},
    },
    rt::{Read, Write},
};
use hyper_util::{client::legacy::connect::HttpConnector, rt::TokioIo};
use tokio::{
    io::BufReader,
    task::unconstrained,
    time::{Instant, error::Elapsed, sleep_until, timeout},
};
use tokio_rustls::{
    TlsConnector,
    rustls::{ClientConfig, pki_types::ServerName},
};
use tower::{BoxError, ServiceExt};

use super::outgoing::{Departure, Outgoing};

/// The idle time before, and between, TCP keepalive probes.
pub(super) const KEEPALIVE: Duration = Duration::from_secs(15);
/// How long sent bytes may stay unacknowledged before the connection is closed.
pub(super) const UNACKNOWLEDGED: Duration = Duration::from_secs(30);
/// The number of unanswered keepalive probes before the connection is closed.
const KEEPALIVE_RETRIES: u32 = 3;

/// How many bytes are read at once from an encrypted connection: a bit more than the largest record of TLS. rustls asks for 4 KiB, and
/// an answer with ten messages would take three system calls.
const ENCRYPTED_READ: usize = 20 * 1024;

/// Bounds of a [`Pool`].
#[derive(Clone, Copy, Debug)]
pub struct PoolLimits {
    /// The most idle connections to keep for one host.
    pub idle_per_host: usize,
    /// How long an idle connection is kept.
    pub idle_timeout: Duration,
    /// The timeout of connecting, with the look-up of the name.
    pub connect_timeout: Duration,
}

/// A pool of connections. Cloning is cheap: clones share the connections.
#[derive(Clone)]
pub struct Pool(Arc<Shared>);

struct Shared {
    connector: HttpConnector,
    tls: Option<TlsConnector>,
    limits: PoolLimits,
    idle: Mutex<IdleConnections>,
}

/// Why an exchange has no result.
#[derive(Debug)]
pub enum NoExchange {
    /// No connection came about.
    Connect(BoxError),
    /// The connection broke before the answer.
    Broken {
        /// What broke it.
        error: hyper::Error,
        /// Whether a connection had taken the request, so that the peer may have seen it.
        sent: bool,
    },
    /// It took too long.
    TimedOut {
        /// The timeout as an error.
        error: Elapsed,
        /// Whether a connection had taken the request, so that the peer may have seen it.
        sent: bool,
    },
}

impl Pool {
    /// An empty pool without TLS.
    pub fn new(limits: PoolLimits) -> Self {
        Self::of(limits, None)
    }

    /// An empty pool with this TLS for `https` URIs.
    pub(super) fn with_tls(limits: PoolLimits, tls: Arc<ClientConfig>) -> Self {
        Self::of(limits, Some(tls.into()))
    }

    fn of(limits: PoolLimits, tls: Option<TlsConnector>) -> Self {
        let mut connector = HttpConnector::new();
        connector.enforce_http(false);
        connector.set_nodelay(true);
        connector.set_keepalive(Some(KEEPALIVE));
        connector.set_keepalive_interval(Some(KEEPALIVE));
        connector.set_keepalive_retries(Some(KEEPALIVE_RETRIES));
        #[cfg(any(target_os = "android", target_os = "fuchsia", target_os = "linux"))]
        connector.set_tcp_user_timeout(Some(UNACKNOWLEDGED));
        Self(Arc::new(Shared { connector, tls, limits, idle: Mutex::default() }))
    }

    /// Sends a request, whose URI is absolute, and reads at most about `most` bytes of the answer's body. The head is the answer: a
    /// body that breaks off, or does not end in time, is cut.
    ///
    /// # Errors
    /// When no head of an answer came within the time.
    pub async fn exchange_leniently(
        &self,
        request: Request<Bytes>,
        within: Duration,
        most: usize,
    ) -> Result<Response<Vec<u8>>, NoExchange> {
        let answer = Mutex::new(None);
        let exchanged = pin!(self.exchange(request, within, |incoming| read_leniently(incoming, &answer, most))).await;
        let answer = answer.into_inner().unwrap_or_else(PoisonError::into_inner);
        answer.map_or_else(|| exchanged.map(|()| Response::new(Vec::new())), Ok)
    }

    /// Sends a request, whose URI is absolute, and reads the answer with `read`, all within `within`.
    ///
    /// `read` may wait for the body of the answer alone: nothing else would wake it.
    ///
    /// # Errors
    /// When no answer came within the time.
    pub(super) async fn exchange<T, F: Future<Output = T>>(
        &self,
        request: Request<Bytes>,
        within: Duration,
        read: impl Fn(Response<Incoming>) -> F,
    ) -> Result<T, NoExchange> {
        let (head, body) = request.into_parts();
        let (body, departure) = Outgoing::new(body);
        // Pinned first, because a timeout would move the whole future.
        let exchange = pin!(self.exchange_outgoing(Request::from_parts(head, body), &departure, read));
        match timeout(within, exchange).await {
            Ok(exchanged) => exchanged,
            Err(error) => Err(NoExchange::TimedOut { error, sent: departure.has_left() }),
        }
    }

    async fn exchange_outgoing<T, F: Future<Output = T>>(
        &self,
        mut request: Request<Outgoing>,
        departure: &Departure,
        read: impl Fn(Response<Incoming>) -> F,
    ) -> Result<T, NoExchange> {
        let origin = to_origin_form(&mut request)?;
        loop {
            let idle = self.0.lock().take(&origin);
            let (mut connection, is_new) = match idle {
                Some(connection) => (connection, false),
                // Boxed, because few requests connect.
                None => (Box::pin(self.0.connect(&origin)).await?, true),
            };
            let exchanged = pin!(connection.exchange(request, &read)).await;
            match exchanged {
                Ok(exchanged) => {
                    if connection.is_reusable() {
                        self.0.keep(origin, connection);
                    }
                    return Ok(exchanged);
                }
                Err(mut error) => match error.take_message() {
                    // The peer has closed the connection while it was idle.
                    Some(unsent) if !is_new => request = unsent,
                    _ => return Err(NoExchange::Broken { error: error.into_error(), sent: departure.has_left() }),
                },
            }
        }
    }
}

impl fmt::Debug for Pool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pool").field("limits", &self.0.limits).finish_non_exhaustive()
    }
}

impl Shared {
    async fn connect(&self, origin: &Origin) -> Result<PooledConnection, NoExchange> {
        let Origin { is_encrypted, host } = origin;
        let scheme = if *is_encrypted { Scheme::HTTPS } else { Scheme::HTTP };
        let to = Uri::builder().scheme(scheme).authority(host.clone()).path_and_query("/").build();
        let connecting = async {
            let stream = self.connector.clone().oneshot(to?).await?;
            let connection = match &self.tls {
                _ if !is_encrypted => PooledConnection::over(stream).await?,
                Some(tls) => {
                    let name = ServerName::try_from(host.host().trim_matches(['[', ']']).to_owned())?;
                    let stream = BufReader::with_capacity(ENCRYPTED_READ, stream.into_inner());
                    PooledConnection::over(TokioIo::new(tls.connect(name, stream).await?)).await?
                }
                None => return Err("this pool has no TLS".into()),
            };
            Ok::<_, BoxError>(connection)
        };
        let connected = timeout(self.limits.connect_timeout, connecting).await;
        connected.map_err(BoxError::from).flatten().map_err(NoExchange::Connect)
    }

    /// Keeps a connection for later requests.
    fn keep(self: &Arc<Self>, origin: Origin, connection: PooledConnection) {
        let mut idle = self.lock();
        idle.add(origin, connection, self.limits.idle_per_host);
        if !mem::replace(&mut idle.is_watched, true) {
            tokio::spawn(close_idle(Arc::downgrade(self), self.limits.idle_timeout));
        }
    }

    fn lock(&self) -> MutexGuard<'_, IdleConnections> {
        // No code that can panic runs under this lock.
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Reads an answer into `answer` as it comes.
async fn read_leniently(incoming: Response<Incoming>, answer: &Mutex<Option<Response<Vec<u8>>>>, most: usize) {
    let (head, mut body) = incoming.into_parts();
    let lock = || answer.lock().unwrap_or_else(PoisonError::into_inner);
    *lock() = Some(Response::from_parts(head, Vec::new()));
    while let Some(Ok(frame)) = body.frame().await {
        if let (Ok(piece), Some(answer)) = (frame.into_data(), &mut *lock()) {
            answer.body_mut().extend_from_slice(&piece);
            if answer.body().len() >= most {
                return;
            }
        }
    }
}

/// Connections that no request uses.
#[derive(Default)]
struct IdleConnections {
    /// By host, the one that was used last at the end. A list, because a client has few hosts, and comparing a name costs less
    /// than hashing it.
    hosts: Vec<(Origin, VecDeque<(Instant, PooledConnection)>)>,
    /// Whether a task closes the connections that were idle for too long.
    is_watched: bool,
}

impl IdleConnections {
    /// Takes the connection that was used last, so that the others can be closed when they are not needed.
    fn take(&mut self, origin: &Origin) -> Option<PooledConnection> {
        let (_, idle) = self.hosts.iter_mut().find(|(known, _)| known.is_same(origin))?;
        idle.pop_back().map(|(_, connection)| connection)
    }

    fn add(&mut self, origin: Origin, connection: PooledConnection, most: usize) {
        let entry = (Instant::now(), connection);
        match self.hosts.iter_mut().find(|(known, _)| known.is_same(&origin)) {
            Some((_, idle)) if idle.len() >= most => {}
            Some((_, idle)) => idle.push_back(entry),
            None => self.hosts.push((origin, VecDeque::from([entry]))),
        }
    }

    /// Takes the connections that were last used before `before`.
    fn take_old(&mut self, before: Instant) -> Vec<PooledConnection> {
        let mut old = Vec::new();
        for (_, idle) in &mut self.hosts {
            let count = idle.iter().take_while(|(since, _)| *since <= before).count();
            old.extend(idle.drain(..count).map(|(_, connection)| connection));
        }
        self.hosts.retain(|(_, idle)| !idle.is_empty());
        old
    }

    /// When the connection was used that is idle for the longest time.
    fn oldest(&self) -> Option<Instant> {
        self.hosts.iter().filter_map(|(_, idle)| idle.front()).map(|(since, _)| *since).min()
    }
}

/// What a connection leads to.
#[derive(Clone, Debug)]
struct Origin {
    is_encrypted: bool,
    host: Authority,
}

impl Origin {
    /// Whether a connection to `other` will do. The hosts are compared as texts first, because upper and lower case are the same to
    /// `==`, which looks at each letter for that.
    fn is_same(&self, other: &Self) -> bool {
        let same_host = self.host.as_str() == other.host.as_str() || self.host == other.host;
        self.is_encrypted == other.is_encrypted && same_host
    }
}

/// Closes connections that were idle for too long, until none is idle or the pool is gone.
async fn close_idle(pool: Weak<Shared>, idle_timeout: Duration) {
    let _unwatched = UnwatchOnDrop(pool.clone());
    let mut due = Instant::now() + idle_timeout;
    loop {
        sleep_until(due).await;
        let Some(pool) = pool.upgrade() else { return };
        let mut idle = pool.lock();
        let old = idle.take_old(due - idle_timeout);
        let oldest = idle.oldest();
        idle.is_watched = oldest.is_some();
        drop(idle);
        drop(old);
        let Some(oldest) = oldest else { return };
        due = oldest + idle_timeout;
    }
}

/// Lets another task watch the idle connections if this one ends with its runtime.
struct UnwatchOnDrop(Weak<Shared>);

impl Drop for UnwatchOnDrop {
    fn drop(&mut self) {
        if let Some(pool) = self.0.upgrade() {
            pool.lock().is_watched = false;
        }
    }
}

/// A connection, and the handle that sends requests over it.
struct PooledConnection {
    sender: SendRequest<Outgoing>,
    /// `None` once the connection has ended. Boxed, because it is large and each request moves it.
    driver: Option<Driver>,
}

/// What reads and writes a connection.
type Driver = Pin<Box<dyn Future<Output = hyper::Result<()>> + Send>>;

impl PooledConnection {
    /// Speaks HTTP over a stream.
    async fn over(stream: impl Read + Write + Send + Unpin + 'static) -> hyper::Result<Self> {
        let (sender, driver) = http1::handshake(stream).await?;
        Ok(Self { sender, driver: Some(Box::pin(driver)) })
    }

    /// Sends a request and reads its answer. The error has the request if nothing of it was written.
    async fn exchange<T, F: Future<Output = T>>(
        &mut self,
        request: Request<Outgoing>,
        read: impl Fn(Response<Incoming>) -> F,
    ) -> Result<T, TrySendError<Request<Outgoing>>> {
        let Self { sender, driver } = self;
        let answer = sender.try_send_request(request);
        // Without the budget of the task, because nothing would poll the answer again if the budget ended it.
        let mut answer = pin!(unconstrained(async { Ok(read(answer.await?).await) }));
        poll_fn(|cx| {
            if driver.as_mut().is_some_and(|driver| driver.as_mut().poll(cx).is_ready()) {
                // Dropping it gives its error to the answer, or gives the request back.
                *driver = None;
            }
            // The driver alone moves the answer on, so the answer need not wake the task.
            answer.as_mut().poll(&mut Context::from_waker(Waker::noop()))
        })
        .await
    }

    /// Whether another request can use the connection. The peer may have announced that it closes it, or the answer may have come
    /// before the end of the request.
    fn is_reusable(&mut self) -> bool {
        let Some(driver) = &mut self.driver else { return false };
        // Polled without a task, the connection forgets the one that it would wake.
        let mut unwoken = Context::from_waker(Waker::noop());
        driver.as_mut().poll(&mut unwoken).is_pending() && self.sender.is_ready()
    }
}

/// Makes the URI of a request one for the host itself, and returns where it leads.
fn to_origin_form(request: &mut Request<Outgoing>) -> Result<Origin, NoExchange> {
    let uri = mem::take(request.uri_mut()).into_parts();
    let host = uri.authority.ok_or_else(|| NoExchange::Connect("the URL has no host".into()))?;
    *request.uri_mut() = uri.path_and_query.unwrap_or_else(|| PathAndQuery::from_static("/")).into();
    if !request.headers().contains_key(HOST) {
        let value = HeaderValue::from_str(host.as_str()).map_err(|error| NoExchange::Connect(error.into()))?;
        request.headers_mut().insert(HOST, value);
    }
    Ok(Origin { is_encrypted: uri.scheme == Some(Scheme::HTTPS), host })
}
