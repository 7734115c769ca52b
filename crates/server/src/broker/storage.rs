//! What is wrong with the store.

/// A part of the store that fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum StoragePart {
    /// Changes cannot be made durable: calls are refused.
    Commits,
    /// The index does not take in what the log has: memory and the time of the next start grow.
    Index,
    /// Messages cannot be read: those of them are set aside, or calls that want them are refused.
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

/// What is wrong with the store now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StorageTrouble {
    /// What fails.
    pub part: StoragePart,
    /// Since when, in milliseconds since the Unix epoch.
    pub since_ms: i64,
    /// Why, as of the last failure; at most 500 bytes. May name files of the data directory.
    pub reason: String,
    /// What can be done about it.
    pub remedy: &'static str,
    /// Whether it is that the disk is full.
    pub is_disk_full: bool,
    /// How many changes were refused for it, those included that the broker tries by itself.
    pub refused: u64,
}
