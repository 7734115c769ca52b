//! The types that clients and servers of the DMS queue API share. This package does no network I/O.
//!
//! Programs usually depend on [`dms-worker`](https://docs.rs/dms-worker) (client, workers, producers) or
//! [`dms-server`](https://docs.rs/dms-server), which re-export the types that their users need.
//!
//! ```
//! use std::time::Duration;
//! use dms_protocol::{limits, message::{Body, Message}};
//!
//! let message = Message::new(Body::raw(r#"{"id": 7, "price": 1.10}"#)?)
//!     .attribute("shop", "north")
//!     .tag("urgent")
//!     .delay(Duration::from_secs(60));
//! assert_eq!(message.body.as_str(), r#"{"id": 7, "price": 1.10}"#); // kept byte for byte
//! assert!(limits::labels(&message.tags).is_ok());
//! # Ok::<(), serde_json::Error>(())
//! ```
//!
//! | module | content |
//! |---|---|
//! | [`queue`], [`message`], [`attributes`], [`trace_context`] | queues, groups, messages and traces, as plain values |
//! | [`limits`] | the limits of the API and their checks, the same for client and server |
//! | [`auth`] | the AK/SK signature of requests |
//! | [`json`] | a JSON grammar that keeps texts byte for byte and reports where a fault is |
//! | [`text`] | reading text files: byte order marks, other encodings |
//! | [`secret`] | a secret key, password or token, which no log shows |
//! | [`secret_url`] | URLs that may contain secrets, and are shown without them |
//! | [`visible`] | text of others, shown without terminal control sequences |
//! | [`private`] | files and directories that only their user may read |
//! | [`current`] | a value that is replaced while others read it |
//! | [`clock`] | the wall clock |

pub mod attributes;
pub mod auth;
pub mod clock;
pub mod current;
#[doc(hidden)]
pub mod file_lock;
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
