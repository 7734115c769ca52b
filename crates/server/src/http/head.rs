//! The head of a request, apart from the memory that it was read into.

use bytes::{BufMut, Bytes, BytesMut};
use http::{HeaderValue, Uri, request::Parts};

/// Copies the texts of a head into memory of their own. They are parts of the read buffer of the connection, which has 8 KiB and stays
/// in memory as long as they do.
pub(crate) fn copy_out(head: &mut Parts) {
    let values: usize = head.headers.values().map(HeaderValue::len).sum();
    let mut room = BytesMut::with_capacity(values);
    for value in head.headers.values_mut() {
        room.put_slice(value.as_bytes());
        if let Ok(mut copy) = HeaderValue::from_maybe_shared(room.split().freeze()) {
            copy.set_sensitive(value.is_sensitive());
            *value = copy;
        }
    }
    if let Ok(copy) = Uri::from_maybe_shared(Bytes::from(head.uri.to_string())) {
        head.uri = copy;
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use http::Request;

    use super::*;

    #[test]
    fn a_copied_head_is_the_same_and_keeps_nothing_of_the_buffer() {
        for uri in ["/v2/p/queues?time_wait=60&tag=%20", "http://h:1/v2/p?a=b", "*", "/"] {
            let text = [uri.as_bytes(), b"first", b"second", b"\xffthird"].concat();
            let buffer = Bytes::from(text);
            let (mut head, ()) = Request::new(()).into_parts();
            head.uri = Uri::from_maybe_shared(buffer.slice(..uri.len())).unwrap();
            let mut at = uri.len();
            for (name, length) in [("x-one", 5), ("x-two", 6), ("x-two", 6)] {
                let value = HeaderValue::from_maybe_shared(buffer.slice(at..at + length)).unwrap();
                head.headers.append(name, value);
                at += length;
            }
            let (before_uri, before_headers) = (head.uri.to_string(), head.headers.clone());
            copy_out(&mut head);
            assert_eq!((head.uri.to_string(), &head.headers), (before_uri, &before_headers));
            drop(before_headers);
            assert!(buffer.try_into_mut().is_ok(), "the head of {uri} keeps the buffer");
        }
    }
}
