//! [`Context`]: the global options, and what follows from them for each command.

use std::{process::ExitCode, sync::OnceLock};

use serde_json::Value;

use crate::{
    cli::support::{
        contexts::Contexts,
        failure::{ExitKind, Failure},
        global_options::{Color, Format, Global},
        logging,
        output::Printer,
        terminal,
    },
    config::{self, Config, Loaded, Request, ServerAuth, load, search},
    sidecar::assemble::connect,
};
use dms_protocol::internal::secret_url::without_secrets;
use dms_worker::{Dialect, client::Client};

/// What a command that ends logs: a client that gives up says so, and the command's own error says the same.
/// That a client was asked for something unsafe or useless is said nowhere else.
const QUIETLY: &str = "warn,dms_worker::client=off,dms_worker::client::builder=warn";

/// The refusal of a project over ROMA Connect MQS.
pub(crate) const NO_PROJECTS: &str = "ROMA Connect MQS has no projects: leave out the project id";

/// A context that was chosen for a command.
#[derive(Debug)]
pub(crate) struct Chosen {
    pub(crate) name: String,
    /// Whether `--context` names it. Its settings then override variables, too.
    by_flag: bool,
}

/// The global options, and what follows from them.
#[derive(Debug)]
pub(crate) struct Context {
    pub(crate) global: Global,
    colored: bool,
    service: OnceLock<(String, config::Dialect)>,
}

impl Context {
    /// Decides on colours, for this program's own output and clap's alike.
    pub(crate) fn new(global: Global) -> Self {
        match global.color {
            Color::Auto => {}
            Color::Always => anstream::ColorChoice::Always.write_global(),
            Color::Never => anstream::ColorChoice::Never.write_global(),
        }
        Self { global, colored: terminal::has_colors(), service: OnceLock::new() }
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
        self.flags(Request::new().file(file).environment())
    }

    fn flags(&self, request: Request) -> Request {
        let flags = [
            ("--endpoint", "dms.endpoint", &self.global.endpoint),
            ("--project-id", "dms.project_id", &self.global.project_id),
            ("--api-version", "dms.api_version", &self.global.api_version),
            ("--dialect", "dms.dialect", &self.global.dialect),
        ];
        flags.into_iter().fold(request, |request, (flag, key, value)| match value {
            Some(value) => request.flag(flag, key, value),
            None => request,
        })
    }

    /// The dialect that `--dialect` asks for, for commands that start a server of their own.
    ///
    /// # Errors
    /// When there is no such dialect.
    pub(crate) fn dialect_flag(&self) -> Result<Dialect, Failure> {
        match self.global.dialect.as_deref() {
            None | Some("dms") => Ok(Dialect::Dms),
            Some("mqs") => Ok(Dialect::Mqs),
            Some(other) => {
                Err(Failure::of(ExitKind::Usage, format!("--dialect: `{other}` is not allowed: write dms or mqs")))
            }
        }
    }

    /// The configuration for a command that checks or shows it; logs are set up for such a command.
    pub(crate) fn load(&self) -> Result<Loaded, Failure> {
        let loaded = load(&self.request(true))?;
        self.log(&loaded);
        Ok(loaded)
    }

    /// The configuration for a command that talks to a service, with the context in use.
    pub(crate) fn load_service(&self) -> Result<Loaded, Failure> {
        self.load_by(&self.client_request()?)
    }

    fn load_by(&self, request: &Request) -> Result<Loaded, Failure> {
        let mut loaded = load(request)?;
        self.log(&loaded);
        adopt_project(&mut loaded);
        Ok(loaded)
    }

    fn log(&self, loaded: &Loaded) {
        logging::for_command(&self.global, self.colored, QUIETLY);
        remark_on(loaded);
    }

    /// As [`request`](Self::request), with the context in use. A context stands for a whole configuration: it takes the place of a file
    /// that nobody named, and credentials of such a file never go to the context's service.
    fn client_request(&self) -> Result<Request, Failure> {
        let Some(Chosen { name, by_flag }) = self.chosen_context()? else { return Ok(self.request(true)) };
        let saved = Contexts::read()?.get(&name)?.clone();
        let file = self.global.config.clone().or_else(|| saved.config.clone());
        let mut request = Request::new().file(file).environment();
        if by_flag && saved.has_credentials() {
            // Two kinds of credentials would be a mistake.
            request = request.without_variables("DMS_WORKER_DMS__AUTH__");
        }
        let add = |request: Request, (key, value)| match by_flag {
            true => request.flag(&format!("--context {name}"), key, value),
            false => request.context(&name, key, value),
        };
        Ok(self.flags(saved.settings().into_iter().fold(request, add)))
    }

    /// The context in use. Options come before variables, and a file that is named before the current context.
    pub(crate) fn chosen_context(&self) -> Result<Option<Chosen>, Failure> {
        if let Some(name) = self.global.context.clone().filter(|name| !name.is_empty()) {
            return Ok(Some(Chosen { name, by_flag: true }));
        }
        if self.global.config.is_some() {
            return Ok(None);
        }
        let variable = |name| std::env::var(name).ok().filter(|value| !value.is_empty());
        let name = match (variable("DMS_WORKER_CONTEXT"), variable("DMS_WORKER_CONFIG")) {
            (Some(name), _) => Some(name),
            (None, Some(_)) => None,
            (None, None) => Contexts::read()?.current,
        };
        Ok(name.map(|name| Chosen { name, by_flag: false }))
    }

    /// A client of the configured service. For an embedded one that is the server of a running `run` or `serve`.
    pub(crate) fn client(&self) -> Result<Client, Failure> {
        self.client_by(&self.client_request()?)
    }

    /// A client of the service that the named file has. Variables with keys of `dms` say where this command takes messages from, so
    /// they are not for a second service.
    pub(crate) fn client_of_file(&self) -> Result<Client, Failure> {
        self.client_by(&self.request(false).without_variables("DMS_WORKER_DMS__"))
    }

    fn client_by(&self, request: &Request) -> Result<Client, Failure> {
        let config = self.load_by(request)?.config;
        if config.dms.dialect == config::Dialect::Mqs && self.global.project_id.is_some() {
            return Err(Failure::of(ExitKind::Usage, NO_PROJECTS));
        }
        // Set once: a command makes one client.
        let _ = self.service.set((without_secrets(&connect::endpoint(&config)), config.dms.dialect));
        connect::to_service(&config).map_err(|error| Failure::of(ExitKind::Config, error.to_string()).because(error))
    }

    /// The address of the service that the command talked to, if it did.
    pub(crate) fn endpoint(&self) -> Option<&str> {
        self.service.get().map(|(endpoint, _)| endpoint.as_str())
    }

    /// Prints a failure on standard error, in the format asked for, and gives its exit code.
    pub(crate) fn report(&self, failure: &Failure) -> ExitCode {
        if failure.kind() != ExitKind::ClosedPipe {
            match self.global.output {
                Format::Text => self.report_text(failure),
                Format::Json => terminal::tell_json(&failure.to_json().to_string()),
            }
        }
        ExitCode::from(failure.kind().code())
    }

    fn report_text(&self, failure: &Failure) {
        let hint = match (failure.kind(), self.service.get()) {
            (_, Some((endpoint, config::Dialect::Dms))) if failure.is_foreign() => {
                format!("; is {endpoint} the address of a DMS service, and not of its admin address or another server?")
            }
            (_, Some((endpoint, config::Dialect::Mqs))) if failure.is_foreign() => {
                format!(
                    "; is {endpoint} the address of ROMA Connect MQS, and not of a DMS service (--dialect dms) or another server?"
                )
            }
            (ExitKind::Unavailable, Some((endpoint, _))) if !failure.is_about_tls() => {
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

/// The project of a client of the default endpoint that names none: from the vendor's variables, or else, with the configuration of
/// a server, the first project that has a key where the server's own has none.
pub(crate) fn adopt_project(loaded: &mut Loaded) {
    if !loaded.config.dms.is_embedded() || loaded.is_set("dms.project_id") || loaded.is_set("server.project_id") {
        return;
    }
    let Config { dms, server, .. } = &mut loaded.config;
    let has_key = |auth: &Option<ServerAuth>| auth.as_ref().is_some_and(|auth| auth.keys().next().is_some());
    if has_key(&server.auth) {
        return;
    }
    let keyed = server.projects.iter().find(|project| has_key(&project.auth)).map(|project| project.id.clone());
    let vendor = || std::env::var("HUAWEICLOUD_SDK_PROJECT_ID").ok().filter(|project| !project.is_empty());
    if let Some(project) = keyed.or_else(vendor) {
        dms.project_id = project;
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
