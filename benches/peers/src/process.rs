//! What the operating system says that processes used.

use std::time::Duration;

/// Clock ticks per second of `/proc/PID/stat`, the same on every Linux.
const TICKS: u64 = 100;

/// What processes used so far.
#[derive(Clone, Copy, Default)]
pub struct Used {
    pub cpu: Duration,
    /// Bytes that went to a disk.
    pub written: u64,
}

impl Used {
    /// Of this process.
    pub fn here() -> Self {
        Self::of("self")
    }

    /// Of all of these processes.
    pub fn by(pids: &[u32]) -> Self {
        let each = pids.iter().map(|pid| Self::of(&pid.to_string()));
        each.fold(Self::default(), |sum, one| Self { cpu: sum.cpu + one.cpu, written: sum.written + one.written })
    }

    fn of(process: &str) -> Self {
        let read = |file: &str| std::fs::read_to_string(format!("/proc/{process}/{file}")).unwrap_or_default();
        let stat = read("stat");
        let times = stat.rsplit_once(')').map_or("", |(_, rest)| rest).split_whitespace().skip(11).take(2);
        let ticks: u64 = times.filter_map(|time| time.parse::<u64>().ok()).sum();
        let io = read("io");
        let written = io.lines().find_map(|line| line.strip_prefix("write_bytes: ")?.parse().ok());
        Self { cpu: Duration::from_millis(ticks * 1000 / TICKS), written: written.unwrap_or(0) }
    }

    /// The usage since then.
    pub fn since(self, before: Self) -> Self {
        Self { cpu: self.cpu.saturating_sub(before.cpu), written: self.written.saturating_sub(before.written) }
    }
}
