//! Waiting for places of which there are few: for enough of them, but not for long once there are some.

use std::time::Duration;

use tokio::{
    sync::Notify,
    time::{Instant, sleep_until},
};

/// How long a poll waits for a few more free places before it goes out for fewer: one request for five messages costs as much
/// as one for a single message.
pub(crate) const GATHER_TIME: Duration = Duration::from_millis(5);

/// Takes places whenever some are `freed`: `take` gives what it took, or how many are free that are not enough. It is told when it
/// has to be content with any.
///
/// Cancel-safe if `take` takes nothing unless it succeeds.
pub(crate) async fn acquire_up_to<T>(freed: &Notify, mut take: impl FnMut(bool) -> Result<T, usize>) -> T {
    let mut gathered: Option<Instant> = None;
    loop {
        let freed = freed.notified();
        tokio::pin!(freed);
        freed.as_mut().enable();
        let free = match take(gathered.is_some_and(|until| until <= Instant::now())) {
            Ok(taken) => return taken,
            Err(free) => free,
        };
        if free == 0 {
            gathered = None;
            freed.await;
        } else {
            let until = *gathered.get_or_insert_with(|| Instant::now() + GATHER_TIME);
            tokio::select! {
                () = freed => {}
                () = sleep_until(until) => {}
            }
        }
    }
}
