//! A durable server for the DMS queue API, standalone or embedded in a program.
//!
//! [`Server`] serves the API of the DMS queue service: queues with consumer groups, ordered batch acknowledgement, dead letters,
//! labels and delayed messages, with signed requests or tokens. Messages are kept in memory, in a directory or in PostgreSQL. The command
//! `dms-worker serve` of `dms-worker-cli` runs it as a process.
//!
//! # Example
//!
//! A server on a free port, with one project, one queue and one consumer group:
//!
//! ```
//! use std::net::SocketAddr;
//!
//! use dms_server::{Project, Server, ServerConfig, StartQueue, queue::NewQueue};
//!
//! #[tokio::main]
//! async fn main() -> Result<(), Box<dyn std::error::Error>> {
//!     let orders = StartQueue::new(NewQueue::new("orders")).group("billing");
//!     let config = ServerConfig::default()
//!         .listen(SocketAddr::from(([127, 0, 0, 1], 0)))
//!         .projects(vec![Project::new("shop").queue(orders)]);
//!     let server = Server::bind(config).await?;
//!     println!("listening on {}", server.url().unwrap_or_default());
//!     // A program passes the future of its stop signal, such as `tokio::signal::ctrl_c()`.
//!     let shutdown = async {};
//!     server.run(shutdown).await?;
//!     Ok(())
//! }
//! ```
//!
//! [`ServerConfig::data_dir`] keeps the messages on disk. [`Server::service`] is the API without sockets, for tests;
//! `dms_worker::testing` builds on it. [`Server::faults`] injects failures.
//!
//! # Features
//!
//! | feature | adds | default |
//! |---|---|---|
//! | `disk` | messages on disk, in a log with SQLite as its index; without it they are kept in memory and a `data_dir` is refused | yes |
//! | `dashboard` | pages for a browser at the admin address, at `/ui/` | no |
//! | `postgres` | messages in PostgreSQL: several servers on one database, one of which serves at a time | no |
//!
//! # Folders
//!
//! A request passes these folders from top to bottom. Each one uses only the folders below it.
//!
//! | folder | contents |
//! |---|---|
//! | `server` | [`Server`] and its configuration |
//! | `admin` | the admin address: health, metrics, operations on queues |
//! | `dashboard` | pages for a browser at the admin address |
//! | `api` | middleware, admission, the table of routes, the access log |
//! | `handlers` | one file for each resource of the API, and the identity service |
//! | `state` | the parts of a server that all requests share |
//! | [`faults`] | fault injection |
//! | `auth` | authentication and authorization |
//! | `metrics` | counters and their text formats |
//! | `http` | bodies, JSON, queries, paths, errors with their documented codes |
//! | `net` | sockets: accept loop, TLS, deadlines, the limit of connections |
//! | [`broker`] | queues, groups and leases, without HTTP |
//! | `store` | how messages are kept: in memory, on disk or in PostgreSQL |
//!
//! A call of [`Server::service`] enters at `api`. Nothing in this package knows the client or the worker.

pub mod broker;
pub mod clock;
pub mod faults;
#[doc(hidden)]
pub mod internal;
#[doc(hidden)]
pub mod store;

mod admin;
mod api;
mod auth;
#[cfg(feature = "dashboard")]
mod dashboard;
#[cfg(fuzzing)]
#[doc(hidden)]
pub mod fuzzing;
mod handlers;
mod histogram;
mod http;
mod log_limit;
mod metrics;
mod net;
mod server;
mod shared_buffer;
mod state;

#[cfg(feature = "dashboard")]
pub use self::dashboard::options::DashboardOptions;
pub use self::{
    auth::{
        project::{AccessKey, Project, SignatureRules, StartQueue, StartSchedule, User},
        rights::Rights,
    },
    http::operation::Operation,
    net::{
        limits::HttpLimits,
        tls::Tls,
        tls_files::{TlsError, TlsFiles},
    },
    server::{
        Server,
        config::ServerConfig,
        error::ServerError,
        handle::ServerHandle,
        mqs::MqsConfig,
        service::{ApiBody, ApiFuture, ApiService},
    },
};
#[cfg(feature = "postgres")]
pub use self::{
    net::peer_tls::PeerTlsFiles,
    store::postgres::{PostgresConfig, PostgresError},
};
pub use dms_protocol::{queue, secret};
