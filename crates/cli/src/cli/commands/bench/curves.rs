//! [`Curve`]: what a sweep changes, and at which points.

use clap::ValueEnum;
use serde::Serialize;

/// The difference between the costs of a curve's points, in percent of the least, up to which the curve counts as flat.
pub(super) const FLAT_PERCENT: f64 = 10.0;

/// What a sweep changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Curve {
    /// Concurrent requests
    Connections,
    /// Queues that share the load
    Queues,
    /// Consumer groups that each get every message
    Groups,
    /// Messages that wait before the run
    Backlog,
    /// Bytes of a body
    Size,
    /// Workers that share a group
    Workers,
}

impl Curve {
    /// The word for it in options and results.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Connections => "connections",
            Self::Queues => "queues",
            Self::Groups => "groups",
            Self::Backlog => "backlog",
            Self::Size => "size",
            Self::Workers => "workers",
        }
    }

    /// What the values count, for the plot.
    pub(super) fn title(self) -> &'static str {
        match self {
            Self::Connections => "concurrent requests",
            Self::Queues => "queues",
            Self::Groups => "consumer groups",
            Self::Backlog => "messages waiting before",
            Self::Size => "bytes of a body",
            Self::Workers => "workers of a group",
        }
    }

    /// The values up to this one, and at least the first.
    pub(super) fn values(self, up_to: u32) -> Vec<u32> {
        let all: &[u32] = match self {
            Self::Connections => &[1, 4, 16, 64, 256, 1_024],
            Self::Queues => &[1, 10, 100, 1_000, 10_000],
            Self::Groups => &[1, 2, 3],
            Self::Backlog => &[1_000, 10_000, 100_000, 1_000_000, 10_000_000],
            Self::Size => &[100, 1_000, 10_000, 100_000, 500_000],
            Self::Workers => &[1, 2, 4, 8, 16, 32, 64],
        };
        let count = all.iter().filter(|value| **value <= up_to).count();
        all[..count.max(1)].to_vec()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_leaves_out_larger_values_but_never_all() {
        assert_eq!(Curve::Backlog.values(1_000_000).last(), Some(&1_000_000));
        assert_eq!(Curve::Queues.values(10), [1, 10]);
        assert_eq!(Curve::Backlog.values(1), [1_000]);
    }
}
