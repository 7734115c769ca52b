//! Entry points of the fuzz targets. Built only with `--cfg fuzzing`.

/// Reads any bytes as the items of a frame of the log, and as a run of messages.
pub fn read_frame(bytes: &[u8]) {
    super::store::disk::read_any(bytes);
}
