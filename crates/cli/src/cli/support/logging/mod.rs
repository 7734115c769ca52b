//! Logs of the process, always to standard error.

mod fields;
pub(crate) mod traces;

use tracing_subscriber::{EnvFilter, Layer, Registry, fmt, layer::SubscriberExt, reload, util::SubscriberInitExt};

use crate::{
    cli::support::{
        failure::{ExitKind, Failure},
        global_options::Global,
        logging::{fields::LogFields, traces::Traces},
        terminal,
    },
    config::{Log, LogFormat},
};

/// Libraries that log as an error what this program reports itself; a filter that names them wins.
const QUIET: &str = "rustls=off";

/// Sets up the log of a short-lived command, with the filter `usual` unless `-v`, `-q` or `RUST_LOG` says otherwise.
pub(crate) fn for_command(global: &Global, colored: bool, usual: &str) {
    let filter =
        from_environment(global).unwrap_or_else(|| EnvFilter::new(format!("{QUIET},{}", level(global, usual))));
    drop(start(filter, LogFormat::Text, colored, &Traces::none()));
}

/// The filter of a process that stays: it can be changed while the process runs.
#[derive(Clone, Debug)]
pub(crate) struct LogFilter {
    handle: reload::Handle<EnvFilter, Registry>,
}

impl LogFilter {
    /// Filters by another configuration from now on. `-v`, `-q` and `RUST_LOG` win as they did at the start.
    ///
    /// # Errors
    /// When the filter is malformed; the old one stays.
    pub(crate) fn change(&self, global: &Global, log: &Log) -> Result<(), Failure> {
        let filter = filter(global, log)?;
        self.handle.reload(filter).map_err(|error| Failure::new(format!("the log filter cannot be changed: {error}")))
    }

    /// Filters by `directives` from now on, whatever was asked for at the start.
    ///
    /// # Errors
    /// When the directives are malformed; the old filter stays.
    pub(crate) fn set(&self, directives: &str) -> Result<(), String> {
        let filter = EnvFilter::try_new(directives).map_err(|error| format!("`{directives}` is no filter: {error}"))?;
        self.handle.reload(filter).map_err(|error| error.to_string())
    }
}

/// Logs of a process that stays, as its configuration says, and its traces. `-v` and `-q` win, then `RUST_LOG`.
///
/// # Errors
/// When the filter is malformed, or a variable of the traces.
pub(crate) fn for_service(global: &Global, colored: bool, log: &Log) -> Result<(LogFilter, Traces), Failure> {
    let traces = Traces::start()?;
    let handle = start(filter(global, log)?, log.format, colored, &traces);
    traces.announce();
    Ok((LogFilter { handle }, traces))
}

fn filter(global: &Global, log: &Log) -> Result<EnvFilter, Failure> {
    if let Some(filter) = from_environment(global) {
        return Ok(filter);
    }
    parsed(&level(global, &log.filter))
}

/// Checks `log.filter`, whatever the command line and the environment ask for.
///
/// # Errors
/// When the filter is malformed.
pub(crate) fn check(log: &Log) -> Result<(), Failure> {
    parsed(&log.filter).map(drop)
}

fn parsed(asked: &str) -> Result<EnvFilter, Failure> {
    EnvFilter::try_new(format!("{QUIET},{asked}")).map_err(|error| {
        let text =
            format!("log.filter: `{asked}` is not allowed: {error}; write a level like info, or info,dms_worker=debug");
        Failure::of(ExitKind::Config, text)
    })
}

fn level(global: &Global, usual: &str) -> String {
    match (global.quiet, global.verbose) {
        (true, _) => "error".to_owned(),
        (_, 0) => usual.to_owned(),
        (_, 1) => "info,dms_worker=debug,dms_server=debug".to_owned(),
        _ => "debug,dms_worker=trace,dms_server=trace".to_owned(),
    }
}

/// The filter of `RUST_LOG`, unless an option asks for another.
fn from_environment(global: &Global) -> Option<EnvFilter> {
    if global.quiet || global.verbose > 0 {
        return None;
    }
    let text = std::env::var("RUST_LOG").ok().filter(|text| !text.is_empty())?;
    EnvFilter::try_new(text).ok()
}

/// Lines by the filter; traces have their own, so that a quiet log takes nothing from them.
fn start(filter: EnvFilter, format: LogFormat, colored: bool, traces: &Traces) -> reload::Handle<EnvFilter, Registry> {
    let json = match format {
        LogFormat::Auto => !terminal::is_watched(),
        LogFormat::Text => false,
        LogFormat::Json => true,
    };
    let (filter, handle) = reload::Layer::new(filter);
    let lines: Box<dyn Layer<Registry> + Send + Sync> = match json {
        true => Box::new(fmt::layer().json().flatten_event(true).with_writer(terminal::log_json)),
        false => Box::new(
            fmt::layer().fmt_fields(LogFields).with_ansi(colored).with_target(false).with_writer(terminal::log_text),
        ),
    };
    // A second start in one process (tests of the library) keeps the first one's settings.
    let _ = tracing_subscriber::registry().with(lines.with_filter(filter)).with(traces.layer()).try_init();
    handle
}
