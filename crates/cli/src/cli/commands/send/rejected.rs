//! [`Rejected`]: a file of the lines that were refused, to be mended and sent again.

use std::{
    fs::{self, File},
    io::{self, Write},
    path::{Path, PathBuf},
};

use crate::cli::support::failure::{ExitKind, Failure};
use dms_protocol::internal::private;

/// The lines that were refused, as they were read.
#[derive(Debug)]
pub(crate) struct Rejected {
    file: File,
    path: PathBuf,
    lines: u64,
}

impl Rejected {
    /// A new file, or, in a run that is `resumed`, one that may be there already. It must not be the `input`, which would grow by it.
    ///
    /// # Errors
    /// When it is there, or cannot be made.
    pub(crate) fn open(path: &Path, input: Option<&Path>, resumed: bool) -> Result<Self, Failure> {
        let file = private::append(path, resumed).map_err(|error| match error.kind() {
            io::ErrorKind::AlreadyExists => Failure::of(
                ExitKind::Usage,
                format!("{} is there already: name another file for --rejected", path.display()),
            ),
            _ => Failure::unwritable(path, &error),
        })?;
        let same = input.is_some_and(|input| fs::canonicalize(input).ok() == fs::canonicalize(path).ok());
        if same {
            return Err(Failure::of(ExitKind::Usage, "--rejected names the file that is sent: name another one"));
        }
        Ok(Self { file, path: path.to_owned(), lines: 0 })
    }

    /// Adds a line.
    ///
    /// # Errors
    /// When it cannot be written.
    pub(crate) fn add(&mut self, line: &[u8]) -> Result<(), Failure> {
        let whole = [line.trim_ascii_end(), b"\n"].concat();
        // On the disk before the journal may say that this line is settled: it would be in neither.
        let written = self.file.write_all(&whole).and_then(|()| self.file.sync_data());
        written.map_err(|error| Failure::unwritable(&self.path, &error))?;
        self.lines += 1;
        Ok(())
    }

    /// Where the lines are, once they are on the disk; `None` where there are none, and then there is no file either.
    ///
    /// # Errors
    /// When they cannot be written.
    pub(crate) fn finish(self) -> Result<Option<PathBuf>, Failure> {
        let failed = |error: io::Error| Failure::unwritable(&self.path, &error);
        if self.file.metadata().map_err(failed)?.len() == 0 {
            fs::remove_file(&self.path).map_err(failed)?;
            return Ok(None);
        }
        self.file.sync_all().map_err(failed)?;
        Ok((self.lines > 0).then_some(self.path))
    }
}
