//! [`DashboardOptions`]: the settings of a dashboard.

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
}

impl Default for DashboardOptions {
    fn default() -> Self {
        Self { enabled: true, actions: false, base_path: String::new() }
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

    /// The base path without the slash at its end.
    pub(crate) fn base(&self) -> &str {
        self.base_path.strip_suffix('/').unwrap_or(&self.base_path)
    }
}
