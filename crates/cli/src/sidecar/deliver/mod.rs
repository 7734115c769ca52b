//! What is done with a message: posted to an application, given to a program, or logged.

pub(crate) mod http;
pub(crate) mod log;
pub(crate) mod program;
mod verdict;
