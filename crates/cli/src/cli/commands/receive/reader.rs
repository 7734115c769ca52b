//! [`Reader`]: the process that reads standard output through a pipe.

use std::{fs::File, time::Duration};

use tokio::{task::yield_now, time::sleep};

#[cfg(unix)]
use crate::cli::support::terminal;

/// How many times the pipe is checked without a pause, because a waiting reader takes a line within microseconds.
const SPINS: u32 = 100;
const SHORTEST_PAUSE: Duration = Duration::from_micros(50);
const LONGEST_PAUSE: Duration = Duration::from_millis(20);
/// How often [`Reader::gone`] checks.
const LOOK: Duration = Duration::from_millis(100);

/// The process that reads standard output, if that is a pipe.
///
/// A write to a pipe succeeds before the reader reads it, and the reader may end without reading it, as `head -3` does. For a file or a
/// terminal, everything that was written counts as read.
#[derive(Debug)]
pub(super) struct Reader {
    pipe: Option<File>,
}

impl Reader {
    /// The reader of this process's standard output.
    #[cfg(unix)]
    pub(super) fn of_stdout() -> Self {
        use std::os::unix::fs::FileTypeExt;
        let output = terminal::output().ok();
        Self { pipe: output.filter(|file| file.metadata().is_ok_and(|about| about.file_type().is_fifo())) }
    }

    /// The reader of another pipe.
    #[cfg(all(test, target_os = "linux"))]
    pub(super) fn of_pipe(writer: &std::io::PipeWriter) -> Self {
        let pipe = writer.try_clone().ok().map(|writer| File::from(std::os::fd::OwnedFd::from(writer)));
        Self { pipe }
    }

    /// Where the unread bytes of a pipe are not known, all written lines count as read.
    #[cfg(not(unix))]
    pub(super) fn of_stdout() -> Self {
        Self { pipe: None }
    }

    /// Waits until the reader has read everything that was written. Returns false if it ended before.
    ///
    /// # Cancel safety
    /// Dropping the future has no effect.
    pub(super) async fn has_read(&self) -> bool {
        let Some(pipe) = &self.pipe else { return true };
        let mut pause = SHORTEST_PAUSE;
        for look in 0_u32.. {
            if is_empty(pipe) {
                return true;
            }
            if is_closed(pipe) {
                // It may have read the rest between the two checks.
                return is_empty(pipe);
            }
            if look < SPINS {
                yield_now().await;
            } else {
                sleep(pause).await;
                pause = (pause * 2).min(LONGEST_PAUSE);
            }
        }
        false
    }

    /// Whether the reader has read everything that was written until now.
    pub(super) fn has_read_all(&self) -> bool {
        self.pipe.as_ref().is_none_or(is_empty)
    }

    /// Waits until the reader has ended; forever if standard output is no pipe.
    pub(super) async fn gone(&self) {
        let Some(pipe) = &self.pipe else { return std::future::pending().await };
        while !is_closed(pipe) {
            sleep(LOOK).await;
        }
    }
}

/// Whether the pipe has no unread bytes, or their number is not known.
#[cfg(target_os = "linux")]
fn is_empty(pipe: &File) -> bool {
    rustix::io::ioctl_fionread(pipe).map_or(true, |unread| unread == 0)
}

#[cfg(unix)]
fn is_closed(pipe: &File) -> bool {
    use rustix::event::{PollFd, PollFlags, Timespec, poll};
    let mut polled = [PollFd::new(pipe, PollFlags::empty())];
    let asked = poll(&mut polled, Some(&Timespec::default()));
    asked.is_ok() && polled[0].revents().contains(PollFlags::ERR)
}

/// Elsewhere the number of unread bytes is unknown. macOS reports the bytes that can be read at the writing end, which are always 0.
#[cfg(not(target_os = "linux"))]
fn is_empty(_: &File) -> bool {
    true
}

#[cfg(not(unix))]
fn is_closed(_: &File) -> bool {
    false
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::{
        io::{Read, Write, pipe},
        os::fd::OwnedFd,
    };

    use super::*;

    #[tokio::test]
    async fn a_line_is_read_once_the_pipe_is_empty_and_lost_if_the_reader_ends_before() {
        let (mut end, writer) = pipe().unwrap();
        let mut out = writer.try_clone().unwrap();
        let reader = Reader { pipe: Some(File::from(OwnedFd::from(writer))) };
        assert!(reader.has_read().await);
        out.write_all(b"one\n").unwrap();
        assert!(tokio::time::timeout(Duration::from_millis(30), reader.has_read()).await.is_err());
        end.read_exact(&mut [0; 4]).unwrap();
        assert!(reader.has_read().await);
        out.write_all(b"two\n").unwrap();
        drop(end);
        assert!(!reader.has_read().await, "nobody has read it");
        reader.gone().await;
    }
}
