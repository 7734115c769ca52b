//! Rules that the types do not express: ranges, required keys, and settings that exclude or need each other.
//!
//! All rules look at the merged values, so that a value from the environment is judged like one from a file, and its
//! message names the variable.

pub(crate) mod checker;
mod credentials;
mod dms;
pub(crate) mod key_store;
mod listeners;
mod mqs;
mod outboxes;
mod server;
mod server_keys;
mod workers;

use crate::config::{
    check::checker::Checker,
    schema::{config::Config, dms::Dialect},
};

/// Finds everything that cannot work.
pub(crate) fn check(config: &Config, checker: &mut Checker<'_>) {
    credentials::check(checker);
    dms::check(config, checker);
    if config.dms.dialect == Dialect::Mqs {
        mqs::check(config, checker);
    }
    server::check(config, checker);
    workers::check(config, checker);
    outboxes::check(config, checker);
    listeners::check(config, checker);
}
