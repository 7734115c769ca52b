//! The commands, one file or folder each.

pub(crate) mod bench;
pub(crate) mod check;
pub(crate) mod cluster;
pub(crate) mod completions;
pub(crate) mod config;
pub(crate) mod context;
pub(crate) mod data;
pub(crate) mod demo;
pub(crate) mod dlq;
pub(crate) mod group;
pub(crate) mod health;
pub(crate) mod key;
pub(crate) mod man;
pub(crate) mod message;
pub(crate) mod overview;
pub(crate) mod peek;
pub(crate) mod queue;
pub(crate) mod quota;
pub(crate) mod receive;
pub(crate) mod run;
pub(crate) mod schedule;
pub(crate) mod send;
pub(crate) mod serve;
pub(crate) mod stats;
pub(crate) mod tag;
pub(crate) mod top;
