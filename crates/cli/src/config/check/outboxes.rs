//! Rules of `outboxes`.

use crate::config::{
    check::{
        checker::Checker,
        key_store::{UnusableStore, database},
    },
    schema::config::Config,
    source::path::KeyPath,
};
use dms_protocol::limits::{MAX_DEDUPLICATION_WINDOW, MIN_DEDUPLICATION_WINDOW};

/// Whether the databases can be used. They are not connected to.
pub(super) fn check(config: &Config, checker: &mut Checker<'_>) {
    for (place, outbox) in config.outboxes.iter().enumerate() {
        let path = KeyPath::dotted("outboxes").child(place);
        checker.above_zero(&path.child("poll_interval"), outbox.poll_interval);
        let window = outbox.deduplication_window.get();
        if !(MIN_DEDUPLICATION_WINDOW..=MAX_DEDUPLICATION_WINDOW).contains(&window) {
            let text = format!("is {}: 1s to 7d are allowed", outbox.deduplication_window);
            checker.report(&path.child("deduplication_window"), text);
        }
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
