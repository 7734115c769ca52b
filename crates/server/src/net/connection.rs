//! One connection: HTTP/1.1 with deadlines for heads, bodies, answers, idleness and age.

use std::{
    convert::Infallible,
    future::poll_fn,
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use axum::{
    body::{Body, HttpBody},
    response::Response,
};
use futures_util::{FutureExt, StreamExt, future::BoxFuture, stream::FuturesUnordered};
use http::Request;
use hyper::{
    body::{Frame, Incoming, SizeHint},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::TokioIo;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::{Duration, Instant, Sleep, sleep, sleep_until},
};
use tokio_util::sync::CancellationToken;
use tower::{Service, ServiceExt};

use crate::net::{
    connection_state::ConnectionState,
    half_close::{HalfClose, Progress},
    limits::HttpLimits,
};

/// The size of the read buffer, and so of the largest head, in bytes.
const BUFFER: usize = 128 << 10;

/// The service that answers the requests of a connection.
pub trait HttpService:
    Service<Request<Body>, Response = Response, Error = Infallible, Future: Send> + Clone + Send + 'static
{
}

impl<S> HttpService for S where
    S: Service<Request<Body>, Response = Response, Error = Infallible, Future: Send> + Clone + Send + 'static
{
}

/// An extension of a response that must not reach its caller: the connection is closed instead of writing it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct AbortConnection;

/// Serves requests on `io` until the peer leaves, a deadline passes or the connection is displaced. Once `stopping` is cancelled, it
/// answers the request in progress and closes the connection.
pub(crate) async fn serve<I>(
    io: I,
    service: impl HttpService,
    limits: HttpLimits,
    connection: Arc<ConnectionState>,
    stopping: CancellationToken,
) where
    I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let progress = Arc::clone(&connection.progress);
    let io = HalfClose::new(io, Arc::clone(&progress));
    let io = Deadlines::new(io, Arc::clone(&connection), limits.clone());
    let mut interrupts = interrupts(&connection, stopping, limits.connection_age);
    // Twice the time, so that a handler that limits the body itself can reply with its more specific error first.
    let body_timeout = limits.body_timeout * 2;
    let answers = service_fn(move |request: Request<Incoming>| {
        let has_body = !request.body().is_end_stream();
        progress.begin(has_body);
        let progress = Arc::clone(&progress);
        let request = request.map(|body| match has_body {
            true => Body::new(Timed::new(body, body_timeout, Arc::clone(&progress))),
            false => Body::empty(),
        });
        let answer = service.clone().oneshot(request);
        let connection = Arc::clone(&connection);
        async move {
            let mut answer = std::pin::pin!(answer);
            let answer = poll_fn(|cx| progress.poll_answer(answer.as_mut(), cx)).await;
            let answer = answer.unwrap_or_else(|never| match never {});
            connection.answered();
            if answer.extensions().get::<AbortConnection>().is_some() {
                return Err(io::Error::from(io::ErrorKind::ConnectionReset));
            }
            Ok(answer)
        }
    });
    // Pinned where it is made: if it were moved, each connection would take its memory twice.
    let mut http = std::pin::pin!(
        http1::Builder::new()
            // hyper's own timer would be set and dropped for every request.
            .header_read_timeout(None)
            .max_buf_size(BUFFER)
            .serve_connection(TokioIo::new(io), answers)
    );
    let ended = loop {
        tokio::select! {
            biased;
            ended = http.as_mut() => break ended,
            Some(interrupt) = interrupts.next() => match interrupt {
                Interrupt::WindDown => http.as_mut().graceful_shutdown(),
                Interrupt::Displaced => return,
            },
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "a connection ended with an error");
    }
}

/// An event outside of a connection that ends it.
enum Interrupt {
    /// The server stops, or the connection is too old: the request in progress is the last one.
    WindDown,
    /// The slot was given to another connection.
    Displaced,
}

/// The events that interrupt a connection. Each future of the set is polled only after its event has woken it. Without the set, each
/// request would poll them several times, and two of them lock a mutex.
fn interrupts(
    connection: &Arc<ConnectionState>,
    stopping: CancellationToken,
    age: Duration,
) -> FuturesUnordered<BoxFuture<'static, Interrupt>> {
    let displaced = connection.displaced.clone();
    let wind_down = async move {
        tokio::select! {
            () = stopping.cancelled() => {}
            () = sleep(age) => {}
        }
        Interrupt::WindDown
    };
    let displaced = async move {
        displaced.cancelled().await;
        Interrupt::Displaced
    };
    FuturesUnordered::from_iter([wind_down.boxed(), displaced.boxed()])
}

/// A request body with a deadline.
struct Timed<B> {
    body: B,
    limit: Duration,
    /// Set when the first wait begins, because most bodies arrive together with their head.
    due: Option<Pin<Box<Sleep>>>,
    /// Learns when the body has been read.
    progress: Arc<Progress>,
}

impl<B> Timed<B> {
    fn new(body: B, limit: Duration, progress: Arc<Progress>) -> Self {
        Self { body, limit, due: None, progress }
    }
}

impl<B: HttpBody<Error: Into<axum::BoxError>> + Unpin> HttpBody for Timed<B> {
    type Data = B::Data;
    type Error = axum::BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Self::Data>, Self::Error>>> {
        let this = &mut *self;
        if let Poll::Ready(frame) = Pin::new(&mut this.body).poll_frame(cx) {
            if frame.is_none() || this.body.is_end_stream() {
                this.progress.has_read(cx);
            }
            return Poll::Ready(frame.map(|frame| frame.map_err(Into::into)));
        }
        let due = this.due.get_or_insert_with(|| Box::pin(sleep(this.limit)));
        ready!(due.as_mut().poll(cx));
        Poll::Ready(Some(Err("the body of the request did not arrive in time".into())))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// A timer for a deadline that moves with every request. It is set again only when it fires too early, not for each request.
struct Alarm(Pin<Box<Sleep>>);

impl Alarm {
    /// Ready once `due` has passed.
    fn poll(&mut self, due: Instant, cx: &mut Context<'_>) -> Poll<()> {
        if due < self.0.deadline() {
            self.0.as_mut().reset(due);
        }
        ready!(self.0.as_mut().poll(cx));
        while self.0.deadline() < due {
            self.0.as_mut().reset(due);
            ready!(self.0.as_mut().poll(cx));
        }
        Poll::Ready(())
    }
}

/// The minimum time between the first look at a deadline and its end. After a pause of the process, timers may fire before
/// bytes that arrived meanwhile have been read.
const LAST_LOOK: Duration = Duration::from_millis(20);

/// An event that a connection waits for while no request is in progress.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Awaited {
    /// The first byte of a request, until this time.
    Request(Instant),
    /// The rest of a head, until this time.
    Head(Instant),
}

/// A stream with deadlines for idling, for the head of a request, and for a peer that reads its answer slowly.
struct Deadlines<I> {
    io: I,
    /// Knows whether a request is being answered. Until then the peer may stay silent.
    connection: Arc<ConnectionState>,
    limits: HttpLimits,
    /// `None` while a request is in progress.
    awaited: Option<Awaited>,
    /// Whether [`LAST_LOOK`] has begun.
    last_look: bool,
    alarm: Alarm,
    write: Option<Pin<Box<Sleep>>>,
}

impl<I> Deadlines<I> {
    fn new(io: I, connection: Arc<ConnectionState>, limits: HttpLimits) -> Self {
        // A new connection is opened for a request, so its head is due from the start.
        let due = Instant::now() + limits.head_timeout;
        let alarm = Alarm(Box::pin(sleep_until(due)));
        Self { io, connection, limits, awaited: Some(Awaited::Head(due)), last_look: false, alarm, write: None }
    }

    /// Ready with an error when the awaited bytes do not arrive in time.
    fn overdue(&mut self, cx: &mut Context<'_>) -> Poll<io::Error> {
        let idle = || match self.connection.is_known() {
            true => Awaited::Request(Instant::now() + self.limits.idle_timeout),
            false => Awaited::Request(Instant::now() + self.limits.unauthenticated_idle_timeout),
        };
        let (due, problem) = match self.awaited.get_or_insert_with(idle) {
            Awaited::Request(due) => (due, "no request came for long"),
            Awaited::Head(due) => (due, "the request's head takes too long"),
        };
        if !self.last_look {
            ready!(self.alarm.poll(due.checked_sub(LAST_LOOK).unwrap_or(*due), cx));
            (self.last_look, *due) = (true, (*due).max(Instant::now() + LAST_LOOK));
        }
        ready!(self.alarm.poll(*due, cx));
        Poll::Ready(io::Error::new(io::ErrorKind::TimedOut, problem))
    }

    /// Returns the result of a write, or an error when a pending write has used up the time for the whole answer.
    fn judge_write<T>(&mut self, cx: &mut Context<'_>, result: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if result.is_ready() {
            return result;
        }
        let due = Instant::now() + self.limits.write_timeout;
        let timer = self.write.get_or_insert_with(|| Box::pin(sleep_until(due)));
        ready!(timer.as_mut().poll(cx));
        Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, "the peer does not read its answer")))
    }
}

impl<I: AsyncRead + Unpin> AsyncRead for Deadlines<I> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        let filled = buf.filled().len();
        let result = Pin::new(&mut this.io).poll_read(cx, buf);
        if this.connection.progress.is_busy() {
            this.awaited = None;
            return result;
        }
        if result.is_ready() {
            this.last_look = false;
            if buf.filled().len() > filled && !matches!(this.awaited, Some(Awaited::Head(_))) {
                this.awaited = Some(Awaited::Head(Instant::now() + this.limits.head_timeout));
            }
            return result;
        }
        this.overdue(cx).map(Err)
    }
}

impl<I: AsyncWrite + Unpin> AsyncWrite for Deadlines<I> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let result = Pin::new(&mut self.io).poll_write(cx, bytes);
        self.judge_write(cx, result)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let result = Pin::new(&mut self.io).poll_write_vectored(cx, slices);
        self.judge_write(cx, result)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let result = Pin::new(&mut self.io).poll_flush(cx);
        if result.is_ready() {
            // Everything is written. The next answer has its own time.
            self.write = None;
            // hyper may not read again before it is woken, and then nothing else would check the deadline.
            if !self.connection.progress.is_busy()
                && let Poll::Ready(error) = self.overdue(cx)
            {
                return Poll::Ready(Err(error));
            }
        }
        self.judge_write(cx, result)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let result = Pin::new(&mut self.io).poll_shutdown(cx);
        self.judge_write(cx, result)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use axum::{Router, routing::get};
    use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};

    use super::*;

    fn connection() -> Arc<ConnectionState> {
        Arc::new(ConnectionState::new([127, 0, 0, 1].into(), Arc::default()))
    }

    /// Serves a router that answers with `bytes` bytes, on a pipe that holds 1 KiB.
    fn serving(bytes: usize) -> (DuplexStream, tokio::task::JoinHandle<()>) {
        let (client, server) = duplex(1024);
        let router = Router::new().route("/", get(async move || vec![b'x'; bytes]));
        let stopping = CancellationToken::new();
        (client, tokio::spawn(serve(server, router, HttpLimits::default(), connection(), stopping)))
    }

    const REQUEST: &[u8] = b"GET / HTTP/1.1\r\nHost: h\r\n\r\n";

    #[tokio::test(start_paused = true)]
    async fn a_caller_that_does_not_read_is_dropped() {
        let (mut client, served) = serving(100_000);
        client.write_all(REQUEST).await.unwrap();
        let begun = Instant::now();
        served.await.unwrap();
        assert_eq!(begun.elapsed(), HttpLimits::default().write_timeout);
    }

    #[tokio::test(start_paused = true)]
    async fn a_caller_that_reads_too_slowly_is_dropped() {
        let (mut client, served) = serving(100_000);
        client.write_all(REQUEST).await.unwrap();
        let begun = Instant::now();
        let mut read = 0;
        // 100 bytes a second would take a quarter of an hour.
        while let Ok(count @ 1..) = client.read(&mut [0; 100]).await {
            read += count;
            sleep(Duration::from_secs(1)).await;
        }
        served.await.unwrap();
        assert!(read < 20_000, "{read} bytes were read");
        assert!(begun.elapsed() < Duration::from_secs(120), "{:?}", begun.elapsed());
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_that_never_ends_is_given_up() {
        let (mut client, server) = duplex(1024);
        let router =
            Router::new().route("/", axum::routing::post(async |body: axum::body::Bytes| body.len().to_string()));
        let served = tokio::spawn(serve(server, router, HttpLimits::default(), connection(), CancellationToken::new()));
        client.write_all(b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 1000\r\n\r\n").await.unwrap();
        let begun = Instant::now();
        // One byte a second is not enough, even if it continues.
        let drip = async {
            while client.write_all(b"x").await.is_ok() {
                sleep(Duration::from_secs(1)).await;
            }
        };
        tokio::select! {
            () = drip => {}
            ended = served => ended.unwrap(),
        }
        assert!(begun.elapsed() < Duration::from_secs(100), "{:?}", begun.elapsed());
    }

    #[tokio::test(start_paused = true)]
    async fn a_caller_that_reads_in_time_is_served_again() {
        let (mut client, served) = serving(100_000);
        for _ in 0..2 {
            client.write_all(REQUEST).await.unwrap();
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                head.push(client.read_u8().await.unwrap());
            }
            client.read_exact(&mut vec![0; 100_000]).await.unwrap();
            // Each answer has its own time.
            sleep(Duration::from_secs(59)).await;
        }
        drop(client);
        served.await.unwrap();
    }
}
