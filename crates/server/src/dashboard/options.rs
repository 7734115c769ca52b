//! [`DashboardOptions`]: the settings of a dashboard.

use dms_protocol::trace_context::TraceContext;

/// The settings of the dashboard at an admin address. By default it is served, at `/ui/`.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct DashboardOptions {
    /// Whether it is served; true by default.
    pub enabled: bool,
    /// Whether callers may change something while the admin address has no token; false by default. With a token, those who show
    /// it may, whatever this says.
    pub actions: bool,
    /// The path under which a proxy serves the admin address, such as `/dms`; empty by default.
    pub base_path: String,
    /// The address of a trace in the tracing system, with `{trace_id}` and `{span_id}` in the places of the ids; empty by default.
    pub trace_url: String,
}

impl Default for DashboardOptions {
    fn default() -> Self {
        Self { enabled: true, actions: false, base_path: String::new(), trace_url: String::new() }
    }
}

impl DashboardOptions {
    /// Sets whether it is served; true by default.
    pub fn enabled(mut self, enabled: bool) -> Self {
        self.enabled = enabled;
        self
    }

    /// Sets whether callers may change something while there is no token; false by default.
    pub fn actions(mut self, actions: bool) -> Self {
        self.actions = actions;
        self
    }

    /// Sets the path under which a proxy serves the admin address; none by default.
    pub fn base_path(mut self, base_path: impl Into<String>) -> Self {
        self.base_path = base_path.into();
        self
    }

    /// Sets the address of a trace in the tracing system, such as `https://jaeger.example/trace/{trace_id}`; none by default. It may have
    /// `{span_id}`, too. The page of a message with the attribute `traceparent` has a link to it.
    pub fn trace_url(mut self, trace_url: impl Into<String>) -> Self {
        self.trace_url = trace_url.into();
        self
    }

    /// The address of this trace.
    pub(crate) fn trace(&self, context: &TraceContext) -> Option<String> {
        let template = Some(self.trace_url.as_str()).filter(|template| !template.is_empty())?;
        let address = template.replace("{trace_id}", &format!("{:032x}", context.trace_id()));
        Some(address.replace("{span_id}", &format!("{:016x}", context.span_id())))
    }

    /// The base path without the slash at its end.
    pub(crate) fn base(&self) -> &str {
        self.base_path.strip_suffix('/').unwrap_or(&self.base_path)
    }
}
