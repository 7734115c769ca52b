//! `data`: look after a server's data directory: check and repair it, copy it, verify a copy, deal with damaged messages, and move
//! everything into PostgreSQL or back.

mod condition;
mod damaged;
mod transfer;

use std::{
    path::{Path, PathBuf, absolute},
    process::ExitCode,
    time::Duration,
};

use clap::{Args, Subcommand};
use http::Method;
use serde::Deserialize;
use serde_json::json;

use self::{
    damaged::DamagedArgs,
    transfer::{ExportArgs, ImportArgs},
};
use crate::cli::support::{
    admin_client::AdminClient,
    context::Context,
    failure::{ExitKind, Failure},
    logging,
};
use dms_server::store::{
    OpenError,
    disk::tools::{
        backup,
        check::{check, verify},
        error::RepairError,
        rebuild::{Rebuilt, rebuild},
        repair::{Skip, plan, repair},
    },
};

/// A copy takes as long as the disk needs for it.
const MAX_COPY_TIME: Duration = Duration::from_secs(24 * 3600);

/// A copy that was made.
#[derive(Debug, Deserialize)]
struct BackupSummary {
    commit: u64,
    files: usize,
    bytes: u64,
}

/// Options of `data`.
#[derive(Debug, Args)]
pub(crate) struct DataArgs {
    #[command(subcommand)]
    command: DataCommand,
}

#[derive(Debug, Subcommand)]
enum DataCommand {
    /// Check a data directory for damage; changes nothing
    #[command(after_help = "\
Examples:
  dms-worker data check ./dms-data
  dms-worker data check ./dms-data -o json

No server may use the directory. All of it is read. Exit code 0: no damage; 1: damage was found.")]
    Check {
        /// The data directory
        dir: PathBuf,
    },
    /// Remove damaged parts that prevent a data directory from opening; their bytes are kept in a file
    #[command(after_help = "\
Examples:
  dms-worker data repair ./dms-data                                     list the parts that would be removed; changes nothing
  dms-worker data repair ./dms-data --skip-commits --dropped lost.jsonl

Copy the directory first. Damaged messages need no repair: the server sets them aside, see `data damaged`.")]
    Repair(RepairArgs),
    /// Copy a data directory, even while the server runs; every change answered before is in the copy
    #[command(after_help = "\
Examples:
  dms-worker data backup ./dms-data /backup/monday
  dms-worker data backup ./dms-data /backup/monday --admin http://127.0.0.1:9401

While a server uses the directory, that server makes the copy: set --admin, or server.admin in the configuration.

To restore, stop the server and replace the directory with the copy.")]
    Backup {
        /// The data directory
        dir: PathBuf,
        /// A directory that is new or empty
        dest: PathBuf,
        /// The admin address of the server [config: server.admin]
        #[arg(long, value_name = "URL")]
        admin: Option<String>,
    },
    /// Check that a copy is unchanged and opens
    #[command(after_help = "Examples:\n  dms-worker data verify /backup/monday")]
    Verify {
        /// The copy
        dest: PathBuf,
    },
    /// Rebuild the index of a data directory from its log; the old index is kept beside it
    #[command(after_help = "\
Examples:
  dms-worker data rebuild-index ./dms-data

No server may use the directory. Exit code 0: the new index is complete; 1: information is lost, and the output names it.")]
    RebuildIndex {
        /// The data directory
        dir: PathBuf,
    },
    /// Write everything of a data directory or of PostgreSQL into files, to import it elsewhere; changes no message
    #[command(after_help = "\
Examples:
  dms-worker data export /move --data-dir ./dms-data
  dms-worker data export /move -c server.yaml          from server.data_dir or server.postgres
  dms-worker data export /move --data-dir /backup/monday

Stop all servers first. If it is interrupted, run it again: complete files are kept.")]
    Export(ExportArgs),
    /// Bring an export into a data directory or into PostgreSQL; groups continue where they were
    #[command(after_help = "\
Examples:
  dms-worker data import /move -c server.yaml          into server.postgres or server.data_dir
  dms-worker data import /move --data-dir ./dms-data

Stop all servers on the target first. If it is interrupted, run it again: it continues. Until it is complete, no server opens the target. A queue that the target has with other contents is refused.")]
    Import(ImportArgs),
    /// List the messages that a running server has set aside because they are damaged
    #[command(after_help = "Examples:\n  dms-worker data damaged --admin http://127.0.0.1:9401")]
    Damaged {
        #[command(flatten)]
        asked: DamagedArgs,
        /// Only messages of this queue, by name or id
        queue: Option<String>,
    },
    /// Skip damaged messages of a queue permanently, as if they were acknowledged
    #[command(after_help = "\
Examples:
  dms-worker data skip orders --admin http://127.0.0.1:9401
  dms-worker data skip orders --group billing --sequence 4711")]
    Skip {
        #[command(flatten)]
        asked: DamagedArgs,
        /// The queue's name or id
        queue: String,
    },
}

/// Options of `data repair`.
#[derive(Debug, Args)]
struct RepairArgs {
    /// The data directory
    dir: PathBuf,
    /// Remove unreadable commits that are followed by others
    #[arg(long, requires = "dropped")]
    skip_commits: bool,
    /// Remove answered commits at the end of the log that are missing or unreadable
    #[arg(long, requires = "dropped")]
    skip_end: bool,
    /// A new file for the removed bytes, one JSON line per part
    #[arg(long, value_name = "FILE")]
    dropped: Option<PathBuf>,
}

/// Does one of these.
pub(crate) async fn run(args: DataArgs, context: &Context) -> Result<ExitCode, Failure> {
    match args.command {
        DataCommand::Check { dir } => {
            logging::for_command(&context.global, context.colored(), "error");
            let found = blocking(move || check(&dir)).await??;
            condition::show(&found, None, context)
        }
        DataCommand::Verify { dest } => {
            logging::for_command(&context.global, context.colored(), "error");
            let (backup, found) = blocking(move || verify(&dest)).await??;
            condition::show(&found, Some(&backup), context)
        }
        DataCommand::Repair(args) => mend(args, context).await,
        DataCommand::RebuildIndex { dir } => make_anew(dir, context).await,
        DataCommand::Backup { dir, dest, admin } => {
            back_up(dir, dest, admin, context).await?;
            Ok(ExitCode::SUCCESS)
        }
        DataCommand::Export(args) => {
            transfer::write(args, context).await?;
            Ok(ExitCode::SUCCESS)
        }
        DataCommand::Import(args) => {
            transfer::read(args, context).await?;
            Ok(ExitCode::SUCCESS)
        }
        DataCommand::Damaged { asked, queue } => {
            damaged::list(&asked, queue.as_deref(), context).await?;
            Ok(ExitCode::SUCCESS)
        }
        DataCommand::Skip { asked, queue } => {
            damaged::skip(&asked, &queue, context).await?;
            Ok(ExitCode::SUCCESS)
        }
    }
}

/// Runs blocking disk work on a separate thread.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, Failure> {
    tokio::task::spawn_blocking(work).await.map_err(|error| Failure::new(error.to_string()))
}

async fn mend(args: RepairArgs, context: &Context) -> Result<ExitCode, Failure> {
    logging::for_command(&context.global, context.colored(), "error");
    let RepairArgs { dir, skip_commits, skip_end, dropped } = args;
    let Some(keep) = dropped else {
        let found = blocking(move || plan(&dir)).await??;
        let text = match found.as_slice() {
            [] => "Nothing in the log keeps the directory from opening.".to_owned(),
            found => found.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"),
        };
        context.printer().print(&text, &found)?;
        return Ok(ExitCode::from(u8::from(!found.is_empty())));
    };
    let kept = keep.clone();
    let skip = Skip { commits: skip_commits, end: skip_end };
    let found = blocking(move || repair(&dir, skip, &kept)).await??;
    let commits: u64 = found.iter().map(|one| one.commits).sum();
    let text = match (found.as_slice(), commits) {
        ([], _) => "The directory opens; nothing was given up.".to_owned(),
        (_, 0) => {
            "The directory opens. What was cut off is filled up with zeros; messages that were there are set aside."
                .to_owned()
        }
        (_, commits) => {
            format!("The directory opens. {commits} commits were given up; their bytes are in {}.", keep.display())
        }
    };
    context.printer().print(&text, &found)?;
    Ok(ExitCode::SUCCESS)
}

async fn make_anew(dir: PathBuf, context: &Context) -> Result<ExitCode, Failure> {
    logging::for_command(&context.global, context.colored(), "error");
    let made = blocking(move || rebuild(&dir)).await??;
    let Rebuilt { commits, queues, groups, unreadable, unknown_messages, complete, .. } = &made;
    let mut text = format!("The index has {queues} queues and {groups} groups from {commits} commits.\n");
    if let Some(old) = &made.old {
        text += &format!("The old one is {}.\n", old.display());
    }
    if *unreadable > 0 {
        let places = if *unreadable == 1 { "place" } else { "places" };
        text += &format!("{unreadable} {places} of the log cannot be read: the changes there are not known.\n");
    }
    if *unknown_messages > 0 {
        text += &format!(
            "{unknown_messages} messages belong to queues or groups that are deleted or not known any more.\n"
        );
    }
    if !complete {
        if *unreadable == 0 {
            text += "Files of the log are gone, and not all of the old index can be believed.\n";
        }
        text += "Acknowledgements, positions, label rules, or whole queues and groups may be missing. Messages whose acknowledgement is \
                 missing are delivered again.\n";
    }
    context.printer().print(&text, &made)?;
    Ok(ExitCode::from(u8::from(!complete)))
}

/// A path that another process understands too.
fn whole(path: &Path) -> Result<PathBuf, Failure> {
    absolute(path).map_err(|error| Failure::of(ExitKind::Usage, format!("{}: {error}", path.display())))
}

/// Copies a directory, or has the server copy it that uses it.
async fn back_up(dir: PathBuf, dest: PathBuf, admin: Option<String>, context: &Context) -> Result<(), Failure> {
    let dest = whole(&dest)?;
    let made = match admin {
        Some(admin) => have_copied(&dir, &dest, Some(&admin), context).await?,
        None => {
            let (from, to) = (dir.clone(), dest.clone());
            match blocking(move || copy(&from, &to)).await? {
                Err(RepairError::Open(OpenError::InUse { .. })) => have_copied(&dir, &dest, None, context).await?,
                made => made?,
            }
        }
    };
    let text = format!("{}: {} files, {} bytes, up to commit {}", dest.display(), made.files, made.bytes, made.commit);
    let (commit, files, bytes) = (made.commit, made.files, made.bytes);
    Ok(context.printer().print(&text, &json!({ "dest": dest, "commit": commit, "files": files, "bytes": bytes }))?)
}

/// Has the server that uses a directory copy it.
async fn have_copied(
    dir: &Path,
    dest: &Path,
    admin: Option<&str>,
    context: &Context,
) -> Result<BackupSummary, Failure> {
    let admin = AdminClient::find(admin, context)?.timeout(MAX_COPY_TIME);
    let dir = whole(dir)?;
    // Another server's data must not be taken for these.
    let parameters = [("from", dir.to_string_lossy()), ("to", dest.to_string_lossy())];
    admin.ask(Method::POST, "/admin/backup", &parameters).await
}

/// Copies a directory that no server uses.
fn copy(dir: &Path, dest: &Path) -> Result<BackupSummary, RepairError> {
    let made = backup::back_up(dir, dest)?;
    Ok(BackupSummary { commit: made.commit, files: made.files.len(), bytes: made.bytes() })
}

impl From<RepairError> for Failure {
    fn from(error: RepairError) -> Self {
        match error {
            RepairError::Open(error) => error.into(),
            other => Self::new(other.to_string()),
        }
    }
}

impl From<OpenError> for Failure {
    fn from(error: OpenError) -> Self {
        let cause = std::error::Error::source(&error).map(|cause| format!(": {cause}")).unwrap_or_default();
        Self::new(format!("{error}{cause}")).because(error)
    }
}
