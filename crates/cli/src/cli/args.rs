//! The command line's options and commands, as clap reads them.

use clap::{Parser, Subcommand};

use crate::cli::{
    commands::{
        bench, check, cluster, completions, config, context, data, demo, dlq, group, health, key, man, message, peek,
        queue, receive, run, schedule, send, serve, stats, tag, top,
    },
    support::global_options::Global,
};

/// What stands below the program's own `--help`.
const AFTER: &str = "\
Examples:
  dms-worker demo                             a demonstration, in a few seconds
  dms-worker serve --data-dir ./dms-data      a server
  dms-worker run -c config.yaml               workers of a configuration
  dms-worker send orders '{\"id\": 1}'
  dms-worker receive orders billing --follow

Exit codes:
  0  done           69  the service cannot be reached
  1  failed         75  the deadline passed before all work was finished
  2  wrong usage    77  the credentials are refused
                    78  the configuration is wrong
  130, 143  ended by a second signal

Settings are read from the defaults, a configuration file (-c, $DMS_WORKER_CONFIG, ./config.yaml, \
~/.config/dms-worker/config.yaml, /etc/dms-worker/config.yaml), the environment (DMS_WORKER_...) and flags; later ones win.

Secrets cannot be passed as flags. Set them in the file, or in the environment as in DMS_WORKER_DMS__AUTH__SECRET_KEY.";

/// Workers, a sidecar and a server for Huawei Cloud DMS queues
#[derive(Debug, Parser)]
#[command(name = "dms-worker", version, after_help = AFTER, max_term_width = 120)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) global: Global,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run the workers and publishers of a configuration
    Run(run::RunArgs),
    /// Run the DMS server
    Serve(serve::ServeArgs),
    /// Show a queue at work in a few seconds: server, producer, failing worker, dead letters, redrive
    Demo(demo::DemoArgs),
    /// Check a configuration; with --online also credentials, queues and groups
    Check(check::CheckArgs),
    /// Show the effective configuration, or the JSON Schema
    #[command(
        after_help = "Examples:\n  dms-worker config show --origin\n  dms-worker config schema > dms-worker.schema.json"
    )]
    Config(config::ConfigArgs),
    /// Save services under names, and choose which one commands use
    #[command(
        after_help = "Examples:\n  dms-worker context add prod --endpoint https://dms.example.com --use\n  dms-worker context list"
    )]
    Context(context::ContextArgs),
    /// Add, list and remove access keys in the keys file of a server
    #[command(
        after_help = "Examples:\n  dms-worker key add SHOP -c server.yaml --send orders\n  dms-worker key list -c server.yaml"
    )]
    Key(key::KeyArgs),
    /// Create, list, show, update, purge, move, copy and delete queues
    #[command(after_help = "Examples:\n  dms-worker queue create orders --group billing\n  dms-worker queue list")]
    Queue(queue::QueueArgs),
    /// Create, list and delete consumer groups
    #[command(after_help = "Examples:\n  dms-worker group create orders billing\n  dms-worker group list orders")]
    Group(group::GroupArgs),
    /// Add, remove and list the resource tags of queues
    #[command(after_help = "Examples:\n  dms-worker tag add orders env=prod\n  dms-worker tag list orders")]
    Tag(tag::TagArgs),
    /// Show the project's quotas
    #[command(after_help = "Examples:\n  dms-worker quota\n  dms-worker quota -o json")]
    Quota,
    /// Send messages
    Send(send::SendArgs),
    /// Receive messages of a group and print them as JSON lines
    Receive(receive::ReceiveArgs),
    /// Show messages of a group as JSON lines, without leasing them
    Peek(peek::PeekArgs),
    /// Show one group in detail: backlog, in flight, oldest age, consumers, rates
    Stats(stats::StatsArgs),
    /// Show all groups with their backlogs and rates, continuously
    Top(top::TopArgs),
    /// Show, resend or discard dead letters
    #[command(
        after_help = "Examples:\n  dms-worker dlq show orders billing\n  dms-worker dlq redrive orders billing --dry-run"
    )]
    Dlq(dlq::DlqArgs),
    /// Find a message by its id, give a dead letter back to its group, or settle a message
    #[command(
        after_help = "Examples:\n  dms-worker message show m_RjkDiiQaIPJBFSAAAAAAAR\n  dms-worker message retry m_RjkDiiQaIPJBFSAAAAAAAR"
    )]
    Message(message::MessageArgs),
    /// Add, list, pause and remove messages that the server sends at the times of a cron expression
    #[command(
        after_help = "Examples:\n  dms-worker schedule add nightly --cron '0 2 * * *' --queue reports --message '{\"kind\": \"nightly\"}'\n  dms-worker schedule list"
    )]
    Schedule(schedule::ScheduleArgs),
    /// Check, repair and back up a server's data directory, and handle damaged messages
    #[command(
        after_help = "Examples:\n  dms-worker data check ./dms-data\n  dms-worker data backup ./dms-data /backup/monday"
    )]
    Data(data::DataArgs),
    /// Show the servers that share the queues in PostgreSQL, and move queues between them
    #[command(after_help = "Examples:\n  dms-worker cluster status\n  dms-worker cluster drain")]
    Cluster(cluster::ClusterArgs),
    /// Measure throughput, latencies and CPU time of a server and this client
    Bench(bench::BenchArgs),
    /// Check whether a process is ready; for container health checks
    Health(health::HealthArgs),
    /// Print a completion script for a shell
    Completions(completions::CompletionsArgs),
    /// Print the manual page
    Man(man::ManArgs),
}
