//! [`LogControl`]: what the process lets the admin endpoint do to its log.

use std::{fmt, sync::Arc};

/// Changes what is logged, where the process lets that be changed.
#[derive(Clone, Default)]
pub(crate) struct LogControl(pub(crate) Option<Arc<SetLogFilter>>);

/// Takes a filter, or says what is wrong with it.
type SetLogFilter = dyn Fn(&str) -> Result<(), String> + Send + Sync;

impl fmt::Debug for LogControl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("LogControl").field(&self.0.is_some()).finish()
    }
}
