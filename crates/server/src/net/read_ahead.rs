//! [`ReadAhead`]: reads more than it is asked for, for TLS, which asks for 4 KiB at a time. A request of ten messages would take three
//! system calls.

use std::{
    io,
    pin::{Pin, pin},
    task::{Context, Poll, ready},
};

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf};

/// The maximum number of bytes of one read: a bit more than the largest record of TLS.
const READ_BYTES: usize = 20 << 10;

/// A stream with bytes that were read from it and not taken yet.
#[derive(Debug)]
pub(crate) struct ReadAhead<I> {
    io: I,
    ahead: BytesMut,
}

impl<I> ReadAhead<I> {
    pub(crate) fn new(io: I) -> Self {
        Self { io, ahead: BytesMut::new() }
    }
}

impl<I: AsyncRead + Unpin> AsyncRead for ReadAhead<I> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let Self { io, ahead } = &mut *self;
        if ahead.is_empty() {
            ahead.reserve(READ_BYTES);
            let read = pin!(io.read_buf(ahead)).poll(cx);
            if !matches!(read, Poll::Ready(Ok(1..))) {
                // Connections wait here, and thousands of them need no memory for that.
                *ahead = BytesMut::new();
            }
            ready!(read)?;
        }
        let taken = ahead.len().min(buf.remaining());
        buf.put_slice(&ahead[..taken]);
        ahead.advance(taken);
        if ahead.is_empty() {
            *ahead = BytesMut::new();
        }
        Poll::Ready(Ok(()))
    }
}

impl<I: AsyncWrite + Unpin> AsyncWrite for ReadAhead<I> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use futures_util::FutureExt;
    use tokio::io::{AsyncWriteExt, duplex};

    use super::*;

    #[tokio::test]
    async fn what_has_arrived_is_read_at_once() {
        let (mut peer, io) = duplex(64 << 10);
        let mut io = ReadAhead::new(io);
        let sent: Vec<u8> = (0..10_000_u32).map(|place| place.to_le_bytes()[0]).collect();
        peer.write_all(&sent).await.unwrap();
        let mut part = [0; 4096];
        let mut read = Vec::new();
        for left in [5_904, 1_808, 0] {
            let count = io.read(&mut part).await.unwrap();
            read.extend_from_slice(&part[..count]);
            assert_eq!(io.ahead.len(), left);
        }
        assert_eq!(read, sent);
        assert!(io.read(&mut part).now_or_never().is_none());
        assert_eq!(io.ahead.capacity(), 0, "a connection that waits needs no memory");
        drop(peer);
        assert_eq!(io.read(&mut part).await.unwrap(), 0);
    }
}
