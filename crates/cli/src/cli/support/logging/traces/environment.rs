//! Whether the environment asks for traces, by the variables of the OpenTelemetry specification.

/// The variables that name a collector, of which the first one wins.
const ENDPOINTS: [&str; 2] = ["OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT"];

/// Whether traces are wanted.
pub(super) fn wanted() -> bool {
    let variable = |name| std::env::var(name).ok().filter(|value| !value.is_empty());
    let disabled = variable("OTEL_SDK_DISABLED").is_some_and(|value| value.eq_ignore_ascii_case("true"));
    let exporter = variable("OTEL_TRACES_EXPORTER").is_none_or(|name| name == "otlp");
    !disabled && exporter && ENDPOINTS.into_iter().any(|name| variable(name).is_some())
}
