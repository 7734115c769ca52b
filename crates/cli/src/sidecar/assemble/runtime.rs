//! The settings of the runtime: the limits that the workers share, and the reaction to a worker that fails.

use crate::{
    config::{self, Config},
    sidecar::running::shared::Shared,
};
use dms_worker::runtime::{LimitError, OnWorkerFailure, Runtime, Sharing};

/// The runtime of a configuration, still without workers.
pub(crate) fn runtime(config: &Config, shared: &Shared) -> Result<Runtime, LimitError> {
    let runtime = Runtime::builder().stop_with(shared.stopping.clone()).shutdown_grace(config.shutdown.grace.get());
    let runtime = runtime.max_in_flight(config.limits.in_flight).max_in_flight_bytes(config.limits.bytes);
    runtime.sharing(sharing(config)).on_worker_failure(on_worker_failure(config)).build()
}

/// How workers share the limits.
pub(crate) fn sharing(config: &Config) -> Sharing {
    match config.limits.sharing {
        config::Sharing::Weighted => Sharing::Weighted,
        config::Sharing::Strict => Sharing::Strict,
    }
}

/// The reaction to a worker that fails.
pub(crate) fn on_worker_failure(config: &Config) -> OnWorkerFailure {
    match config.on_worker_failure {
        config::OnWorkerFailure::Continue => OnWorkerFailure::Retry,
        config::OnWorkerFailure::Stop => OnWorkerFailure::StopAll,
    }
}
