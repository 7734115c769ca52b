//! The trace exporter: OTLP over HTTP, on a separate thread.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use opentelemetry::trace::TracerProvider;
use opentelemetry_otlp::{SpanExporter, WithExportConfig, WithHttpConfig};
use opentelemetry_sdk::{
    Resource,
    error::OTelSdkResult,
    trace::{SdkTracerProvider, SpanData},
};
use reqwest::{blocking::Client, redirect::Policy};
use tracing::{Metadata, Subscriber};
use tracing_subscriber::{Layer, filter::filter_fn, registry::LookupSpan};

use crate::cli::support::{
    failure::{ExitKind, Failure},
    logging::traces::{collector::Collector, environment::wanted, linked::link},
};
use dms_protocol::internal::secret_url::without_secrets;

/// How long the last spans may take to be sent when the process ends.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(5);
/// The longest that a batch may take where `OTEL_EXPORTER_OTLP_TIMEOUT` says nothing.
const TIMEOUT: Duration = Duration::from_secs(10);

/// The traces of this process, if a collector is named.
#[derive(Debug)]
pub(crate) struct Traces(Option<SdkTracerProvider>);

impl Traces {
    /// A process without any.
    pub(crate) fn none() -> Self {
        Self(None)
    }

    /// Sets up the exporter; nothing is connected yet.
    ///
    /// # Errors
    /// When the variables are malformed.
    pub(crate) fn start() -> Result<Self, Failure> {
        if !wanted() {
            return Ok(Self(None));
        }
        let malformed = |error: String| {
            Failure::of(ExitKind::Config, format!("traces: {error}; see the variables OTEL_EXPORTER_OTLP_…"))
        };
        let client = protocol().and_then(|()| client()).map_err(malformed)?;
        let mut exporter = SpanExporter::builder().with_http().with_http_client(client);
        if let Some(Collector { endpoint, headers }) = Collector::with_user(|name| std::env::var(name).ok()) {
            exporter = exporter.with_endpoint(endpoint).with_headers(headers);
        }
        let exporter = exporter.build();
        let exporter = Exporter {
            inner: exporter.map_err(|error| malformed(without_secrets(&error.to_string())))?,
            failing: AtomicBool::new(false),
        };
        let provider = SdkTracerProvider::builder().with_batch_exporter(exporter).with_resource(resource()).build();
        Ok(Self(Some(provider)))
    }

    /// What makes traces of the spans of this program.
    pub(crate) fn layer<S>(&self) -> Option<impl Layer<S> + Send + Sync + use<S>>
    where
        S: Subscriber + for<'span> LookupSpan<'span> + Send + Sync,
    {
        let ours = |metadata: &Metadata<'_>| metadata.is_span() && metadata.target().starts_with("dms_worker");
        let tracer = self.0.as_ref()?.tracer("dms-worker");
        let layer = tracing_opentelemetry::layer().with_tracer(tracer).with_location(false).with_threads(false);
        Some(layer.with_filter(filter_fn(ours)))
    }

    /// Says once that there are traces.
    pub(crate) fn announce(&self) {
        if self.0.is_some() {
            tracing::info!("traces are sent to an OpenTelemetry collector");
        }
    }

    /// Sends the remaining spans.
    pub(crate) async fn finish(self) {
        let Some(provider) = self.0 else { return };
        // It waits for its thread, which this one must not.
        let ended = tokio::task::spawn_blocking(move || provider.shutdown_with_timeout(FLUSH_TIMEOUT)).await;
        if let Ok(Err(error)) = ended {
            tracing::warn!(error = without_secrets(&error.to_string()), "the last traces are lost");
        }
    }
}

/// Whether the collector is to be spoken to as this program can.
fn protocol() -> Result<(), String> {
    const SUPPORTED: &str = "http/protobuf";
    for name in ["OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL"] {
        match std::env::var(name) {
            Ok(value) if !value.is_empty() && value != SUPPORTED => {
                return Err(format!("{name} is `{value}`: only {SUPPORTED} is spoken"));
            }
            _ => {}
        }
    }
    Ok(())
}

/// A client that talks to the collector and follows it nowhere.
fn client() -> Result<Client, String> {
    let millis = std::env::var("OTEL_EXPORTER_OTLP_TIMEOUT").ok().and_then(|text| text.trim().parse().ok());
    let timeout = millis.map_or(TIMEOUT, Duration::from_millis);
    let build = move || Client::builder().redirect(Policy::none()).referer(false).timeout(timeout).build();
    // The blocking client starts its own runtime, so it must not be created inside another one.
    let built = std::thread::spawn(build).join();
    built.map_err(|_| "the HTTP client cannot be set up".to_owned())?.map_err(|error| error.to_string())
}

/// Who sends the traces: as `OTEL_SERVICE_NAME` and `OTEL_RESOURCE_ATTRIBUTES` have it.
fn resource() -> Resource {
    let set = |name| std::env::var(name).is_ok_and(|value: String| !value.is_empty());
    let named = std::env::var("OTEL_RESOURCE_ATTRIBUTES").is_ok_and(|list| list.contains("service.name="));
    let builder = Resource::builder();
    if set("OTEL_SERVICE_NAME") || named { builder.build() } else { builder.with_service_name("dms-worker").build() }
}

/// Sends spans, with the links to the traces of their messages, and says when that fails.
#[derive(Debug)]
struct Exporter {
    inner: SpanExporter,
    failing: AtomicBool,
}

impl opentelemetry_sdk::trace::SpanExporter for Exporter {
    async fn export(&self, mut batch: Vec<SpanData>) -> OTelSdkResult {
        batch.iter_mut().for_each(link);
        let result = self.inner.export(batch).await;
        match (&result, self.failing.swap(result.is_err(), Ordering::Relaxed)) {
            (Err(error), false) => {
                tracing::warn!(error = without_secrets(&error.to_string()), "traces cannot be sent and are lost")
            }
            (Ok(()), true) => tracing::info!("traces are sent again"),
            _ => {}
        }
        result
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.inner.shutdown_with_timeout(timeout)
    }

    fn force_flush(&self) -> OTelSdkResult {
        self.inner.force_flush()
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.inner.set_resource(resource);
    }
}
