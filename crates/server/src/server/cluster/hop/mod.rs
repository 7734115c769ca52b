//! Calls between the servers of a cluster: one TCP connection from each server to each other one, with many calls on it.
//!
//! Both ends prove that they know the secret of the tables before anything else is read. With certificates the connection is encrypted,
//! and each end checks that of the other first.
//!
//! | file | contents |
//! |---|---|
//! | `frame` | the bytes on the connection |
//! | `stream` | a connection, plain or encrypted |
//! | `handshake` | the proof |
//! | `refusal` | the errors of a broker as values |
//! | `client` | the end that asks |
//! | `server` | the end that owns shards and answers |

pub(super) mod client;
mod frame;
mod handshake;
mod refusal;
pub(super) mod server;
mod stream;

use std::{io, time::Duration};

use rustix::net::sockopt::{set_socket_keepalive, set_tcp_keepcnt, set_tcp_keepidle, set_tcp_keepintvl};
use serde::{Deserialize, Serialize};
use tokio::net::TcpStream;

use self::refusal::Refusal;
use super::call::{Call, Reply};

/// How long a silent connection is left alone before the other end is asked whether it is still there.
const KEEPALIVE: Duration = Duration::from_secs(5);

/// Sets the options of a connection. Keepalives detect a peer that is gone without having closed it. Calls are sent without delay,
/// because they are small and a client waits for each of them.
fn set_up(stream: &TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    set_socket_keepalive(stream, true)?;
    set_tcp_keepidle(stream, KEEPALIVE)?;
    set_tcp_keepintvl(stream, KEEPALIVE)?;
    set_tcp_keepcnt(stream, 3)?;
    Ok(())
}

/// A request on the connection: a call for a shard.
#[derive(Debug, Serialize, Deserialize)]
struct CallRequest {
    shard: i32,
    call: Call,
}

/// The response to a [`CallRequest`].
#[derive(Debug, Serialize, Deserialize)]
enum CallResponse {
    Done(Reply),
    /// The server does not own the shard. Nothing was done.
    Moved,
    /// The broker refused, or failed.
    Refused(Refusal),
}
