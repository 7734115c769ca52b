//! [`acquire_up_to`]: waits for scarce capacity.

use std::time::Duration;

use tokio::{
    sync::Notify,
    time::{Instant, sleep_until},
};

/// How long a poll with little capacity waits for more, because a request for five messages costs as much as one for a
/// single message.
pub(crate) const GATHER_TIME: Duration = Duration::from_millis(5);

/// Waits until `take` succeeds, which is called whenever capacity is `freed`. `take` returns the taken capacity, or the
/// free amount if it is not enough. Its argument is `true` when it should accept any amount, because it has waited
/// [`GATHER_TIME`] since something was free.
///
/// # Cancel safety
/// Cancel-safe if `take` takes nothing unless it succeeds.
pub(crate) async fn acquire_up_to<T>(freed: &Notify, mut take: impl FnMut(bool) -> Result<T, usize>) -> T {
    let mut gathered: Option<Instant> = None;
    loop {
        let freed = freed.notified();
        tokio::pin!(freed);
        // Registered before looking, so that capacity that becomes free between the two is not missed.
        freed.as_mut().enable();
        let free = match take(gathered.is_some_and(|until| until <= Instant::now())) {
            Ok(taken) => return taken,
            Err(free) => free,
        };
        if free == 0 {
            // Another task took what was free, so the time for gathering begins with the next free capacity.
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
