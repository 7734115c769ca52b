//! [`StorageTrouble`]: a failure of the store, as it is reported.

/// A part of the store that fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum StoragePart {
    /// Changes cannot be made durable, so calls are refused.
    Commits,
    /// The index does not take in the log, so memory and the time of the next start grow.
    Index,
    /// Messages cannot be read. They are set aside, or calls that need them are refused.
    Reads,
}

impl StoragePart {
    /// `commits`, `index` or `reads`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Commits => "commits",
            Self::Index => "index",
            Self::Reads => "reads",
        }
    }
}

/// A failure of the store that lasts.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct StorageTrouble {
    /// The part that fails.
    pub part: StoragePart,
    /// When it began, in milliseconds since the Unix epoch.
    pub since_ms: i64,
    /// The reason of the last failed call, at most 500 bytes. It may name files of the data directory.
    pub reason: String,
    /// The remedy, as a sentence for operators.
    pub remedy: &'static str,
    /// Whether the disk is full.
    pub is_disk_full: bool,
    /// The number of changes that were refused, including changes that the broker itself tried.
    pub refused: u64,
}
