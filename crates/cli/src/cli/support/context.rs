//! [`Context`]: the global options, and what follows from them for each command.

use std::{process::ExitCode, sync::OnceLock};

use serde_json::Value;

use crate::{
    cli::support::{
        failure::{Failure, Kind},
        global_options::{Color, Format, Global},
        logging,
        output::Printer,
        terminal,
    },
    config::{Loaded, Request, load, search},
    sidecar::assemble::connect,
};
use dms_protocol::internal::secret_url::without_secrets;
use dms_worker::client::Client;

/// What a command that ends logs: a client that gives up says so, and the command's own error says the same.
const QUIETLY: &str = "warn,dms_worker::client=off";

/// The global options, and what follows from them.
#[derive(Debug)]
pub(crate) struct Context {
    pub(crate) global: Global,
    colored: bool,
    endpoint: OnceLock<String>,
}

impl Context {
    /// Decides on colours, for this program's own output and clap's alike.
    pub(crate) fn new(global: Global) -> Self {
        match global.color {
            Color::Auto => {}
            Color::Always => anstream::ColorChoice::Always.write_global(),
            Color::Never => anstream::ColorChoice::Never.write_global(),
        }
        Self { global, colored: terminal::has_colors(), endpoint: OnceLock::new() }
    }

    /// As [`say`](Self::say), behind a head of this program's own, which may have styles.
    pub(crate) fn say_styled(&self, head: &str, text: &str) {
        if self.global.output == Format::Text && !self.global.quiet {
            terminal::tell_styled(head, text);
        }
    }

    /// The code that starts a style on standard error, or with `""` ends it; nothing where colours are off.
    pub(crate) fn style(&self, code: &'static str) -> &'static str {
        match (self.colored, code) {
            (false, _) => "",
            (true, "") => "\u{1b}[0m",
            (true, code) => code,
        }
    }

    /// Whether standard error may be written with colours.
    pub(crate) fn colored(&self) -> bool {
        self.colored
    }

    /// Prints results in the format asked for.
    pub(crate) fn printer(&self) -> Printer {
        Printer::new(self.global.output)
    }

    /// Whether progress may be drawn: on a terminal, for a person.
    pub(crate) fn shows_progress(&self) -> bool {
        let dumb = std::env::var_os("TERM").is_some_and(|term| term == "dumb");
        self.global.output == Format::Text && !self.global.quiet && !dumb && terminal::is_watched()
    }

    /// Tells a person something on standard error; programs and `--quiet` are left alone.
    pub(crate) fn say(&self, text: &str) {
        if self.global.output == Format::Text && !self.global.quiet {
            terminal::tell(text);
        }
    }

    /// Tells that a change was made: a person on standard error, a program on standard output.
    pub(crate) fn done(&self, text: &str, json: &Value) -> Result<(), Failure> {
        self.say(text);
        match self.global.output {
            Format::Text => Ok(()),
            Format::Json => Ok(self.printer().json(json)?),
        }
    }

    /// The layers of the configuration, as this command line asks for them; `here`: whether `./config.yaml` is one.
    pub(crate) fn request(&self, here: bool) -> Request {
        let file = self.global.config.clone().or_else(|| search(here));
        let flags = [
            ("--endpoint", "dms.endpoint", &self.global.endpoint),
            ("--project-id", "dms.project_id", &self.global.project_id),
            ("--api-version", "dms.api_version", &self.global.api_version),
        ];
        let request = Request::new().file(file).environment();
        flags.into_iter().fold(request, |request, (flag, key, value)| match value {
            Some(value) => request.flag(flag, key, value),
            None => request,
        })
    }

    /// The configuration for a command that talks to a service; logs are set up for such a command.
    pub(crate) fn load(&self) -> Result<Loaded, Failure> {
        let loaded = load(&self.request(true))?;
        logging::for_command(&self.global, self.colored, QUIETLY);
        remark_on(&loaded);
        Ok(loaded)
    }

    /// A client of the configured service. For an embedded one that is the server of a running `run` or `serve`.
    pub(crate) fn client(&self) -> Result<Client, Failure> {
        let config = self.load()?.config;
        // Set once: a command makes one client.
        let _ = self.endpoint.set(without_secrets(&connect::endpoint(&config)));
        Ok(connect::to_service(&config)?)
    }

    /// The address of the service that the command talked to, if it did.
    pub(crate) fn endpoint(&self) -> Option<&str> {
        self.endpoint.get().map(String::as_str)
    }

    /// Prints a failure on standard error, in the format asked for, and gives its exit code.
    pub(crate) fn report(&self, failure: &Failure) -> ExitCode {
        if failure.kind() != Kind::ClosedPipe {
            match self.global.output {
                Format::Text => self.report_text(failure),
                Format::Json => terminal::tell_json(&failure.to_json().to_string()),
            }
        }
        ExitCode::from(failure.kind().code())
    }

    fn report_text(&self, failure: &Failure) {
        let hint = match (failure.kind(), self.endpoint()) {
            (Kind::Unavailable, Some(endpoint)) if !failure.is_about_certificate() => {
                format!("; is a service running at {endpoint}? (--endpoint names another)")
            }
            _ => String::new(),
        };
        let head = format!("{}error:{} ", self.style(RED), self.style(""));
        terminal::tell_styled(&head, &format!("{failure}{hint}"));
        if self.global.verbose > 0 {
            failure.causes().iter().for_each(|cause| terminal::tell(&format!("  caused by: {cause}")));
        }
    }
}

const RED: &str = "\u{1b}[1;31m";

/// Logs remarks that are not errors: Kubernetes variables that look like settings, and secret files that other users can read.
pub(crate) fn remark_on(loaded: &Loaded) {
    let links = loaded.service_links();
    if !links.is_empty() {
        let variables = links.join(" ");
        tracing::debug!(
            variables,
            "these variables are service links of Kubernetes, not settings; enableServiceLinks: false omits them"
        );
    }
    for file in loaded.exposed_secrets() {
        let file = file.display();
        tracing::warn!(%file, "any user of this machine may read this secret: take the right away with chmod o-rwx");
    }
}
