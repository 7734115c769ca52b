//! The resources that a process used, read from `/proc` on Linux.

use std::{fs, time::Duration};

/// One process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Process {
    /// This one.
    Own,
    /// Another one on this machine.
    Other(u32),
}

/// The resources that a process used so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Usage {
    /// CPU time of all its threads, in steps of 10 ms.
    pub(super) cpu: Duration,
    /// The most memory it ever had, in bytes.
    pub(super) peak_bytes: u64,
    /// The bytes written to the disk.
    pub(super) written_bytes: u64,
}

impl Process {
    /// The usage so far; `None` if the system does not report it, or there is no such process.
    pub(super) fn usage(self) -> Option<Usage> {
        let read = |file| match self {
            Self::Own => fs::read_to_string(format!("/proc/self/{file}")).ok(),
            Self::Other(pid) => fs::read_to_string(format!("/proc/{pid}/{file}")).ok(),
        };
        Some(Usage {
            cpu: Duration::from_millis(ticks(&read("stat")?)? * 10),
            peak_bytes: field(&read("status")?, "VmHWM:")? * 1024,
            written_bytes: field(&read("io")?, "write_bytes:")?,
        })
    }
}

/// User and system time of a line of `/proc/PID/stat`, in hundredths of a second. The name in parentheses may have blanks and
/// parentheses in it.
fn ticks(stat: &str) -> Option<u64> {
    let (_, fields) = stat.rsplit_once(')')?;
    let mut times = fields.split_whitespace().skip(11);
    Some(times.next()?.parse::<u64>().ok()? + times.next()?.parse::<u64>().ok()?)
}

/// The number behind a name that begins a line.
fn field(text: &str, name: &str) -> Option<u64> {
    text.lines().find_map(|line| line.strip_prefix(name)?.split_whitespace().next()?.parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cpu_time_is_read_whatever_the_program_is_called() {
        let line = "42 (a (b) c) S 1 42 42 0 -1 4194304 100 0 0 0 250 75 0 0 20 0 4 0 1000 0 0";
        assert_eq!(ticks(line), Some(325));
        assert_eq!(ticks("garbage"), None);
    }

    #[test]
    fn fields_are_found_by_their_names() {
        assert_eq!(field("VmPeak:\t  9 kB\nVmHWM:\t  1234 kB\n", "VmHWM:"), Some(1234));
        assert_eq!(field("cancelled_write_bytes: 7\nwrite_bytes: 8\n", "write_bytes:"), Some(8));
        assert_eq!(field("", "write_bytes:"), None);
    }
}
