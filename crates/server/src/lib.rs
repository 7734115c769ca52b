//! A durable server of the DMS queue API, on its own or within a program: [`Server`].
//!
//! `dms-worker serve` of `dms-worker-cli` runs it; `dms_worker::testing` uses it in memory. The example `embedded_server` of
//! `dms-worker` shows it within a program.
//!
//! # Features
//!
//! | feature | adds | default |
//! |---|---|---|
//! | `disk` | messages on disk, in a log with SQLite as its index; without it they are kept in memory and a `data_dir` is refused | yes |
//!
//! # Layout
//!
//! A request passes these folders from top to bottom; each knows only those below it.
//!
//! | folder | what it does |
//! |---|---|
//! | `server` | [`Server`] and its configuration: puts everything together |
//! | `admin` | the admin address: health, metrics, looking at queues and changing them |
//! | `api` | the pipeline of a request: middleware, admission (body and caller), faults, the route to its handler |
//! | `handlers` | one file for each resource of the API, and the identity service |
//! | `state` | what all requests share |
//! | [`faults`] | faults on purpose, for tests |
//! | `auth` | who a request comes from, and what that caller may do |
//! | `metrics` | counters, and the texts that scrapers read |
//! | `http` | what requests and answers are made of: bodies, JSON, queries, paths, errors with their documented codes |
//! | `net` | sockets: the accept loop, TLS, deadlines, and who gives up a connection when all are taken |
//! | [`broker`] | queues, groups, leases: what a DMS server does, without HTTP |
//! | `store` | how messages are kept: in memory or on disk |
//!
//! Callers in the same process enter at `api` and skip the sockets. Nothing here knows the client or the worker.

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
mod state;

pub use self::{
    auth::{
        project::{AccessKey, Project, SignatureRules, StartQueue, User},
        rights::Rights,
    },
    http::operation::Operation,
    net::{
        limits::HttpLimits,
        tls::{Tls, TlsError, TlsFiles},
    },
    server::{
        Server,
        callers::Callers,
        config::ServerConfig,
        error::ServerError,
        service::{ApiBody, ApiFuture, ApiService},
    },
};
