//! [`LogControl`]: lets the admin endpoint change the log filter.

use std::{fmt, sync::Arc};

/// Changes the log filter, if the process permits it.
#[derive(Clone, Default)]
pub(crate) struct LogControl(pub(crate) Option<Arc<SetLogFilter>>);

/// Applies a filter, or returns the error in it.
type SetLogFilter = dyn Fn(&str) -> Result<(), String> + Send + Sync;

impl fmt::Debug for LogControl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("LogControl").field(&self.0.is_some()).finish()
    }
}
