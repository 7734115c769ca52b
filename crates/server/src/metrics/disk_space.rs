//! The size of the data directory and the free space of its disk, the latter also as a metric.

use std::{
    fmt,
    path::{Path, PathBuf},
};

use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeMetric},
    metrics::{MetricType, gauge::ConstGauge},
    registry::Registry,
};

/// Asks the file system at each scrape, which reads a number from the kernel for local ones.
#[derive(Debug)]
struct DiskSpace(PathBuf);

/// Registers the metric. A server in memory has none.
pub(crate) fn register(registry: &mut Registry, directory: Option<&Path>) {
    if let Some(directory) = directory {
        registry.register_collector(Box::new(DiskSpace(directory.to_owned())));
    }
}

impl Collector for DiskSpace {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let Some(free) = free(&self.0) else { return Ok(()) };
        let (name, help) = ("dms_server_storage_free_bytes", "What the disk of the data directory has left");
        let gauge = ConstGauge::new(i64::try_from(free).unwrap_or(i64::MAX));
        gauge.encode(encoder.encode_descriptor(name, help, None, MetricType::Gauge)?)
    }
}

/// Without the blocks that are reserved for the superuser.
#[cfg(unix)]
pub(crate) fn free(directory: &Path) -> Option<u64> {
    let system = rustix::fs::statvfs(directory).ok()?;
    Some(system.f_bavail.saturating_mul(system.f_frsize))
}

#[cfg(not(unix))]
pub(crate) fn free(_directory: &Path) -> Option<u64> {
    None
}

/// The size of the files in the data directory.
pub(crate) async fn size(directory: Option<PathBuf>) -> u64 {
    let Some(directory) = directory else { return 0 };
    let size = tokio::task::spawn_blocking(move || bytes_in(&directory)).await;
    size.ok().and_then(Result::ok).unwrap_or(0)
}

fn bytes_in(directory: &Path) -> std::io::Result<u64> {
    let mut bytes = 0;
    for entry in std::fs::read_dir(directory)?.filter_map(Result::ok) {
        // A file that was removed meanwhile has no size.
        let Ok(meta) = entry.metadata() else { continue };
        bytes += if meta.is_dir() { bytes_in(&entry.path())? } else { meta.len() };
    }
    Ok(bytes)
}
