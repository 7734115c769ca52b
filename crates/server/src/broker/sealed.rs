//! [`Sealed`]: keeps other packages from implementing [`Broker`](crate::broker::Broker), so that methods can be added to it.

/// Only the hidden module `internal` shows it to other packages.
pub trait Sealed {}
