//! `dlq`: look at the dead letters of a group or at parked messages, send them again, or throw them away.

pub(super) mod filter;
mod look;
pub(super) mod peek;
mod reasons;
pub(super) mod redrive;
mod selection;
pub(super) mod sweep_bar;
mod visitors;

use std::process::ExitCode;

use clap::{Args, Subcommand};

use self::{
    look::{DumpArgs, ListArgs, ShowArgs},
    redrive::{DiscardArgs, RedriveArgs},
};
use crate::cli::support::{
    context::Context,
    failure::{ExitKind, Failure},
};
use dms_worker::{Dialect, redrive::SweepError};

/// Options of `dlq`.
#[derive(Debug, Args)]
pub(crate) struct DlqArgs {
    #[command(subcommand)]
    command: DlqCommand,
}

#[derive(Debug, Subcommand)]
enum DlqCommand {
    /// List the groups of a queue with the number of their dead letters
    #[command(
        visible_alias = "ls",
        after_help = "Examples:\n  dms-worker dlq list orders\n  dms-worker dlq list orders --by-reason --admin http://127.0.0.1:9401\n  dms-worker dlq list parked billing --parked"
    )]
    List(ListArgs),
    /// Show dead letters in a table, without taking them
    #[command(after_help = "\
Examples:
  dms-worker dlq show orders billing
  dms-worker dlq show orders billing --max 50 --match tenant=7
  dms-worker dlq show parked billing --parked                           parked messages

The server of dms-worker shows messages without leasing them. Of other services they are leased and given back: for parked messages, \
that counts as a failed consumption; for dead letters, it does not.")]
    Show(ShowArgs),
    /// Print dead letters as JSON lines, or write them to a file; `dlq redrive --file` and `send` read them
    #[command(after_help = "\
Examples:
  dms-worker dlq dump orders billing | jq .body
  dms-worker dlq dump orders billing --file dead.jsonl             they stay in the queue
  dms-worker dlq dump orders billing --file dead.jsonl --ack       remove them from the queue")]
    Dump(DumpArgs),
    /// Send dead letters again; each is acknowledged only after its copy is stored
    #[command(after_help = "\
Examples:
  dms-worker dlq redrive orders billing --dry-run                  how many would be sent
  dms-worker dlq redrive orders billing --max 100 --rate 20/s
  dms-worker dlq redrive orders billing --match tenant=7 --match-body /customer/id=1 --to orders-repaired --set repaired=true
  dms-worker dlq redrive parked billing --parked                   back to their queues
  dms-worker dlq redrive orders --file dead.jsonl                  dumped messages, perhaps edited

Delivery is at least once: a copy whose answer was lost is sent again. If a redrive is killed, the next one continues it: it waits for \
leased messages, recognises stored copies, and reports how many may be stored twice. A message that was redriven three times is left \
in place, so that none circulates forever (--max-redrives).")]
    Redrive(RedriveArgs),
    /// Discard dead letters
    #[command(after_help = "Examples:\n  dms-worker dlq discard orders billing --match tenant=7 --yes")]
    Discard(DiscardArgs),
}

/// Looks at messages, sends them again, or empties the place.
pub(crate) async fn run(args: DlqArgs, context: &Context) -> Result<ExitCode, Failure> {
    let client = context.client()?;
    match args.command {
        DlqCommand::List(args) if client.dialect() == Dialect::Mqs && !args.parked => {
            let text = format!(
                "ROMA Connect MQS has no dead letters: `dlq list {} {} --parked` counts the messages of a parking topic",
                args.queue,
                args.group.as_deref().unwrap_or("GROUP")
            );
            return Err(Failure::of(ExitKind::Usage, text));
        }
        DlqCommand::List(args) if args.by_reason || args.parked => reasons::list(&client, &args, context).await?,
        DlqCommand::List(args) => look::list(&client, &args, context).await?,
        DlqCommand::Show(args) => look::show(&client, args, context).await?,
        DlqCommand::Dump(args) => look::dump(&client, args, context).await?,
        DlqCommand::Redrive(args) => return redrive::redrive(&client, args, context).await,
        DlqCommand::Discard(args) => redrive::discard(&client, args, context).await?,
    }
    Ok(ExitCode::SUCCESS)
}

impl From<SweepError> for Failure {
    fn from(error: SweepError) -> Self {
        error.source.into()
    }
}
