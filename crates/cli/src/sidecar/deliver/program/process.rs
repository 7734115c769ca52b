//! Child processes: each one leads its own process group, which is killed with it, and none stays a zombie.
//!
//! In its own group, a program does not receive the Ctrl-C that is meant for this process, and can finish its message. When it
//! is killed, its own children are killed too.

use std::{
    collections::BTreeSet,
    convert::Infallible,
    ffi::{OsStr, OsString},
    fs::Metadata,
    io,
    path::Path,
    process::ExitStatus,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::process::{Child, ChildStdin, ChildStdout, Command};

use crate::config::is_secret_variable;

/// The variables that a program does not inherit, because they hold secrets of this process.
///
/// `configured` are the variables that the configuration file takes secrets from.
pub(crate) fn withheld(configured: &BTreeSet<String>) -> Arc<[OsString]> {
    let secret = |name: &OsStr, value: &OsStr| {
        let (name, value) = (name.to_string_lossy(), value.to_string_lossy());
        configured.contains(&*name) || is_secret_variable(&name, &value)
    };
    std::env::vars_os().filter(|(name, value)| secret(name, value)).map(|(name, _)| name).collect()
}

/// Looks for a program as the system does: a path directly, a bare name in `PATH`.
///
/// # Errors
/// Says that it is not there, or cannot be run.
pub(crate) fn find(program: &[String]) -> Result<(), String> {
    let Some(name) = program.first() else { return Err("names no program".to_owned()) };
    if name.contains(std::path::MAIN_SEPARATOR) {
        return match Path::new(name).metadata() {
            Ok(file) if can_run(&file) => Ok(()),
            Ok(_) => Err(format!("`{name}` cannot be run: make it executable (chmod +x)")),
            Err(error) => Err(format!("`{name}` is not there: {error}")),
        };
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found =
        std::env::split_paths(&path).any(|folder| folder.join(name).metadata().is_ok_and(|file| can_run(&file)));
    if found { Ok(()) } else { Err(format!("`{name}` is not in PATH: write where it is, as in ./{name}")) }
}

#[cfg(unix)]
fn can_run(file: &Metadata) -> bool {
    use std::os::unix::fs::PermissionsExt;
    file.is_file() && file.permissions().mode() & 0o111 != 0
}

/// Which files can be run is not for their metadata to say.
#[cfg(not(unix))]
fn can_run(file: &Metadata) -> bool {
    file.is_file()
}

/// The children that somebody waits for. A process has one set of children, so this is no one's state in particular.
static WAITED_FOR: Mutex<BTreeSet<u32>> = Mutex::new(BTreeSet::new());

/// A process that was started. Dropped before it has ended, it is killed with all it has started.
#[derive(Debug)]
pub(crate) struct Program {
    child: Child,
    /// Its id, until it has ended.
    id: Option<u32>,
}

impl Program {
    /// Starts a program.
    ///
    /// # Errors
    /// When the system cannot.
    pub(crate) fn start(command: &mut Command) -> io::Result<Self> {
        #[cfg(unix)]
        command.process_group(0);
        // Under the lock, so that nobody takes it for an orphan before its id is known.
        let mut waited_for = waited_for();
        let child = command.kill_on_drop(true).spawn()?;
        let id = child.id();
        waited_for.extend(id);
        Ok(Self { child, id })
    }

    /// Its standard input and output, where they are pipes and not taken yet.
    pub(crate) fn pipes(&mut self) -> (Option<ChildStdin>, Option<ChildStdout>) {
        (self.child.stdin.take(), self.child.stdout.take())
    }

    /// Waits for its end. Cancel-safe.
    ///
    /// # Errors
    /// When the system lost it.
    pub(crate) async fn ended(&mut self) -> io::Result<ExitStatus> {
        let status = self.child.wait().await;
        self.forget();
        status
    }

    /// Asks it and all it has started to end.
    pub(crate) fn terminate(&self) {
        #[cfg(unix)]
        self.signal(rustix::process::Signal::TERM);
    }

    #[cfg(unix)]
    fn signal(&self, signal: rustix::process::Signal) {
        let id = self.id.and_then(|id| i32::try_from(id).ok()).and_then(rustix::process::Pid::from_raw);
        // It may have ended in this moment.
        let _ = id.map(|id| rustix::process::kill_process_group(id, signal));
    }

    fn forget(&mut self) {
        if let Some(id) = self.id.take() {
            waited_for().remove(&id);
        }
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        #[cfg(unix)]
        self.signal(rustix::process::Signal::KILL);
        self.forget();
    }
}

fn waited_for() -> MutexGuard<'static, BTreeSet<u32>> {
    WAITED_FOR.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Takes in the orphans whose parent this process became: as process 1 of a container, or a subreaper, nobody else does,
/// and they would stay zombies. Never resolves.
///
/// For a program that starts no other processes than this module's: of others it would take the exit codes away.
pub(crate) async fn reap_orphans() -> Infallible {
    #[cfg(target_os = "linux")]
    if adopts_orphans()
        && let Ok(mut signals) = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::child())
    {
        while signals.recv().await.is_some() {
            reap();
        }
    }
    std::future::pending().await
}

#[cfg(target_os = "linux")]
fn adopts_orphans() -> bool {
    rustix::process::getpid().is_init() || rustix::process::child_subreaper().is_ok_and(|reaper| reaper.is_some())
}

#[cfg(target_os = "linux")]
fn reap() {
    use rustix::process::{Pid, WaitOptions, waitpid};
    let waited_for = waited_for();
    // Orphans come to the first thread, whose id is the process's.
    let path = format!("/proc/self/task/{}/children", std::process::id());
    let children = std::fs::read_to_string(path).unwrap_or_default();
    let children = children.split_whitespace().filter_map(|id| id.parse::<u32>().ok());
    for orphan in children.filter(|id| !waited_for.contains(id)) {
        if let Some(orphan) = i32::try_from(orphan).ok().and_then(Pid::from_raw) {
            // One that still runs is left alone.
            let _ = waitpid(Some(orphan), WaitOptions::NOHANG);
        }
    }
}
