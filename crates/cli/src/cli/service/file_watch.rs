//! [`FileWatch`]: notices that the content of files has changed.
//!
//! It compares hashes of the contents and not times, so that it does not matter how a file was replaced: written in place, renamed
//! over, deleted and created, or through a symbolic link as Kubernetes replaces ConfigMaps and Secrets.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use dms_protocol::auth::canonical::hex;
use sha2::{Digest, Sha256};
use tokio::{task::spawn_blocking, time::sleep};

/// How often the files are looked at.
const CHECK_INTERVAL: Duration = Duration::from_secs(1);

/// A hash of a file's content; `None` if it cannot be read.
pub(crate) type Content = Option<[u8; 32]>;

/// The content of files when they were last looked at, and when a change was last reported.
#[derive(Debug, Default)]
pub(crate) struct FileWatch {
    seen: Settling,
}

impl FileWatch {
    /// A watch to which these contents are known: they are no change.
    pub(crate) fn knowing(contents: Vec<Content>) -> Self {
        Self { seen: Settling { reported: Some(contents), last: None } }
    }

    /// Notes that these contents were read, so that they are no change.
    pub(crate) fn know(&mut self, contents: Vec<Content>) {
        self.seen.reported = Some(contents);
    }

    /// Waits until one of these files has another content than when a change was last reported, and the same content in two
    /// looks, so that no file is read while it is being written. The first look of a watch that knows nothing reports a change.
    ///
    /// # Cancel safety
    /// A change that was not reported is reported by the next call.
    pub(crate) async fn changed(&mut self, files: Vec<PathBuf>) {
        if files.is_empty() {
            return std::future::pending().await;
        }
        loop {
            sleep(CHECK_INTERVAL).await;
            let files = files.clone();
            let Ok(contents) = spawn_blocking(move || files.iter().map(|file| content(file)).collect()).await else {
                continue;
            };
            if self.seen.look(contents) {
                return;
            }
        }
    }
}

/// Decides which contents are reported.
#[derive(Debug, Default)]
struct Settling {
    reported: Option<Vec<Content>>,
    last: Option<Vec<Content>>,
}

impl Settling {
    /// Returns whether these contents are reported.
    fn look(&mut self, now: Vec<Content>) -> bool {
        let is_settled = self.last.as_ref() == Some(&now);
        let is_new = self.reported.as_ref() != Some(&now);
        if is_settled && is_new {
            self.reported = Some(now.clone());
        }
        self.last = Some(now);
        is_settled && is_new
    }
}

/// The hash of a file's content. A pipe (`-c <(...)`) has none, because it can be read once only, by its reader.
pub(crate) fn content(file: &Path) -> Content {
    std::fs::metadata(file).ok().filter(std::fs::Metadata::is_file)?;
    std::fs::read(file).ok().map(|bytes| Sha256::digest(bytes).into())
}

/// A hash in hexadecimal digits, as `sha256sum` prints it.
pub(crate) fn hexadecimal(content: Content) -> Option<String> {
    content.map(|hash| hex(&hash))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_content_is_reported_once_and_only_when_it_has_settled() {
        let at = |byte: u8| vec![Some([byte; 32])];
        let mut seen = Settling { reported: Some(at(1)), last: None };
        let looks = [
            (at(1), false),
            (at(1), false),
            (at(2), false), // being written
            (at(3), false),
            (at(3), true),
            (at(3), false),
            (vec![None], false), // deleted
            (vec![None], true),
            (vec![None], false),
            (at(3), false),
            (at(3), true), // the same content again, after a report of another one
            (at(4), false),
            (at(3), false), // taken back before it had settled
            (at(3), false),
        ];
        for (number, (content, reported)) in looks.into_iter().enumerate() {
            assert_eq!(seen.look(content), reported, "look {number}");
        }
        let mut knows_nothing = Settling::default();
        assert_eq!(
            [knows_nothing.look(at(1)), knows_nothing.look(at(1)), knows_nothing.look(at(1))],
            [false, true, false]
        );
    }

    #[test]
    fn a_hash_is_printed_as_sha256sum_does() {
        let dir = tempfile::tempdir().unwrap_or_else(|error| panic!("{error}"));
        let file = dir.path().join("config.yaml");
        assert_eq!(hexadecimal(content(&file)), None);
        #[cfg(unix)]
        assert_eq!(content(Path::new("/dev/null")), None, "nothing is read from what is no regular file");
        std::fs::write(&file, "abc").unwrap_or_else(|error| panic!("{error}"));
        let expected = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(hexadecimal(content(&file)).as_deref(), Some(expected));
    }
}
