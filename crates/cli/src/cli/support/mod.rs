//! Code shared by the commands: global options, configuration and client, output, errors, logs.

pub(crate) mod admin_client;
pub(crate) mod confirm;
pub(crate) mod context;
pub(crate) mod contexts;
pub(crate) mod drawing;
pub(crate) mod failure;
pub(crate) mod global_options;
pub(crate) mod logging;
pub(crate) mod output;
pub(crate) mod private_file;
pub(crate) mod probe;
pub(crate) mod progress;
pub(crate) mod quantiles;
pub(crate) mod screen;
pub(crate) mod table;
pub(crate) mod terminal;
