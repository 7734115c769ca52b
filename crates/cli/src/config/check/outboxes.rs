//! Rules of `outboxes`.

use crate::config::{
    check::{
        checker::Checker,
        key_store::{UnusableStore, database},
    },
    schema::config::Config,
    source::path::KeyPath,
};

/// Whether the databases can be used. They are not connected to.
pub(super) fn check(config: &Config, checker: &mut Checker<'_>) {
    for (place, outbox) in config.outboxes.iter().enumerate() {
        let path = KeyPath::dotted("outboxes").child(place);
        checker.above_zero(&path.child("poll_interval"), outbox.poll_interval);
        let postgres = path.child("postgres");
        match (&outbox.postgres.url, &outbox.postgres.url_file) {
            (None, None) => checker.report(&postgres.child("url"), "is required and missing: set it or url_file"),
            // A file that could not be read was reported.
            (None, Some(_)) => {}
            (Some(_), _) => {
                if let Err(UnusableStore { key, reason, .. }) = database(&outbox.postgres) {
                    checker.report(&postgres.child(key), reason);
                }
            }
        }
    }
}
