//! A simulated disk: files and directory entries as they were last synced, and the changes since. After a power cut any part of
//! those changes may be there, in sectors, in any order.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

const SECTOR: usize = 512;

/// A file, independent of its name.
pub(crate) type FileNo = usize;

/// A change of the disk.
#[derive(Clone, Debug)]
pub(crate) enum Done {
    CreateDirectory(PathBuf),
    Create(PathBuf, FileNo),
    Remove(PathBuf),
    Rename(PathBuf, PathBuf),
    Write(FileNo, u64, Vec<u8>),
    SetLen(FileNo, u64),
    Sync(FileNo),
    /// A sync failed: the bytes may be on the disk or not, and a later sync does not write them either.
    SyncFailed(FileNo),
    SyncDirectory(PathBuf),
}

/// The bytes of a file.
#[derive(Clone, Debug, Default)]
struct Bytes {
    synced: Vec<u8>,
    /// The bytes as a process reads them.
    seen: Vec<u8>,
    since: Vec<Since>,
    /// Other possible contents of sectors, because a sync failed.
    doubtful: BTreeMap<usize, Vec<Vec<u8>>>,
}

/// A change since the last sync.
#[derive(Clone, Debug)]
enum Since {
    /// The content of a sector after it.
    Sector(usize, Vec<u8>),
    Length(usize),
}

/// The file or directory with a name.
#[derive(Clone, Copy, Debug)]
enum Entry {
    File(FileNo),
    LogDirectory,
}

/// The entries of a directory.
#[derive(Clone, Debug, Default)]
struct Names {
    synced: BTreeMap<PathBuf, Entry>,
    /// Entries that were created or removed since the last sync. Those of one list change together.
    since: Vec<Vec<(PathBuf, Option<Entry>)>>,
}

/// A disk.
#[derive(Clone, Debug, Default)]
pub(crate) struct Platter {
    files: Vec<Bytes>,
    directories: BTreeMap<PathBuf, Names>,
}

impl Bytes {
    fn write(&mut self, offset: usize, bytes: &[u8]) {
        let end = offset + bytes.len();
        if self.seen.len() < end {
            self.seen.resize(end, 0);
        }
        self.seen[offset..end].copy_from_slice(bytes);
        for sector in offset / SECTOR..end.div_ceil(SECTOR) {
            let content = sector_of(&self.seen, sector).to_vec();
            self.since.push(Since::Sector(sector, content));
        }
    }

    fn set_len(&mut self, length: usize) {
        self.seen.resize(length, 0);
        self.since.push(Since::Length(length));
    }

    fn sync(&mut self) {
        for change in std::mem::take(&mut self.since) {
            if let Since::Sector(sector, content) = change {
                put(&mut self.synced, sector, &content);
                self.doubtful.remove(&sector);
            }
        }
        self.synced.resize(self.seen.len(), 0);
    }

    fn fail(&mut self) {
        for change in std::mem::take(&mut self.since) {
            match change {
                Since::Sector(sector, content) => self.doubtful.entry(sector).or_default().push(content),
                Since::Length(_) => {}
            }
        }
    }

    /// The remains after a power cut.
    fn left(&self, luck: Luck, rng: &mut fastrand::Rng) -> Vec<u8> {
        let mut left = self.synced.clone();
        for (sector, versions) in &self.doubtful {
            if luck.survives(rng) {
                put(&mut left, *sector, rng.choice(versions).unwrap());
            }
        }
        for change in self.since.iter().filter(|_| luck.survives(rng)) {
            match change {
                Since::Sector(sector, content) => put(&mut left, *sector, content),
                Since::Length(length) => left.resize(*length, 0),
            }
        }
        left
    }
}

fn sector_of(bytes: &[u8], sector: usize) -> &[u8] {
    &bytes[sector * SECTOR..bytes.len().min((sector + 1) * SECTOR)]
}

fn put(bytes: &mut Vec<u8>, sector: usize, content: &[u8]) {
    let (begin, end) = (sector * SECTOR, sector * SECTOR + content.len());
    if bytes.len() < end {
        bytes.resize(end, 0);
    }
    bytes[begin..end].copy_from_slice(content);
}

/// The share of the unsynced changes that survives.
#[derive(Clone, Copy, Debug)]
struct Luck(f64);

impl Luck {
    fn any(rng: &mut fastrand::Rng) -> Self {
        Self(*rng.choice(&[0.0, 0.1, 0.5, 0.9, 1.0]).unwrap())
    }

    fn survives(self, rng: &mut fastrand::Rng) -> bool {
        rng.f64() < self.0
    }
}

impl Platter {
    /// A directory, all of it synced, and the files by path.
    pub(crate) fn of(root: &Path) -> (Self, BTreeMap<PathBuf, FileNo>) {
        let (mut platter, mut found) = (Self::default(), BTreeMap::new());
        platter.scan(root, &mut found);
        (platter, found)
    }

    fn scan(&mut self, directory: &Path, found: &mut BTreeMap<PathBuf, FileNo>) {
        let mut names = Names::default();
        for entry in std::fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                self.scan(&path, found);
                names.synced.insert(path, Entry::LogDirectory);
            } else if !path.to_str().unwrap().ends_with("-shm") {
                let bytes = std::fs::read(&path).unwrap();
                self.files.push(Bytes { seen: bytes.clone(), synced: bytes, ..Bytes::default() });
                names.synced.insert(path.clone(), Entry::File(self.files.len() - 1));
                found.insert(path, self.files.len() - 1);
            }
        }
        self.directories.insert(directory.to_owned(), names);
    }

    /// The number of the next new file.
    pub(crate) fn next_file(&self) -> FileNo {
        self.files.len()
    }

    pub(crate) fn take(&mut self, done: &Done) {
        match done {
            Done::CreateDirectory(path) => {
                self.directories.insert(path.clone(), Names::default());
                self.name(path, Some(Entry::LogDirectory));
            }
            Done::Create(path, file) => {
                assert_eq!(*file, self.files.len());
                self.files.push(Bytes::default());
                self.name(path, Some(Entry::File(*file)));
            }
            Done::Remove(path) => self.name(path, None),
            Done::Rename(from, to) => {
                let names = self.directories.get_mut(from.parent().unwrap()).unwrap();
                let mut seen = names.synced.clone();
                names.since.iter().flatten().for_each(|(name, entry)| set(&mut seen, name.clone(), *entry));
                names.since.push(vec![(from.clone(), None), (to.clone(), seen.get(from).copied())]);
            }
            Done::Write(file, offset, bytes) => self.files[*file].write(usize::try_from(*offset).unwrap(), bytes),
            Done::SetLen(file, length) => self.files[*file].set_len(usize::try_from(*length).unwrap()),
            Done::Sync(file) => self.files[*file].sync(),
            Done::SyncFailed(file) => self.files[*file].fail(),
            Done::SyncDirectory(path) => {
                let Some(names) = self.directories.get_mut(path) else { return };
                for (name, entry) in std::mem::take(&mut names.since).into_iter().flatten() {
                    set(&mut names.synced, name, entry);
                }
            }
        }
    }

    fn name(&mut self, path: &Path, entry: Option<Entry>) {
        let names = path.parent().and_then(|parent| self.directories.get_mut(parent));
        names.unwrap().since.push(vec![(path.to_owned(), entry)]);
    }

    /// Writes the remains of `root` after a power cut into an empty directory.
    pub(crate) fn cut(&self, root: &Path, to: &Path, rng: &mut fastrand::Rng) {
        let (names, bytes) = (Luck::any(rng), Luck::any(rng));
        self.cut_directory(root, to, (names, bytes), rng);
    }

    fn cut_directory(&self, from: &Path, to: &Path, luck: (Luck, Luck), rng: &mut fastrand::Rng) {
        let Names { mut synced, since } = self.directories[from].clone();
        for (name, entry) in since.into_iter().filter(|_| luck.0.survives(rng)).flatten() {
            set(&mut synced, name, entry);
        }
        for (path, entry) in synced {
            let to = to.join(path.file_name().unwrap());
            match entry {
                Entry::LogDirectory => {
                    std::fs::create_dir(&to).unwrap();
                    self.cut_directory(&path, &to, luck, rng);
                }
                Entry::File(file) => std::fs::write(to, self.files[file].left(luck.1, rng)).unwrap(),
            }
        }
    }
}

fn set(names: &mut BTreeMap<PathBuf, Entry>, name: PathBuf, entry: Option<Entry>) {
    match entry {
        Some(entry) => drop(names.insert(name, entry)),
        None => drop(names.remove(&name)),
    }
}
