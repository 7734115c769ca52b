//! `data export` and `data import`: moving everything from a data directory into PostgreSQL, or back.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use clap::Args;
use indicatif::ProgressBar;
use serde_json::json;
use tokio::time::Instant;

use crate::{
    cli::support::{
        context::Context,
        failure::{ExitKind, Failure},
        logging,
        progress::bar,
        terminal,
    },
    config::load,
};
use dms_server::store::transfer::{Progress, StoreLocation, Summary, TransferError, export, import};

/// How often a line tells how far it is, where no bar is drawn.
const LINE_INTERVAL: Duration = Duration::from_secs(1);

/// Options of `data export`.
#[derive(Debug, Args)]
pub(super) struct ExportArgs {
    /// The directory of the export: a new one, or one whose export has not finished
    dest: PathBuf,
    /// Export this data directory or backup [config: server.data_dir, or server.postgres]
    #[arg(long, value_name = "DIRECTORY")]
    data_dir: Option<PathBuf>,
    /// Leave out damaged messages; groups pass over their places
    #[arg(long)]
    skip_damaged: bool,
}

/// Options of `data import`.
#[derive(Debug, Args)]
pub(super) struct ImportArgs {
    /// The directory of the export
    source: PathBuf,
    /// Import into this data directory, which is created if it is missing [config: server.data_dir, or server.postgres]
    #[arg(long, value_name = "DIRECTORY")]
    data_dir: Option<PathBuf>,
}

/// Writes an export.
pub(super) async fn write(args: ExportArgs, context: &Context) -> Result<(), Failure> {
    let from = place(args.data_dir, "export", context)?;
    let (dest, skip_damaged, mut shown) = (args.dest.clone(), args.skip_damaged, Shown::new(context));
    let made = super::blocking(move || {
        let made = export(&from, &dest, skip_damaged, &mut |progress| shown.show(progress));
        shown.clear();
        made
    });
    tell("exported to", &args.dest, &made.await?.map_err(failure)?, context)
}

/// Reads an export.
pub(super) async fn read(args: ImportArgs, context: &Context) -> Result<(), Failure> {
    let to = place(args.data_dir, "import", context)?;
    let (source, mut shown) = (args.source.clone(), Shown::new(context));
    let made = super::blocking(move || {
        let made = import(&source, &to, &mut |progress| shown.show(progress));
        shown.clear();
        made
    });
    tell("imported and compared with", &args.source, &made.await?.map_err(failure)?, context)
}

/// The place that an option or the configuration names.
fn place(data_dir: Option<PathBuf>, command: &str, context: &Context) -> Result<StoreLocation, Failure> {
    if let Some(dir) = data_dir {
        logging::for_command(&context.global, context.colored(), "error");
        return Ok(StoreLocation::Directory(dir));
    }
    // As `serve`: no file of the folder in which it is started.
    let server = load(&context.request(false))?.config.server;
    logging::for_command(&context.global, context.colored(), "error");
    if let Some(dir) = server.data_dir {
        return Ok(StoreLocation::Directory(dir));
    }
    #[cfg(feature = "postgres")]
    if let Some(postgres) = crate::config::server_settings::postgres(&server) {
        return Ok(StoreLocation::Postgres(Box::new(postgres)));
    }
    let text = format!(
        "there is no place to {command}: name a data directory with --data-dir, or a configuration with server.data_dir or \
         server.postgres with -c"
    );
    Err(Failure::of(ExitKind::Usage, text))
}

fn failure(error: TransferError) -> Failure {
    match error {
        TransferError::Open(error) => error.into(),
        error => Failure::new(error.to_string()),
    }
}

fn tell(what: &str, dir: &Path, made: &Summary, context: &Context) -> Result<(), Failure> {
    let Summary { queues, already, groups, counts } = made;
    let mut text = format!(
        "{queues} queues with {groups} groups, {} messages, {} delayed messages and {} dead letters: {what} {}",
        counts.messages,
        counts.delayed,
        counts.dead_letters,
        dir.display()
    );
    if *already > 0 {
        text += &format!("\n{already} of the queues were complete before");
    }
    if counts.lost > 0 {
        text += &format!("\n{} damaged messages are left out", counts.lost);
    }
    let json = json!({ "queues": queues, "already": already, "groups": groups, "counts": counts });
    Ok(context.printer().print(&text, &json)?)
}

/// A bar on a terminal, JSON lines on standard error otherwise.
#[derive(Debug)]
struct Shown {
    bar: ProgressBar,
    /// When the next line is due, where lines are written.
    due: Option<Instant>,
}

impl Shown {
    fn new(context: &Context) -> Self {
        let lines = !context.shows_progress() && !context.global.quiet;
        let bar = bar(context, None, "{bar:40} {pos}/{len} messages  {per_sec}  {elapsed}  {eta} left");
        Self { bar, due: lines.then(Instant::now) }
    }

    fn show(&mut self, progress: &Progress) -> bool {
        let Progress { queues, all_queues, messages, all_messages } = *progress;
        self.bar.set_length(all_messages.max(messages));
        self.bar.set_position(messages);
        let now = Instant::now();
        if self.due.is_some_and(|due| due <= now) {
            self.due = Some(now + LINE_INTERVAL);
            let line = json!({
                "queues": queues,
                "all_queues": all_queues,
                "messages": messages,
                "all_messages": all_messages,
            });
            terminal::tell_json(&line.to_string());
        }
        true
    }

    fn clear(&self) {
        self.bar.finish_and_clear();
    }
}
