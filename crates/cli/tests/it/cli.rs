//! The `dms-worker` command, through the binary: exit codes, messages, output.

mod alerts;
mod client;
mod contexts;
pub(crate) mod dashboard;
mod data;
mod deploy;
mod deploy_health;
mod dlq;
mod documented;
mod errors;
mod findings;
mod help;
pub(crate) mod hints;
mod keys;
mod log_lines;
mod mqs;
mod online;
mod overview;
mod purge;
mod reload;
mod rotation;
mod schedules;
mod secrets;
mod service;
mod signals;
mod snapshots;
mod terminal;
mod tls;
#[cfg(feature = "otel")]
mod traces;
mod transfer;

use std::{
    io::{BufRead, BufReader},
    path::Path,
    process::{Child, Command, ExitStatus, Stdio},
    sync::mpsc::{Receiver, channel},
};

/// The program in an empty directory, without any environment but what a test adds.
pub(crate) struct Program {
    dir: tempfile::TempDir,
}

impl Program {
    pub(crate) fn new() -> Self {
        Self { dir: tempfile::tempdir().unwrap() }
    }

    pub(crate) fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// A file in the program's directory.
    pub(crate) fn file(&self, name: &str, text: &str) -> String {
        let path = self.dir().join(name);
        std::fs::write(&path, text).unwrap();
        path.display().to_string()
    }

    pub(crate) fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_dms-worker"));
        command.args(args).current_dir(self.dir()).env_clear().env("HOME", self.dir());
        command.env("PATH", std::env::var_os("PATH").unwrap_or_default());
        command
    }

    /// Runs the program to its end.
    pub(crate) fn run(&self, args: &[&str]) -> Output {
        Output::of(assert_cmd::Command::from_std(self.command(args)).output().unwrap())
    }

    /// Runs the program to its end with this text on its standard input.
    pub(crate) fn run_with(&self, args: &[&str], stdin: &str) -> Output {
        Output::of(assert_cmd::Command::from_std(self.command(args)).write_stdin(stdin).output().unwrap())
    }

    /// Starts a program that stays, and waits for its first line on standard error that starts with `dms-worker:`.
    pub(crate) fn start(&self, args: &[&str]) -> Running {
        let mut command = self.command(args);
        Running::start(command.stdin(Stdio::null()).stdout(Stdio::null()))
    }

    /// A server on a free port.
    pub(crate) fn serve(&self, args: &[&str]) -> Running {
        self.start(&[&["serve", "--listen", "127.0.0.1:0"], args].concat())
    }
}

/// What a program left behind.
#[derive(Debug)]
pub(crate) struct Output {
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Output {
    fn of(output: std::process::Output) -> Self {
        Self {
            code: output.status.code(),
            stdout: String::from_utf8(output.stdout).unwrap(),
            stderr: String::from_utf8(output.stderr).unwrap(),
        }
    }

    /// The standard output of a program that succeeded.
    #[track_caller]
    pub(crate) fn ok(self) -> String {
        assert_eq!(self.code, Some(0), "{}", self.stderr);
        self.stdout
    }

    /// The standard output of `receive`, without the ids of the messages, which each of its lines must have.
    #[track_caller]
    pub(crate) fn received(self) -> String {
        let without = |line: &str| {
            let (before, id) = line.split_once(r#","id":""#).unwrap_or_else(|| panic!("{line}"));
            format!("{before}{}\n", &id[25..])
        };
        self.ok().lines().map(without).collect()
    }

    /// The same as JSON.
    #[track_caller]
    pub(crate) fn json(self) -> serde_json::Value {
        serde_json::from_str(&self.ok()).unwrap()
    }

    /// The standard error of a program that failed with this code and left no data.
    #[track_caller]
    pub(crate) fn failed(self, code: i32) -> String {
        assert_eq!((self.code, self.stdout.as_str()), (Some(code), ""), "{}", self.stderr);
        self.stderr
    }
}

/// A program that stays; ended when dropped.
pub(crate) struct Running {
    child: Child,
    /// The first line of its standard error.
    pub(crate) announced: String,
    lines: Receiver<String>,
    log: String,
}

impl Running {
    pub(crate) fn start(command: &mut Command) -> Self {
        let mut child = command.stderr(Stdio::piped()).spawn().unwrap();
        let mut stderr = BufReader::new(child.stderr.take().unwrap());
        let mut announced = String::new();
        while !announced.starts_with("dms-worker:") {
            announced.clear();
            assert!(stderr.read_line(&mut announced).unwrap() > 0, "it ended before it was ready");
        }
        let (sender, lines) = channel();
        // Ends with the program, or with the test.
        std::thread::spawn(move || stderr.lines().map_while(Result::ok).try_for_each(|line| sender.send(line)));
        Self { child, announced, lines, log: String::new() }
    }

    /// Waits for a line of its log that contains this.
    #[track_caller]
    pub(crate) fn until(&mut self, text: &str) {
        while let Ok(line) = self.lines.recv() {
            self.log.push_str(&line);
            self.log.push('\n');
            if line.contains(text) {
                return;
            }
        }
        panic!("it ended without saying {text:?}: {}", self.log);
    }

    /// The first address after this word in its first line.
    #[track_caller]
    pub(crate) fn url(&self, word: &str) -> String {
        let text = self.announced.split_once(word).unwrap_or_else(|| panic!("{}", self.announced)).1;
        let end = text.find([' ', ';', ',', ')', '\n']).unwrap_or(text.len());
        text[..end].to_owned()
    }

    /// The process.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Sends a signal, as `TERM`.
    pub(crate) fn signal(&self, name: &str) {
        let status = Command::new("kill").arg(format!("-{name}")).arg(self.child.id().to_string()).status();
        assert!(status.unwrap().success());
    }

    /// Waits for the end; returns the exit status and its standard error.
    pub(crate) fn wait(mut self) -> (ExitStatus, String) {
        let status = self.child.wait().unwrap();
        let rest: Vec<_> = self.lines.iter().collect();
        (status, std::mem::take(&mut self.log) + &rest.join("\n"))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
