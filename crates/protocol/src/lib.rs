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
//! | [`message_places`] | where a message is, as the server of this project answers it |
//! | [`limits`] | the limits of the API and their checks, the same for client and server |
//! | [`settings`] | the error that names every setting of a worker or a server that cannot work |
//! | [`auth`] | the AK/SK signature of requests |
//! | [`secret`] | a secret key, password or token, which no log shows |

pub mod attributes;
pub mod auth;
pub mod limits;
pub mod message;
pub mod message_places;
pub mod queue;
pub mod secret;
pub mod settings;
pub mod trace_context;

#[doc(hidden)]
pub mod internal;
