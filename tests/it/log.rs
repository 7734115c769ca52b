//! The log of the code under test, as text.

use std::{
    io::{self, Write},
    sync::{Arc, Mutex},
};

use tracing::subscriber::DefaultGuard;
use tracing_subscriber::{Layer, filter::LevelFilter, fmt, layer::SubscriberExt};

/// The lines logged on this thread, down to TRACE.
#[derive(Clone, Default)]
pub(crate) struct Log(Arc<Mutex<Vec<u8>>>);

impl Log {
    /// Captures until the guard is dropped.
    pub(crate) fn capture() -> (Self, (DefaultGuard, tracing::Dispatch)) {
        let log = Self::default();
        // While there is one subscriber only, a call site that another test's thread meets first asks that thread's,
        // which is none.
        let second = tracing::Dispatch::new(tracing_subscriber::registry());
        let writer = log.clone();
        let lines = fmt::layer().with_ansi(false).with_writer(move || writer.clone()).with_filter(LevelFilter::TRACE);
        let guard = tracing::subscriber::set_default(tracing_subscriber::registry().with(lines));
        (log, (guard, second))
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.0.lock().unwrap()).into_owned()
    }
}

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
