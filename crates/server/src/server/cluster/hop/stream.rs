//! The stream of a connection between servers, plain or encrypted, from which on each end knows that the other belongs to the cluster.

use std::{io, pin::Pin};

use tokio::{
    io::{AsyncRead, AsyncWrite, split},
    net::TcpStream,
    time::timeout,
};
use tokio_rustls::{
    TlsStream,
    rustls::{ConnectionCommon, pki_types::ServerName},
};

use super::{
    handshake::{self, HANDSHAKE_TIMEOUT, TLS_RECORD, mismatch},
    set_up,
};
use crate::{net::peer_tls::PeerTls, store::postgres::PeerUrl};
use dms_protocol::secret::Secret;

/// The label of the value that binds the proof of the secret to the encrypted connection.
const BINDING: &[u8] = b"EXPORTER-dms-hop";

pub(super) type Incoming = Pin<Box<dyn AsyncRead + Send>>;
pub(super) type Outgoing = Pin<Box<dyn AsyncWrite + Send>>;

/// Connects to a server, encrypted if its URL says so.
///
/// # Errors
/// When it cannot be reached, one of the two is not encrypted, or an end refuses the other.
pub(super) async fn connect(
    url: PeerUrl<'_>,
    secret: &Secret,
    tls: Option<&PeerTls>,
) -> io::Result<(Incoming, Outgoing)> {
    let tls = match (url.is_encrypted, tls) {
        (true, None) => return Err(mismatch("it advertises https://, and server.cluster.tls is not set here")),
        (false, Some(_)) => return Err(mismatch("it advertises http://, and server.cluster.tls is set here")),
        (_, tls) => tls,
    };
    let mut stream = TcpStream::connect(url.authority).await?;
    set_up(&stream)?;
    let Some(tls) = tls else {
        handshake::ask(&mut stream, secret, &[]).await?;
        return Ok(halves(stream));
    };
    let name = ServerName::try_from(tls.files().name(url.host).to_owned()).map_err(io::Error::other)?;
    let mut stream = tls.connector().connect(name, stream).await?;
    let binding = binding(stream.get_ref().1)?;
    handshake::ask(&mut stream, secret, &binding).await?;
    Ok(encrypted(stream.into()))
}

/// Accepts a connection of another server.
///
/// # Errors
/// When one of the two is not encrypted, or an end refuses the other.
pub(super) async fn accept(
    mut stream: TcpStream,
    secret: &Secret,
    tls: Option<&PeerTls>,
) -> io::Result<(Incoming, Outgoing)> {
    set_up(&stream)?;
    let Some(tls) = tls else {
        handshake::answer(&mut stream, secret, &[]).await?;
        return Ok(halves(stream));
    };
    let shake = async {
        let mut first = [0];
        if stream.peek(&mut first).await? == 1 && first[0] != TLS_RECORD {
            return Err(mismatch("the peer does not encrypt"));
        }
        tls.acceptor().accept(stream).await
    };
    let mut stream = timeout(HANDSHAKE_TIMEOUT, shake).await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))?;
    let binding = binding(stream.get_ref().1)?;
    handshake::answer(&mut stream, secret, &binding).await?;
    Ok(encrypted(stream.into()))
}

/// A value that both ends of an encrypted connection know, and that differs if somebody between them passes bytes on.
fn binding<Side>(connection: &ConnectionCommon<Side>) -> io::Result<[u8; 32]> {
    connection.export_keying_material([0; 32], BINDING, None).map_err(io::Error::other)
}

fn halves(stream: TcpStream) -> (Incoming, Outgoing) {
    let (from, to) = stream.into_split();
    (Box::pin(from), Box::pin(to))
}

fn encrypted(stream: TlsStream<TcpStream>) -> (Incoming, Outgoing) {
    let (from, to) = split(stream);
    (Box::pin(from), Box::pin(to))
}

#[cfg(test)]
mod tests;
