//! A PostgreSQL server of a test's own: in a directory that goes with it, behind a socket in that directory.
//!
//! Tests are skipped with a line that says so where PostgreSQL is not installed, unless `DMS_REQUIRE_POSTGRES=1`.

use std::{
    fs,
    io::{self, Read, Write},
    os::unix::{fs::chown, process::CommandExt},
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    sync::OnceLock,
    thread::sleep,
    time::{Duration, Instant},
};

/// How long the server may take to start or stop.
const PATIENCE: Duration = Duration::from_secs(60);

/// What a test server is set to. Durability stays as it is for users: the store refuses a server without it.
const SETTINGS: &str = "listen_addresses = ''\nmax_connections = 200\nshared_buffers = 32MB\nmax_wal_senders = 4\n\
                        autovacuum_naptime = 5s\nlog_min_messages = warning\n";

/// A running server. It ends with this value, or with the process.
#[derive(Debug)]
pub struct PgServer {
    dir: PathBuf,
    bin: PathBuf,
    /// Waits for the end of its input, then stops the server and deletes the directory.
    guard: Child,
}

impl PgServer {
    /// The server that all tests of this process share; `None` where PostgreSQL is not installed.
    pub fn shared() -> Option<&'static Self> {
        static SHARED: OnceLock<Option<PgServer>> = OnceLock::new();
        SHARED.get_or_init(|| Self::start("")).as_ref()
    }

    /// A server with further lines in its `postgresql.conf`; `None` where PostgreSQL is not installed.
    ///
    /// # Panics
    /// When it does not start, or it is missing and `DMS_REQUIRE_POSTGRES=1`.
    pub fn start(settings: &str) -> Option<Self> {
        let Some(bin) = find_programs() else {
            let is_required = std::env::var_os("DMS_REQUIRE_POSTGRES").is_some_and(|value| value == "1");
            assert!(!is_required, "DMS_REQUIRE_POSTGRES=1, and PostgreSQL is not installed");
            eprintln!("skipped: PostgreSQL is not installed (apt-get install postgresql)");
            return None;
        };
        let started = Self::start_in(&bin, settings);
        Some(started.unwrap_or_else(|error| panic!("PostgreSQL of {}: {error}", bin.display())))
    }

    fn start_in(bin: &Path, settings: &str) -> io::Result<Self> {
        // In memory where that is possible: a test is not to wait for this machine's disk.
        let memory = Path::new("/dev/shm");
        let within = if memory.is_dir() { memory.to_owned() } else { std::env::temp_dir() };
        let dir = tempfile::Builder::new().prefix("dms-pg-").tempdir_in(within)?.keep();
        let user = user();
        if let Some((uid, gid)) = user {
            chown(&dir, Some(uid), Some(gid))?;
        }
        let data = dir.join("data");
        let mut initdb = Command::new(bin.join("initdb"));
        initdb
            .args(["--no-sync", "--auth=trust", "--encoding=UTF8", "--locale=C", "--username=postgres", "-D"])
            .arg(&data);
        check(&as_user(&mut initdb, user, &dir).output()?)?;
        let mut conf = fs::OpenOptions::new().append(true).open(data.join("postgresql.conf"))?;
        write!(conf, "{SETTINGS}unix_socket_directories = '{}'\n{settings}\n", dir.display())?;
        let script = "\"$0/postgres\" -D \"$1/data\" >\"$1/log\" 2>&1 & read -r _; kill -CONT $!; kill -QUIT $!; wait; cd /; rm -rf \"$1\"";
        let mut guard = Command::new("/bin/sh");
        guard.args(["-c", script]).arg(bin).arg(&dir).stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
        let guard = as_user(&mut guard, user, &dir).spawn()?;
        let server = Self { dir, bin: bin.to_owned(), guard };
        server.await_ready()?;
        Ok(server)
    }

    fn await_ready(&self) -> io::Result<()> {
        let began = Instant::now();
        while self.psql("postgres", "SELECT 1").is_err() {
            if began.elapsed() > PATIENCE {
                return Err(io::Error::other(self.log()));
            }
            sleep(Duration::from_millis(50));
        }
        Ok(())
    }

    /// What the server has logged.
    pub fn log(&self) -> String {
        fs::read_to_string(self.dir.join("log")).unwrap_or_default()
    }

    /// The directory of its socket.
    pub fn socket_dir(&self) -> &Path {
        &self.dir
    }

    /// The file of its socket.
    pub fn socket(&self) -> PathBuf {
        self.dir.join(".s.PGSQL.5432")
    }

    /// A connection string.
    pub fn url(&self) -> String {
        format!("host={} user=postgres dbname=postgres", self.dir.display())
    }

    /// Runs SQL as the superuser, and returns the first column of each row.
    ///
    /// # Errors
    /// What the server said.
    pub fn psql(&self, database: &str, sql: &str) -> io::Result<Vec<String>> {
        let mut psql = Command::new(self.bin.join("psql"));
        psql.args(["-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-U", "postgres", "-d", database, "-c", sql]);
        let said = check(&psql.arg("-h").arg(&self.dir).env("PGCONNECT_TIMEOUT", "5").output()?)?;
        Ok(said.lines().map(str::to_owned).collect())
    }

    /// The process of the server, and those that it started.
    pub fn processes(&self) -> Vec<u32> {
        let mut text = String::new();
        let read =
            fs::File::open(self.dir.join("data/postmaster.pid")).and_then(|mut file| file.read_to_string(&mut text));
        let main: Option<u32> = read.ok().and_then(|_| text.lines().next()?.trim().parse().ok());
        let Some(main) = main else { return Vec::new() };
        let children = fs::read_to_string(format!("/proc/{main}/task/{main}/children")).unwrap_or_default();
        std::iter::once(main).chain(children.split_whitespace().filter_map(|pid| pid.parse().ok())).collect()
    }

    /// Sends a signal, as `STOP` or `CONT`, to all processes of the server.
    pub fn signal(&self, signal: &str) {
        for process in self.processes() {
            // One that has ended meanwhile needs none.
            let _ = Command::new("kill").args(["-s", signal, &process.to_string()]).stderr(Stdio::null()).status();
        }
    }
}

impl Drop for PgServer {
    fn drop(&mut self) {
        // Closes the guard's input, which then stops the server.
        drop(self.guard.stdin.take());
        let _ = self.guard.wait();
        let _ = fs::remove_dir_all(&self.dir);
    }
}

fn find_programs() -> Option<PathBuf> {
    let mut found: Vec<(u32, PathBuf)> = fs::read_dir("/usr/lib/postgresql")
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| Some((entry.file_name().to_str()?.parse().ok()?, entry.path().join("bin"))))
        .filter(|(_, bin)| bin.join("initdb").exists() && bin.join("postgres").exists())
        .collect();
    found.sort();
    found.pop().map(|(_, bin)| bin)
}

/// The user that the server runs as, where this process is root: PostgreSQL refuses to run as root.
fn user() -> Option<(u32, u32)> {
    let is_root = fs::metadata("/proc/self").is_ok_and(|own| std::os::unix::fs::MetadataExt::uid(&own) == 0);
    let users = fs::read_to_string("/etc/passwd").ok().filter(|_| is_root)?;
    let line = users.lines().find(|line| line.starts_with("postgres:"))?;
    let mut fields = line.split(':').skip(2).map(str::parse);
    Some((fields.next()?.ok()?, fields.next()?.ok()?))
}

fn as_user<'a>(command: &'a mut Command, user: Option<(u32, u32)>, dir: &Path) -> &'a mut Command {
    if let Some((uid, gid)) = user {
        command.uid(uid).gid(gid);
    }
    command.current_dir(dir).env_remove("PGDATA").env_remove("PGHOST").env_remove("PGPORT")
}

fn check(output: &Output) -> io::Result<String> {
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    Err(io::Error::other(String::from_utf8_lossy(&output.stderr).into_owned()))
}
