//! The beginning of a connection: each end proves that it knows the secret of the tables, without showing it. On an encrypted
//! connection the proof is bound to that connection, so that nobody in between can pass it on.

use std::io;

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    time::{Duration, timeout},
};

use dms_protocol::secret::Secret;

/// The first bytes of a connection, with the version of the protocol.
const HELLO: &[u8; 8] = b"DMSHOP1\n";
/// The first byte of a connection that begins with TLS.
pub(super) const TLS_RECORD: u8 = 0x16;
/// How long the other end may take.
pub(super) const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(3);

type Nonce = [u8; 32];

/// Begins a connection as the end that asks.
///
/// # Errors
/// When the connection breaks, or the other end does not know the secret.
pub(super) async fn ask(
    stream: &mut (impl AsyncRead + AsyncWrite + Unpin),
    secret: &Secret,
    binding: &[u8],
) -> io::Result<()> {
    within(async {
        let own = nonce()?;
        stream.write_all(&[&HELLO[..], &own].concat()).await?;
        stream.flush().await?;
        let (mut other, mut proof) = ([0; 32], [0; 32]);
        stream.read_exact(&mut other).await?;
        stream.read_exact(&mut proof).await?;
        check(secret, &[b"answers", &own, &other, binding], &proof)?;
        stream.write_all(&prove(secret, &[b"asks", &own, &other, binding])?).await?;
        stream.flush().await
    })
    .await
}

/// Begins a connection as the end that answers.
///
/// # Errors
/// When the connection breaks, or the other end does not know the secret.
pub(super) async fn answer(
    stream: &mut (impl AsyncRead + AsyncWrite + Unpin),
    secret: &Secret,
    binding: &[u8],
) -> io::Result<()> {
    within(async {
        let mut hello = [0; 8];
        stream.read_exact(&mut hello).await?;
        if hello[0] == TLS_RECORD {
            return Err(mismatch("the peer encrypts"));
        }
        if hello != *HELLO {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                "the peer speaks another protocol, or another version",
            ));
        }
        let (own, mut other, mut proof) = (nonce()?, [0; 32], [0; 32]);
        stream.read_exact(&mut other).await?;
        stream.write_all(&[own, prove(secret, &[b"answers", &other, &own, binding])?].concat()).await?;
        stream.flush().await?;
        stream.read_exact(&mut proof).await?;
        check(secret, &[b"asks", &other, &own, binding], &proof)
    })
    .await
}

/// The servers are set up differently.
pub(super) fn mismatch(what: &str) -> io::Error {
    let text = format!("{what}: set server.cluster.tls at every server, or at none");
    io::Error::new(io::ErrorKind::InvalidInput, text)
}

async fn within(shake: impl Future<Output = io::Result<()>>) -> io::Result<()> {
    timeout(HANDSHAKE_TIMEOUT, shake).await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
}

fn nonce() -> io::Result<Nonce> {
    let mut nonce = [0; 32];
    getrandom::fill(&mut nonce).map_err(io::Error::other)?;
    Ok(nonce)
}

/// The first part tells the ends apart, so that an answer cannot be a copy of the question. All parts but the last have one length for
/// each end.
fn mac(secret: &Secret, parts: &[&[u8]]) -> io::Result<Hmac<Sha256>> {
    let mut mac = Hmac::<Sha256>::new_from_slice(secret.expose().as_bytes()).map_err(io::Error::other)?;
    mac.update(b"dms-hop ");
    for part in parts {
        mac.update(part);
    }
    Ok(mac)
}

fn prove(secret: &Secret, parts: &[&[u8]]) -> io::Result<Nonce> {
    Ok(mac(secret, parts)?.finalize().into_bytes().into())
}

fn check(secret: &Secret, parts: &[&[u8]], proof: &Nonce) -> io::Result<()> {
    let refused = |_| io::Error::new(io::ErrorKind::PermissionDenied, "the peer does not belong to this cluster");
    mac(secret, parts)?.verify_slice(proof).map_err(refused)
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn shake(asks: (&str, &[u8]), answers: (&str, &[u8])) -> (io::Result<()>, io::Result<()>) {
        let (mut one, mut two) = tokio::io::duplex(1024);
        let ((asks, asks_on), (answers, answers_on)) = (asks, answers);
        let (asks, answers) = (Secret::from(asks), Secret::from(answers));
        // Each end hangs up when it is done, as a failed connection does.
        let asks = async { ask(&mut one, &asks, asks_on).await.inspect_err(|_| ()) };
        let answers = async move { answer(&mut two, &answers, answers_on).await };
        tokio::join!(asks, answers)
    }

    #[tokio::test(start_paused = true)]
    async fn servers_of_one_cluster_know_each_other_and_strangers_do_not() {
        let (asks, answers) = shake(("secret", b"1"), ("secret", b"1")).await;
        assert!(asks.is_ok() && answers.is_ok());
        let (asks, answers) = shake(("secret", b"1"), ("another", b"1")).await;
        assert!(asks.is_err() && answers.is_err());
        let (asks, answers) = shake(("secret", b"1"), ("secret", b"2")).await;
        assert!(asks.is_err() && answers.is_err(), "somebody between them passes bytes on");
    }
}
