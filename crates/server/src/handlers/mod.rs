//! The handlers: one file for each resource of the API, and the identity service.
//!
//! A handler takes an [`ApiRequest`](request::ApiRequest), whose caller is authenticated and authorized, and returns an answer
//! or an [`ApiError`](crate::http::error::ApiError). `api/router.rs` has the table of them.

pub(crate) mod ack;
pub(crate) mod attributes;
pub(crate) mod consume;
mod copies;
pub(crate) mod end_polls;
pub(crate) mod extensions;
pub(crate) mod groups;
pub(crate) mod iam;
pub(crate) mod message;
pub(crate) mod mqs;
pub(crate) mod overview;
pub(crate) mod peek;
pub(crate) mod queues;
pub(crate) mod quotas;
pub(crate) mod request;
pub(crate) mod send;
pub(crate) mod send_body;
pub(crate) mod tag_search;
pub(crate) mod tags;
