//! What is done with a message: posted to an application, given to a program, or logged.

pub(crate) mod answer;
mod batch;
pub(crate) mod cloudevents;
pub(crate) mod command;
pub(crate) mod credentials;
pub(crate) mod http;
pub(crate) mod lines;
pub(crate) mod log;
mod outcome;
mod redaction;
pub(crate) mod request;
pub(crate) mod target;
