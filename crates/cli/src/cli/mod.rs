//! The `dms-worker` command line.
//!
//! Standard output carries data only; logs, progress and errors go to standard error. `failure` maps
//! every error to an exit code and one sentence. Secrets are never flags: they come from the configuration.

#![warn(clippy::disallowed_macros, clippy::disallowed_methods)]

mod args;
mod commands;
mod service;
mod support;

use std::{borrow::Cow, process::ExitCode};

use clap::{CommandFactory, FromArgMatches};

use self::{
    args::{Cli, Command},
    commands::{
        bench, check, cluster, completions, config, context, data, demo, dlq, group, health, key, man, message, peek,
        queue, quota, receive, run, schedule, send, serve, stats, tag, top,
    },
    support::{context::Context, failure::Failure, global_options::Color, terminal},
};
use dms_protocol::internal::visible::visible;

/// Runs the command line of this process and gives its exit code.
pub fn main() -> ExitCode {
    let program = Cli::command().color(Color::asked(std::env::args_os()).choice());
    let cli = match program.try_get_matches().and_then(|matches| Cli::from_arg_matches(&matches)) {
        Ok(cli) => cli,
        Err(error) => return usage(&error),
    };
    let context = Context::new(cli.global);
    let result = runtime().and_then(|runtime| {
        let result = runtime.block_on(perform(cli.command, &context));
        // Not dropped: that would wait for a read of standard input that may never end.
        runtime.shutdown_background();
        result
    });
    match result {
        Ok(code) => code,
        Err(failure) => context.report(&failure),
    }
}

/// Prints help, the version, or an error in the arguments.
fn usage(error: &clap::Error) -> ExitCode {
    let told = error.render().to_string();
    let foreign = std::env::args_os().any(|argument| matches!(visible(&argument.to_string_lossy()), Cow::Owned(_)));
    if foreign && error.use_stderr() {
        terminal::tell(&told);
    } else {
        // A closed pipe behind `--help | head` is no failure.
        let _ = error.print();
    }
    ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(2))
}

fn runtime() -> Result<tokio::runtime::Runtime, Failure> {
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    builder.enable_all().build().map_err(|error| Failure::new(format!("the runtime does not start: {error}")))
}

async fn perform(command: Command, context: &Context) -> Result<ExitCode, Failure> {
    match command {
        Command::Run(args) => return run::run(args, context).await,
        Command::Bench(args) => return bench::run(args, context).await,
        Command::Demo(args) => return demo::run(args, context).await,
        Command::Serve(args) => return serve::run(args, context).await,
        Command::Check(args) => check::run(args, context).await?,
        Command::Config(args) => config::run(&args, context)?,
        Command::Context(args) => context::run(args, context)?,
        Command::Key(args) => key::run(args, context)?,
        Command::Queue(args) => queue::run(args, context).await?,
        Command::Group(args) => group::run(args, context).await?,
        Command::Tag(args) => tag::run(args, context).await?,
        Command::Quota => quota::run(context).await?,
        Command::Send(args) => return send::run(args, context).await,
        Command::Receive(args) => receive::run(args, context).await?,
        Command::Peek(args) => peek::run(args, context).await?,
        Command::Stats(args) => stats::run(args, context).await?,
        Command::Top(args) => top::run(args, context).await?,
        Command::Message(args) => message::run(args, context).await?,
        Command::Schedule(args) => schedule::run(args, context).await?,
        Command::Data(args) => return data::run(args, context).await,
        Command::Cluster(args) => cluster::run(args, context).await?,
        Command::Dlq(args) => return dlq::run(args, context).await,
        Command::Health(args) => health::run(args, context).await?,
        Command::Completions(args) => completions::run(&args, Cli::command())?,
        Command::Man(args) => man::run(&args, Cli::command())?,
    }
    Ok(ExitCode::SUCCESS)
}
