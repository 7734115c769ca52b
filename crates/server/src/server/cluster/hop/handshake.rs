//! The beginning of a connection: each end proves that it knows the secret of the tables, without showing it.

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
/// How long the other end may take.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(3);

type Random = [u8; 32];

/// Begins a connection as the end that asks.
///
/// # Errors
/// When the connection breaks, or the other end does not know the secret.
pub(super) async fn ask(stream: &mut (impl AsyncRead + AsyncWrite + Unpin), secret: &Secret) -> io::Result<()> {
    within(async {
        let own = random()?;
        stream.write_all(&[&HELLO[..], &own].concat()).await?;
        let (mut other, mut proof) = ([0; 32], [0; 32]);
        stream.read_exact(&mut other).await?;
        stream.read_exact(&mut proof).await?;
        check(secret, b"answers", (&own, &other), &proof)?;
        stream.write_all(&prove(secret, b"asks", (&own, &other))?).await
    })
    .await
}

/// Begins a connection as the end that answers.
///
/// # Errors
/// When the connection breaks, or the other end does not know the secret.
pub(super) async fn answer(stream: &mut (impl AsyncRead + AsyncWrite + Unpin), secret: &Secret) -> io::Result<()> {
    within(async {
        let mut hello = [0; 8];
        stream.read_exact(&mut hello).await?;
        if hello != *HELLO {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                "the peer speaks another protocol, or another version",
            ));
        }
        let (own, mut other, mut proof) = (random()?, [0; 32], [0; 32]);
        stream.read_exact(&mut other).await?;
        stream.write_all(&[own, prove(secret, b"answers", (&other, &own))?].concat()).await?;
        stream.read_exact(&mut proof).await?;
        check(secret, b"asks", (&other, &own), &proof)
    })
    .await
}

async fn within(shake: impl Future<Output = io::Result<()>>) -> io::Result<()> {
    timeout(HANDSHAKE_TIMEOUT, shake).await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
}

fn random() -> io::Result<Random> {
    let mut random = [0; 32];
    getrandom::fill(&mut random).map_err(io::Error::other)?;
    Ok(random)
}

/// The label tells the ends apart, so that an answer cannot be a copy of the question.
fn mac(secret: &Secret, label: &[u8], (asks, answers): (&Random, &Random)) -> io::Result<Hmac<Sha256>> {
    let mut mac = Hmac::<Sha256>::new_from_slice(secret.expose().as_bytes()).map_err(io::Error::other)?;
    for part in [&b"dms-hop "[..], label, asks, answers] {
        mac.update(part);
    }
    Ok(mac)
}

fn prove(secret: &Secret, label: &[u8], randoms: (&Random, &Random)) -> io::Result<Random> {
    Ok(mac(secret, label, randoms)?.finalize().into_bytes().into())
}

fn check(secret: &Secret, label: &[u8], randoms: (&Random, &Random), proof: &Random) -> io::Result<()> {
    let refused = |_| io::Error::new(io::ErrorKind::PermissionDenied, "the peer does not belong to this cluster");
    mac(secret, label, randoms)?.verify_slice(proof).map_err(refused)
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn shake(asks: &str, answers: &str) -> (io::Result<()>, io::Result<()>) {
        let (mut one, mut two) = tokio::io::duplex(1024);
        let (asks, answers) = (Secret::from(asks), Secret::from(answers));
        // Each end hangs up when it is done, as a failed connection does.
        let asks = async { ask(&mut one, &asks).await.inspect_err(|_| ()) };
        let answers = async move { answer(&mut two, &answers).await };
        tokio::join!(asks, answers)
    }

    #[tokio::test(start_paused = true)]
    async fn servers_of_one_cluster_know_each_other_and_strangers_do_not() {
        let (asks, answers) = shake("secret", "secret").await;
        assert!(asks.is_ok() && answers.is_ok());
        let (asks, answers) = shake("secret", "another").await;
        assert!(asks.is_err() && answers.is_err());
    }
}
