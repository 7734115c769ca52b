//! [`MoreMetrics`]: metrics of the process around the server, in the same exposition.

use std::{fmt, sync::OnceLock};

use crate::metrics::exposition::joined;

/// Returns metrics as OpenMetrics text.
type Encode = dyn Fn() -> String + Send + Sync;

/// Metrics of the process around the server; none by default.
#[derive(Default)]
pub(crate) struct MoreMetrics(OnceLock<Box<Encode>>);

impl MoreMetrics {
    /// Adds metrics. A second call has no effect.
    pub(crate) fn set(&self, encode: Box<Encode>) {
        let _ = self.0.set(encode);
    }

    /// The exposition with these metrics at its end.
    pub(crate) fn append_to(&self, exposition: String) -> String {
        match self.0.get() {
            Some(encode) => joined([exposition, encode()]),
            None => exposition,
        }
    }
}

impl fmt::Debug for MoreMetrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("MoreMetrics").field(&self.0.get().is_some()).finish()
    }
}
