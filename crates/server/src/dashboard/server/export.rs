//! Dead letters as JSON lines, read while they are written.

use std::io;

use axum::body::Bytes;
use futures_util::{Stream, stream};

use crate::{
    broker::{Peeked, Stream as Which},
    dashboard::server::{
        Pages,
        filter::Filter,
        find::Found,
        scan::{Scan, Seen},
    },
};

/// The number of messages of one piece.
const PIECE: usize = 50;

/// The lines of everything that matches. `dms-worker send --file` reads them.
pub(super) fn lines(
    pages: Pages,
    found: Found,
    filter: Filter,
) -> impl Stream<Item = io::Result<Bytes>> + Send + 'static {
    stream::unfold((pages, found, filter, Some(0)), |(pages, found, filter, from)| async move {
        let from = from?;
        let mut piece = Vec::new();
        let mut count = 0;
        let path = found.path();
        let scan = Scan::step(&*pages.app.broker, &path, Which::DeadLetters, from, &filter, |message| {
            line(&message, &mut piece);
            count += 1;
            if count < PIECE { Seen::More } else { Seen::Enough }
        });
        match scan.await {
            Ok(scan) => Some((Ok(Bytes::from(piece)), (pages, found, filter, scan.next))),
            Err(error) => Some((Err(io::Error::other(error)), (pages, found, filter, None))),
        }
    })
}

/// The stored text of a message, which is `{"body":…,"attributes":…}`, with its id and cause.
fn line(message: &Peeked, piece: &mut Vec<u8>) {
    let Some(members) = message.json.strip_suffix(b"}") else { return };
    piece.extend_from_slice(members);
    piece.extend_from_slice(format!(",\"id\":\"{}\",\"entered\":{}", message.id, message.entered_ms).as_bytes());
    if let Some(info) = message.dead_letter.as_deref().and_then(|info| serde_json::to_string(info).ok()) {
        piece.extend_from_slice(b",\"dead_letter\":");
        piece.extend_from_slice(info.as_bytes());
    }
    piece.extend_from_slice(b"}\n");
}
