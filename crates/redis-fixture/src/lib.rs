//! A Redis server of a test's own, in a directory that is deleted with it.
//!
//! Where Redis is not installed, a line says that the test is skipped, unless `DMS_REQUIRE_REDIS=1`.

use std::{
    io::{self, Read, Write},
    net::{Ipv4Addr, TcpListener, TcpStream},
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::OnceLock,
    thread::sleep,
    time::{Duration, Instant},
};

/// The time that the server may take to start.
const START_TIMEOUT: Duration = Duration::from_secs(30);

/// A running server, without persistence. It ends with this value, or with the process.
#[derive(Debug)]
pub struct RedisServer {
    dir: PathBuf,
    /// The port for TLS.
    tls_port: Option<u16>,
    /// Waits for the end of its input, then stops the server and deletes the directory.
    guard: Child,
}

impl RedisServer {
    /// The server that all tests of this process share; `None` where Redis is not installed.
    pub fn shared() -> Option<&'static Self> {
        static SHARED: OnceLock<Option<RedisServer>> = OnceLock::new();
        SHARED.get_or_init(Self::start).as_ref()
    }

    /// A server behind a socket; `None` where Redis is not installed.
    ///
    /// # Panics
    /// If it does not start, or it is missing and `DMS_REQUIRE_REDIS=1`.
    pub fn start() -> Option<Self> {
        Self::with(None)
    }

    /// A server behind a socket and, encrypted, on a port of 127.0.0.1.
    ///
    /// # Panics
    /// As [`start`](Self::start).
    pub fn with_tls(certificate: &Path, key: &Path) -> Option<Self> {
        Self::with(Some((certificate, key)))
    }

    fn with(tls: Option<(&Path, &Path)>) -> Option<Self> {
        if Command::new("redis-server").arg("--version").output().is_err() {
            let is_required = std::env::var_os("DMS_REQUIRE_REDIS").is_some_and(|value| value == "1");
            assert!(!is_required, "DMS_REQUIRE_REDIS=1, and Redis is not installed");
            eprintln!("skipped: Redis is not installed (apt-get install redis-server)");
            return None;
        }
        Some(Self::spawn(tls).unwrap_or_else(|error| panic!("Redis: {error}")))
    }

    fn spawn(tls: Option<(&Path, &Path)>) -> io::Result<Self> {
        let dir = tempfile::Builder::new().prefix("dms-redis-").tempdir()?.keep();
        let mut options = vec!["--port".to_owned(), "0".to_owned(), "--save".to_owned(), String::new()];
        options.extend(["--unixsocket".to_owned(), dir.join("redis.sock").display().to_string()]);
        options.extend(["--dir".to_owned(), dir.display().to_string()]);
        let mut tls_port = None;
        if let Some((certificate, key)) = tls {
            // Free a moment ago: the server itself cannot choose a port.
            let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port();
            options.extend(["--bind", "127.0.0.1", "--tls-auth-clients", "no"].map(str::to_owned));
            options.extend(["--tls-port".to_owned(), port.to_string()]);
            options.extend(["--tls-cert-file".to_owned(), certificate.display().to_string()]);
            options.extend(["--tls-key-file".to_owned(), key.display().to_string()]);
            tls_port = Some(port);
        }
        let script = "dir=$0; redis-server \"$@\" >\"$dir/log\" 2>&1 & read -r _; kill -CONT $!; kill -KILL $!; wait; cd /; rm -rf \"$dir\"";
        let mut guard = Command::new("/bin/sh");
        guard.args(["-c", script]).arg(&dir).args(options);
        let guard = guard.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null()).spawn()?;
        let server = Self { dir, tls_port, guard };
        server.await_ready()?;
        Ok(server)
    }

    fn await_ready(&self) -> io::Result<()> {
        let began = Instant::now();
        while self.command("PING").is_err() || self.tls_port.is_some_and(|port| !is_open(port)) {
            if began.elapsed() > START_TIMEOUT {
                return Err(io::Error::other(std::fs::read_to_string(self.dir.join("log")).unwrap_or_default()));
            }
            sleep(Duration::from_millis(20));
        }
        Ok(())
    }

    /// The URL of its socket.
    pub fn url(&self) -> String {
        format!("redis+unix://{}", self.dir.join("redis.sock").display())
    }

    /// The URL of its encrypted port, if it has one.
    pub fn tls_url(&self) -> Option<String> {
        self.tls_port.map(|port| format!("rediss://127.0.0.1:{port}"))
    }

    /// Runs a command without arguments that contain spaces, and returns the first bytes of the reply.
    ///
    /// # Errors
    /// If the server cannot be reached.
    pub fn command(&self, command: &str) -> io::Result<String> {
        let mut stream = UnixStream::connect(self.dir.join("redis.sock"))?;
        stream.set_read_timeout(Some(Duration::from_secs(5)))?;
        write!(stream, "{command}\r\n")?;
        let mut reply = [0; 4096];
        let length = stream.read(&mut reply)?;
        Ok(String::from_utf8_lossy(&reply[..length]).into_owned())
    }
}

fn is_open(port: u16) -> bool {
    TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_ok()
}

impl Drop for RedisServer {
    fn drop(&mut self) {
        // Closes the guard's input, which then stops the server.
        drop(self.guard.stdin.take());
        let _ = self.guard.wait();
        let _ = std::fs::remove_dir_all(&self.dir);
    }
}
