//! [`Product`]: the process that a dashboard shows.

/// The process that a dashboard shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Product {
    /// A server.
    Server,
    /// A process with workers.
    Worker,
}
