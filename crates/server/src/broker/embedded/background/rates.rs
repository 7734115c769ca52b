//! Samples the totals of all queues and groups, from which their rates are computed, and forgets deduplication keys whose window
//! has ended.

use std::sync::Arc;

use tokio::time::{Instant, sleep};

use crate::broker::embedded::{
    core::Core,
    state::{
        BrokerState,
        rates::{SAMPLE_INTERVAL, Sample},
    },
};

/// Takes samples until the task is aborted.
pub(crate) async fn run(core: Arc<Core>) {
    loop {
        {
            let mut state = core.lock();
            state.sample(Instant::now());
            state.recent_keys.expire(core.clock.now_ms());
        }
        sleep(SAMPLE_INTERVAL).await;
    }
}

impl BrokerState {
    fn sample(&mut self, at: Instant) {
        let entered = self.streams.iter().map(|(number, stream)| (*number, stream.entered())).collect();
        let consumed = self.cursors.iter().map(|(number, cursor)| (*number, cursor.consumed)).collect();
        self.rates.record(Sample { at, entered, consumed });
    }
}
