//! What a client and a server of the DMS queue API share; nothing in here does any I/O.
//!
//! The crates [`dms-worker`](https://docs.rs/dms-worker) (client, workers, producers) and
//! [`dms-server`](https://docs.rs/dms-server) are built on it, and show what of it their users need.
//!
//! | module | what it holds |
//! |---|---|
//! | [`queue`], [`message`], [`attributes`], [`trace_context`] | the nouns: queues, groups, messages, traces; plain values |
//! | [`limits`] | the service's limits and their checks, one set for both ends |
//! | [`auth`] | the AK/SK signature: what is signed, how, and how it is checked |
//! | [`json`] | one grammar of JSON, which passes texts on byte for byte and names the place of a fault |
//! | [`text`] | texts that people hand in: byte order marks, other encodings |
//! | [`secret`] | a secret key, password or token, which no log shows |
//! | [`secret_url`] | URLs that may hold secrets, and are shown without them |
//! | [`visible`] | foreign text as it is shown, without what a terminal would obey |
//! | [`private`] | files and directories for one user alone |
//! | [`current`] | a value that is replaced while others read it |
//! | [`clock`] | the wall clock |

pub mod attributes;
pub mod auth;
pub mod clock;
pub mod current;
pub mod json;
pub mod limits;
pub mod message;
pub mod private;
pub mod queue;
pub mod secret;
pub mod secret_url;
pub mod text;
pub mod trace_context;
pub mod visible;
