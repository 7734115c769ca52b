//! Callers that close their sending side after a request, and still get its answer.
//!
//! The end of the input looks the same whether the caller still reads or is gone, and no message may be leased to a caller that
//! is gone. So the server probes the caller: it sends the first bytes of the answer, which are the same for every answer, one
//! at a time. A caller that reads finds them in their place. If the caller is gone, its system refuses them, which is an error
//! of the connection and ends the request.

use std::{
    io,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU8, Ordering},
    },
    task::{Context, Poll, ready},
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::{Duration, Instant, Sleep, sleep_until},
};

/// The first bytes of every answer.
const ANSWER_PREFIX: &[u8] = b"HTTP/1.";
/// When each of these bytes is sent, counted from the end of the input. Later ones detect a caller that leaves later.
const SENT_AT: [Duration; ANSWER_PREFIX.len()] = [
    Duration::ZERO,
    Duration::from_millis(100),
    Duration::from_millis(500),
    Duration::from_secs(2),
    Duration::from_secs(6),
    Duration::from_secs(15),
    Duration::from_secs(40),
];
/// How long after a byte the connection is checked for a refusal.
const ROUND_TRIP: Duration = Duration::from_millis(20);
/// How long the first byte may still be refused. After this the caller counts as one that reads.
const REFUSAL_WINDOW: Duration = Duration::from_millis(100);

/// How far the request in progress is. The connection and its stream share it.
#[derive(Debug, Default)]
pub(crate) struct Progress(AtomicU8);

// The bits of a progress. None is set while no request is in progress.
/// The request's body is being read.
const READING: u8 = 1;
/// The request is complete and not answered.
const ANSWERING: u8 = 2;
/// The answer is being written.
const WRITING: u8 = 4;
/// The caller has closed its sending side.
const ENDED: u8 = 8;
/// It is not known yet whether the caller still reads.
const READING_UNKNOWN: u8 = 16;

impl Progress {
    /// Notes that a request has begun, with a body to be read or without.
    pub(crate) fn begin(&self, has_body: bool) {
        self.0.store(if has_body { READING } else { ANSWERING }, Ordering::Relaxed);
    }

    /// Notes that the body has been read to its end.
    pub(crate) fn has_read(&self, cx: &Context<'_>) {
        if !self.is(READING) {
            return;
        }
        self.0.fetch_xor(READING | ANSWERING, Ordering::Relaxed);
        if self.is(ENDED) {
            // From now on the caller is probed.
            cx.waker().wake_by_ref();
        }
    }

    /// The answer is there and is being written.
    pub(crate) fn answered(&self) {
        let ended = self.0.load(Ordering::Relaxed) & ENDED;
        self.0.store(WRITING | ended, Ordering::Relaxed);
    }

    /// Whether a request is in progress and not answered.
    pub(crate) fn is_busy(&self) -> bool {
        self.is(READING | ANSWERING)
    }

    /// Whether a request is complete and not answered.
    pub(crate) fn is_answering(&self) -> bool {
        self.is(ANSWERING)
    }

    /// Polls the future that answers the request, except while it is unknown whether the caller still reads: nothing may be
    /// leased to a caller that is gone. The probe wakes the task when it knows.
    pub(crate) fn poll_answer<F: Future>(&self, answer: Pin<&mut F>, cx: &mut Context<'_>) -> Poll<F::Output> {
        if self.is(READING_UNKNOWN) { Poll::Pending } else { answer.poll(cx) }
    }

    fn is(&self, any: u8) -> bool {
        self.0.load(Ordering::Relaxed) & any != 0
    }

    fn set(&self, bits: u8) -> bool {
        self.0.fetch_or(bits, Ordering::Relaxed) & bits != 0
    }

    fn clear(&self, bits: u8) {
        self.0.fetch_and(!bits, Ordering::Relaxed);
    }
}

/// A stream that hides the end of the input while a request is in progress.
#[derive(Debug)]
pub(crate) struct HalfClose<I> {
    io: I,
    progress: Arc<Progress>,
    probe: Option<Probe>,
    /// The number of bytes of the next answer that were sent ahead.
    ahead: usize,
}

/// The probe of a caller that has closed its sending side.
#[derive(Debug)]
struct Probe {
    began: Instant,
    timer: Pin<Box<Sleep>>,
}

impl<I: AsyncRead + AsyncWrite + Unpin> HalfClose<I> {
    pub(crate) fn new(io: I, progress: Arc<Progress>) -> Self {
        Self { io, progress, probe: None, ahead: 0 }
    }

    /// The result of a read after the caller has closed its sending side: the end, unless a request is in progress.
    fn end(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let had_ended = self.progress.set(ENDED);
        if self.progress.is(READING) {
            if had_ended {
                return Poll::Ready(Ok(()));
            }
            // The body may be complete and not yet taken. If another read follows, it is incomplete.
            cx.waker().wake_by_ref();
        } else if self.progress.is(ANSWERING) {
            return self.probe(cx).map(Err);
        } else if !self.progress.is(WRITING) {
            return Poll::Ready(Ok(()));
        }
        Poll::Pending
    }

    /// Ready with an error when the caller is gone. The read before this call finds refusals of earlier bytes.
    fn probe(&mut self, cx: &mut Context<'_>) -> Poll<io::Error> {
        let probe = self.probe.get_or_insert_with(|| {
            self.progress.set(READING_UNKNOWN);
            let began = Instant::now();
            Probe { began, timer: Box::pin(sleep_until(began)) }
        });
        while probe.timer.as_mut().poll(cx).is_ready() {
            let passed = probe.began.elapsed();
            if passed >= REFUSAL_WINDOW && self.progress.is(READING_UNKNOWN) {
                self.progress.clear(READING_UNKNOWN);
                // The delayed answer continues.
                cx.waker().wake_by_ref();
            }
            let next = match SENT_AT.get(self.ahead) {
                None => return Poll::Pending,
                Some(due) if passed < *due => *due,
                Some(_) => {
                    if let Poll::Ready(refused) = send(&mut self.io, &mut self.ahead, cx) {
                        return Poll::Ready(refused);
                    }
                    passed + ROUND_TRIP
                }
            };
            probe.timer.as_mut().reset(probe.began + next);
        }
        Poll::Pending
    }
}

/// Sends the next byte of [`ANSWER_PREFIX`], of which `ahead` are sent. Ready with an error when it is refused.
fn send<I: AsyncWrite + Unpin>(io: &mut I, ahead: &mut usize, cx: &mut Context<'_>) -> Poll<io::Error> {
    let byte = &ANSWER_PREFIX[*ahead..=*ahead];
    match Pin::new(&mut *io).poll_write(cx, byte) {
        Poll::Ready(Ok(written)) => *ahead += written,
        Poll::Ready(Err(error)) => return Poll::Ready(error),
        Poll::Pending => {}
    }
    match Pin::new(io).poll_flush(cx) {
        Poll::Ready(Err(error)) => Poll::Ready(error),
        _ => Poll::Pending,
    }
}

impl<I: AsyncRead + AsyncWrite + Unpin> AsyncRead for HalfClose<I> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let filled = buf.filled().len();
        ready!(Pin::new(&mut self.io).poll_read(cx, buf))?;
        if buf.filled().len() > filled || buf.remaining() == 0 {
            return Poll::Ready(Ok(()));
        }
        self.end(cx)
    }
}

impl<I: AsyncWrite + Unpin> HalfClose<I> {
    /// How many of `bytes` bytes of an answer were sent ahead.
    fn skip(&mut self, bytes: usize) -> usize {
        let skipped = self.ahead.min(bytes);
        self.ahead -= skipped;
        skipped
    }
}

impl<I: AsyncRead + AsyncWrite + Unpin> AsyncWrite for HalfClose<I> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self.skip(bytes.len()) {
            0 => Pin::new(&mut self.io).poll_write(cx, bytes),
            skipped => Poll::Ready(Ok(skipped)),
        }
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.skip(slices.iter().map(|slice| slice.len()).sum()) {
            0 => Pin::new(&mut self.io).poll_write_vectored(cx, slices),
            skipped => Poll::Ready(Ok(skipped)),
        }
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(Pin::new(&mut self.io).poll_flush(cx))?;
        // The answer is written, so the end of the input may be reported now.
        if self.progress.is(WRITING) {
            self.progress.clear(WRITING);
            if self.progress.is(ENDED) {
                cx.waker().wake_by_ref();
            }
        }
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}
