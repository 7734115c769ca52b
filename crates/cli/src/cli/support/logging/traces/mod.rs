//! Traces of a process that stays, sent to an OpenTelemetry collector where the environment names one.
//!
//! The variables are defined by the OpenTelemetry specification. Without an endpoint, no traces are recorded and no connection is
//! opened.

#[cfg(feature = "otel")]
mod collector;
mod environment;
#[cfg(feature = "otel")]
mod linked;
#[cfg(feature = "otel")]
mod otlp;

#[cfg(feature = "otel")]
pub(crate) use self::otlp::Traces;

/// A program without the feature `otel`: there are none.
#[cfg(not(feature = "otel"))]
#[derive(Debug)]
pub(crate) struct Traces;

#[cfg(not(feature = "otel"))]
impl Traces {
    pub(crate) fn none() -> Self {
        Self
    }

    pub(crate) fn start() -> Result<Self, crate::cli::support::failure::Failure> {
        Ok(Self)
    }

    pub(crate) fn layer(&self) -> Option<tracing_subscriber::layer::Identity> {
        None
    }

    /// Says once that traces are asked for in vain.
    pub(crate) fn announce(&self) {
        if environment::wanted() {
            tracing::warn!("this program was built without the feature `otel`: there are no traces");
        }
    }

    pub(crate) async fn finish(self) {}
}
