//! The command line's options and commands, as clap reads them.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

use super::{check, completions, config, demo, dlq, group, health, man, queue, receive, run, send, serve, tag};

/// What stands below every `--help`.
const EXIT_CODES: &str = "\
Exit codes:
  0  done                        69  the service cannot be reached
  1  failed                      75  the deadline passed before everything was finished
  2  wrong usage                 77  the credentials are refused
                                 78  the configuration is wrong
  130, 143  ended by a second signal

Settings come from the defaults, a configuration file (-c, $DMS_WORKER_CONFIG, ./config.yaml,
~/.config/dms-worker/config.yaml, /etc/dms-worker/config.yaml), the environment (DMS_WORKER_...) and flags; later ones win.
Secrets are never flags: set them in the file, or in the environment as in DMS_WORKER_DMS__AUTH__SECRET_KEY.";

/// Workers, a sidecar and a server for Huawei Cloud DMS queues
#[derive(Debug, Parser)]
#[command(name = "dms-worker", version, after_help = EXIT_CODES, max_term_width = 120)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) global: Global,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// Options of every command.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Global options")]
pub(crate) struct Global {
    /// The configuration file
    #[arg(short, long, global = true, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// The service's address, as in http://127.0.0.1:9400 [config: dms.endpoint]
    #[arg(long, global = true, value_name = "URL")]
    pub(crate) endpoint: Option<String>,
    /// The project in every path [config: dms.project_id]
    #[arg(long, global = true, value_name = "ID")]
    pub(crate) project_id: Option<String>,
    /// The version of the API: v2 or v1.0 [config: dms.api_version]
    #[arg(long, global = true, value_name = "VERSION")]
    pub(crate) api_version: Option<String>,
    /// How results are printed
    #[arg(short, long, global = true, value_enum, default_value_t = Format::Text)]
    pub(crate) output: Format,
    /// More: causes of errors and debug logs; twice for traces
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    pub(crate) verbose: u8,
    /// Less: no progress, and errors only
    #[arg(short, long, global = true, conflicts_with = "verbose")]
    pub(crate) quiet: bool,
    /// Colours; NO_COLOR is respected
    #[arg(long, global = true, value_enum, default_value_t = Color::Auto)]
    pub(crate) color: Color,
}

/// How results are printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// Tables and lines for people
    Text,
    /// JSON for programs
    Json,
}

/// When colours are used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Color {
    /// On a terminal, unless NO_COLOR is set
    Auto,
    /// Always
    Always,
    /// Never
    Never,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run the workers and publishers of a configuration
    Run(run::RunArgs),
    /// Run the DMS server
    Serve(serve::ServeArgs),
    /// Take the tour: server, producer, worker with failures, dead letters, redrive, in a few seconds
    Demo(demo::DemoArgs),
    /// Check a configuration; with --online also credentials, queues and groups
    Check(check::CheckArgs),
    /// Show the configuration that is in force
    Config(config::ConfigArgs),
    /// Create, list, show and delete queues
    Queue(queue::QueueArgs),
    /// Create, list and delete consumer groups
    Group(group::GroupArgs),
    /// Add, remove and list the resource tags of queues
    Tag(tag::TagArgs),
    /// Show the project's quotas
    #[command(after_help = "Examples:\n  dms-worker quota\n  dms-worker quota -o json")]
    Quota,
    /// Send messages
    Send(send::SendArgs),
    /// Receive messages of a group and print them as JSON lines
    Receive(receive::ReceiveArgs),
    /// Look at dead letters, send them again, or throw them away
    Dlq(dlq::DlqArgs),
    /// Ask a process whether it is ready; for container health checks
    Health(health::HealthArgs),
    /// Print a completion script for a shell
    Completions(completions::CompletionsArgs),
    /// Print the manual page
    Man(man::ManArgs),
}
