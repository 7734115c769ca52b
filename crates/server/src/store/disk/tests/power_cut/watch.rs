//! Records the changes that the stores of this thread, and SQLite for them, make to one directory, and makes some of them fail.

use std::{
    cell::RefCell,
    collections::BTreeMap,
    fs::File,
    io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    rc::Rc,
};

use dms_worker_watched_vfs as vfs;

use crate::store::disk::{
    file_ops::{Op, pread},
    tests::power_cut::platter::{Done, FileNo, Platter},
};

thread_local! {
    static WATCHED: RefCell<Option<Rc<Watched>>> = const { RefCell::new(None) };
}

/// The system writes this number of bytes as a whole or not at all, unless the power is cut.
const PAGE: usize = 4_096;

/// A kind of change that can fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum OpKind {
    /// A change that needs disk space.
    Write,
    Sync,
    Names,
}

/// How a change fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// EIO.
    Failed,
    /// ENOSPC.
    Full,
    /// The process was killed before the change. Its earlier writes may still reach the disk.
    Killed,
}

/// Decides which changes fail, by kind and path.
pub(crate) type Faults = Box<dyn FnMut(OpKind, &Path) -> Option<Fault>>;

struct Watched(RefCell<WatchState>);

struct WatchState {
    root: PathBuf,
    before: Platter,
    names: BTreeMap<PathBuf, FileNo>,
    by_inode: BTreeMap<(u64, u64), FileNo>,
    next: FileNo,
    trace: Vec<Done>,
    faults: Option<Faults>,
}

/// While a value exists, its directory is watched.
pub(crate) struct Watch(Rc<Watched>);

impl Watch {
    /// Watches a directory. Its content counts as synced.
    pub(crate) fn begin(root: &Path) -> Self {
        vfs::install();
        let (before, names) = Platter::of(root);
        let by_inode = names.iter().map(|(path, file)| (inode(&path.metadata().unwrap()), *file)).collect();
        let next = before.next_file();
        let (root, trace, faults) = (root.to_owned(), Vec::new(), None);
        let watched = Rc::new(Watched(RefCell::new(WatchState { root, before, names, by_inode, next, trace, faults })));
        WATCHED.set(Some(watched.clone()));
        vfs::watch(Some(watched.clone()));
        Self(watched)
    }

    /// The number of changes so far.
    pub(crate) fn len(&self) -> usize {
        self.0.0.borrow().trace.len()
    }

    /// Makes changes fail from now on.
    pub(crate) fn fail(&self, faults: Option<Faults>) {
        self.0.0.borrow_mut().faults = faults;
    }

    /// Stops watching. Returns the disk with everything synced, and the changes since then.
    pub(crate) fn end(&self) -> (Platter, Vec<Done>) {
        stop();
        let mut state = self.0.0.borrow_mut();
        (state.before.clone(), std::mem::take(&mut state.trace))
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        stop();
    }
}

fn stop() {
    WATCHED.set(None);
    vfs::watch(None);
}

fn inode(meta: &std::fs::Metadata) -> (u64, u64) {
    (meta.dev(), meta.ino())
}

impl WatchState {
    fn file(&self, file: &File) -> Option<FileNo> {
        self.by_inode.get(&inode(&file.metadata().ok()?)).copied()
    }

    fn begin(&mut self, path: &Path) {
        self.names.insert(path.to_owned(), self.next);
        self.trace.push(Done::Create(path.to_owned(), self.next));
        self.next += 1;
    }

    fn fault(&mut self, kind: OpKind, path: &Path) -> Option<Fault> {
        self.faults.as_mut().and_then(|faults| faults(kind, path))
    }

    fn path_of(&self, file: FileNo) -> PathBuf {
        self.names.iter().find(|(_, named)| **named == file).map(|(path, _)| path.clone()).unwrap_or_default()
    }

    /// The kind of a change, the file, and the record of it.
    fn look(&self, op: Op<'_>) -> Option<(OpKind, PathBuf, Option<Done>)> {
        let found = match op {
            Op::CreateDirectory(path) => (OpKind::Names, path.to_owned(), Some(Done::CreateDirectory(path.to_owned()))),
            Op::Create(path) => (OpKind::Write, path.to_owned(), None),
            Op::Remove(path) => (OpKind::Names, path.to_owned(), Some(Done::Remove(path.to_owned()))),
            Op::Rename(from, to) => (OpKind::Names, to.to_owned(), Some(Done::Rename(from.to_owned(), to.to_owned()))),
            Op::SyncDirectory(path) => (OpKind::Sync, path.to_owned(), Some(Done::SyncDirectory(path.to_owned()))),
            Op::Write(file, bytes, offset) => {
                let no = self.file(file)?;
                (OpKind::Write, self.path_of(no), Some(Done::Write(no, offset, bytes.to_vec())))
            }
            Op::SetLen(file, length) => {
                let no = self.file(file)?;
                (OpKind::Write, self.path_of(no), Some(Done::SetLen(no, length)))
            }
            Op::Sync(file) => {
                let no = self.file(file)?;
                (OpKind::Sync, self.path_of(no), Some(Done::Sync(no)))
            }
        };
        found.1.starts_with(&self.root).then_some(found)
    }

    fn fail_with(&mut self, fault: Fault, op: Op<'_>, done: Option<Done>) {
        match (op, done) {
            (_, Some(Done::Sync(no))) if fault == Fault::Failed => self.trace.push(Done::SyncFailed(no)),
            // As many whole pages as there was space for.
            (Op::Write(file, bytes, offset), Some(Done::Write(no, ..))) => {
                let part = &bytes[..bytes.len() / 2 / PAGE * PAGE];
                pread::write(file, part, offset).unwrap();
                self.trace.push(Done::Write(no, offset, part.to_vec()));
            }
            _ => {}
        }
    }
}

/// Makes a change unless it has to fail.
pub(crate) fn change<T>(op: Op<'_>, make: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
    let watched = WATCHED.try_with(|watched| watched.borrow().clone()).ok().flatten();
    let Some(watched) = watched else { return make() };
    let mut state = watched.0.borrow_mut();
    let Some((kind, path, done)) = state.look(op) else { return make() };
    if let Some(error) = state.fault(kind, &path) {
        state.fail_with(error, op, done);
        return Err(io::Error::from_raw_os_error(if error == Fault::Full { 28 } else { 5 }));
    }
    let made = make()?;
    match done {
        Some(done) => {
            if let Done::Rename(from, to) = &done
                && let Some(file) = state.names.remove(from)
            {
                state.names.insert(to.clone(), file);
            }
            state.trace.push(done);
        }
        None => {
            let meta = path.metadata().unwrap();
            let next = state.next;
            state.by_inode.insert(inode(&meta), next);
            state.begin(&path);
        }
    }
    Ok(made)
}

impl vfs::Observer for Watched {
    fn before(&self, op: vfs::Op<'_>) -> Result<(), vfs::Refusal> {
        let mut state = self.0.borrow_mut();
        let (kind, path) = match op {
            vfs::Op::Create { path } | vfs::Op::Write { path, .. } => (OpKind::Write, path),
            vfs::Op::Truncate { path, .. } | vfs::Op::Delete { path } => (OpKind::Names, path),
            vfs::Op::Sync { path } | vfs::Op::SyncNames { path } => (OpKind::Sync, path),
        };
        if !path.starts_with(&state.root) {
            return Ok(());
        }
        if let Some(error) = state.fault(kind, path) {
            // SQLite's earlier writes may still reach the disk with its next sync, because it does not write them again. The store
            // cannot influence that; the index has checksums for it.
            return Err(if error == Fault::Full { vfs::Refusal::Full } else { vfs::Refusal::Failed });
        }
        let done = match op {
            vfs::Op::Create { path } => {
                state.begin(path);
                return Ok(());
            }
            vfs::Op::Write { offset, bytes, .. } => Done::Write(state.names[path], offset, bytes.to_vec()),
            vfs::Op::Truncate { length, .. } => Done::SetLen(state.names[path], length),
            vfs::Op::Sync { .. } => Done::Sync(state.names[path]),
            vfs::Op::SyncNames { .. } => Done::SyncDirectory(path.parent().unwrap().to_owned()),
            vfs::Op::Delete { .. } => Done::Remove(path.to_owned()),
        };
        state.trace.push(done);
        Ok(())
    }
}
