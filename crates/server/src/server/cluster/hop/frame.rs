//! [`Frame`]: a length, the number of a call, the kind, a JSON text, and the messages that belong to it, which are copied unchanged.

use std::io;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt};

/// The largest frame that is read. A request of a client and its answer are much smaller.
const MAX_FRAME: usize = 256 << 20;
/// The size of the number, the kind and the two lengths, in bytes.
const HEAD: usize = 8 + 1 + 4 + 4;

/// The kind of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum FrameKind {
    /// A call.
    Call = 1,
    /// The answer to it.
    Answer = 2,
    /// The caller does not wait for the answer any more.
    Cancel = 3,
}

/// A frame.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Frame {
    /// The number of the call on its connection. An answer has the number of its request.
    pub(super) id: u64,
    pub(super) kind: FrameKind,
    pub(super) json: Bytes,
    pub(super) payloads: Vec<Bytes>,
}

impl Frame {
    /// A frame without contents.
    pub(super) fn cancel(id: u64) -> Self {
        Self { id, kind: FrameKind::Cancel, json: Bytes::new(), payloads: Vec::new() }
    }

    /// Appends it to a buffer.
    pub(super) fn put(&self, to: &mut BytesMut) {
        let payloads: usize = self.payloads.iter().map(|payload| 4 + payload.len()).sum();
        to.put_u32(small(HEAD + self.json.len() + payloads));
        to.put_u64(self.id);
        to.put_u8(self.kind as u8);
        to.put_u32(small(self.json.len()));
        to.put_u32(small(self.payloads.len()));
        to.put_slice(&self.json);
        for payload in &self.payloads {
            to.put_u32(small(payload.len()));
            to.put_slice(payload);
        }
    }

    /// Reads the next one. `None` where the peer has closed the connection between two frames.
    ///
    /// # Errors
    /// When the connection broke, or its bytes are no frame.
    pub(super) async fn read(from: &mut (impl AsyncRead + Unpin)) -> io::Result<Option<Self>> {
        let mut length = [0; 4];
        match from.read_exact(&mut length).await {
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
            read => read?,
        };
        let length = u32::from_be_bytes(length) as usize;
        if !(HEAD..=MAX_FRAME).contains(&length) {
            return Err(invalid("its length is out of range"));
        }
        let mut bytes = BytesMut::zeroed(length);
        from.read_exact(&mut bytes).await?;
        Self::parse(bytes.freeze()).map(Some)
    }

    fn parse(mut bytes: Bytes) -> io::Result<Self> {
        let id = bytes.get_u64();
        let kind = match bytes.get_u8() {
            1 => FrameKind::Call,
            2 => FrameKind::Answer,
            3 => FrameKind::Cancel,
            _ => return Err(invalid("its kind is unknown")),
        };
        let (length, count) = (bytes.get_u32() as usize, bytes.get_u32());
        let take = |length: usize, bytes: &mut Bytes| match length <= bytes.len() {
            true => Ok(bytes.split_to(length)),
            false => Err(invalid("it is too short")),
        };
        let json = take(length, &mut bytes)?;
        let mut payloads = Vec::new();
        for _ in 0..count {
            let length = bytes.try_get_u32().map_err(|_| invalid("it is too short"))?;
            payloads.push(take(length as usize, &mut bytes)?);
        }
        Ok(Self { id, kind, json, payloads })
    }
}

fn small(length: usize) -> u32 {
    u32::try_from(length).unwrap_or(u32::MAX)
}

fn invalid(reason: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("a frame cannot be read: {reason}"))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn frame() -> Frame {
        let payloads = vec![Bytes::from_static(b"one"), Bytes::new(), Bytes::from_static(b"three")];
        Frame { id: 7, kind: FrameKind::Answer, json: Bytes::from_static(b"{}"), payloads }
    }

    #[tokio::test]
    async fn frames_are_read_as_they_were_written() {
        let mut bytes = BytesMut::new();
        frame().put(&mut bytes);
        Frame::cancel(8).put(&mut bytes);
        let mut from = &bytes[..];
        assert_eq!(Frame::read(&mut from).await.unwrap(), Some(frame()));
        assert_eq!(Frame::read(&mut from).await.unwrap(), Some(Frame::cancel(8)));
        assert_eq!(Frame::read(&mut from).await.unwrap(), None);
    }

    #[tokio::test]
    async fn bytes_that_are_no_frame_are_refused() {
        let mut bytes = BytesMut::new();
        frame().put(&mut bytes);
        for length in 4..bytes.len() {
            assert!(Frame::read(&mut &bytes[..length]).await.is_err(), "cut at {length}");
        }
        for place in [12, 13, 17, 23] {
            let mut bad = bytes.clone();
            bad[place] = 0xff;
            assert!(Frame::read(&mut &bad[..]).await.is_err(), "changed at {place}");
        }
        bytes[0] = 0xff;
        assert!(Frame::read(&mut &bytes[..]).await.is_err(), "endless");
    }
}
