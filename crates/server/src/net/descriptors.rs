//! File descriptors of the process: their limit, and how many of them connections may use.

use std::sync::atomic::{AtomicUsize, Ordering};

use crate::net::limits::ADMIN_CONNECTIONS;

/// The maximum limit that is requested. With a higher one, programs that close all descriptors up to the limit would take long.
#[cfg(unix)]
const MAX_DESCRIPTORS: u64 = 65_536;
/// The connections that count towards the budget, of all listeners of the process.
static TAKEN: AtomicUsize = AtomicUsize::new(0);

/// The descriptors that connections may use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DescriptorBudget {
    /// Connections of the API and of publishers, of all such listeners together.
    pub service: usize,
    /// Connections of one admin address. They have their own budget.
    pub operators: usize,
}

impl DescriptorBudget {
    /// The budget under the current limit.
    pub fn current() -> Self {
        Self::under(soft_limit())
    }

    /// A quarter, at most 512, is reserved for the store, the files of the log, and outgoing connections. Two admin addresses
    /// have a sixteenth each.
    fn under(limit: usize) -> Self {
        let reserve = (limit / 4).min(512);
        let operators = (limit / 16).max(4);
        let apart = operators.min(ADMIN_CONNECTIONS) * 2;
        Self { service: limit.saturating_sub(reserve).saturating_sub(apart).max(1), operators }
    }
}

/// A connection's part of the budget, returned when it is dropped.
#[derive(Debug)]
pub struct DescriptorPermit(());

impl DescriptorPermit {
    /// Takes a part if fewer than `most` are taken.
    pub fn within(most: usize) -> Option<Self> {
        let taken =
            TAKEN.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |taken| (taken < most).then_some(taken + 1));
        taken.is_ok().then_some(Self(()))
    }
}

impl Drop for DescriptorPermit {
    fn drop(&mut self) {
        TAKEN.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Raises the soft limit of open files to the hard limit, at most to 65,536.
#[cfg(unix)]
pub fn raise_limit() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

    let limit = getrlimit(Resource::Nofile);
    let wanted = limit.maximum.map_or(MAX_DESCRIPTORS, |most| most.min(MAX_DESCRIPTORS));
    if limit.current.is_none_or(|current| current >= wanted) {
        return;
    }
    if let Err(error) = setrlimit(Resource::Nofile, Rlimit { current: Some(wanted), maximum: limit.maximum }) {
        tracing::warn!(%error, wanted, "the limit of open files could not be raised; continuing with the current one; set it with `ulimit -n`");
    }
}

/// Does nothing on this system.
#[cfg(not(unix))]
pub fn raise_limit() {}

#[cfg(unix)]
fn soft_limit() -> usize {
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
    limit.and_then(|limit| usize::try_from(limit).ok()).unwrap_or(usize::MAX)
}

#[cfg(not(unix))]
fn soft_limit() -> usize {
    usize::MAX
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_leave_a_reserve() {
        for (limit, service, operators) in [(64, 40, 4), (1024, 640, 64), (20_000, 18_976, 1250)] {
            assert_eq!(DescriptorBudget::under(limit), DescriptorBudget { service, operators }, "{limit}");
        }
        assert!(DescriptorBudget::under(8).service >= 1);
    }
}
