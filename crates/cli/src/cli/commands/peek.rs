//! `peek`: messages of a group as JSON lines, without leasing them.

use clap::Args;

use crate::{
    cli::{
        commands::dlq::{filter::Filter, peek::Peeker},
        support::{confirm::counted, context::Context, failure::Failure},
    },
    message_json::object::Object,
};
use dms_protocol::{
    internal::json::one_line,
    message::MessageId,
    queue::{SourcePath, Stream},
};
use dms_worker::client::{PeekState, PeekedMessage};

/// Options of `peek`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  dms-worker peek orders billing                   the first 10
  dms-worker peek orders billing --max 100 | jq .body
  dms-worker peek orders billing --match tenant=7 --dead-letters

Nothing is leased, and no failure is counted. Leased and delayed messages are shown too;
`state` says which they are. Only the server of dms-worker can show messages this way.")]
pub(crate) struct PeekArgs {
    /// The queue's name or id
    queue: String,
    /// The group's name or id
    group: String,
    /// Maximum number of messages
    #[arg(long, default_value_t = 10, value_name = "COUNT")]
    max: u64,
    /// Begin at this sequence number
    #[arg(long, default_value_t = 0, value_name = "NUMBER", hide_default_value = true)]
    from: u64,
    /// The group's dead letters instead of its messages
    #[arg(long)]
    dead_letters: bool,
    #[command(flatten)]
    filter: Filter,
    /// Ask at the server's admin address instead of the endpoint
    #[arg(long, value_name = "URL")]
    admin: Option<String>,
}

/// Prints messages until there are enough, or none is left.
pub(crate) async fn run(args: PeekArgs, context: &Context) -> Result<(), Failure> {
    let client = context.client()?;
    let queue = client.find_queue(&args.queue).await?;
    let group = client.find_group(&queue.id, &args.group).await?;
    let stream = if args.dead_letters { Stream::DeadLetters } else { Stream::Messages };
    let source = SourcePath { queue: queue.id, group: group.id, stream };
    let Some(peeker) = Peeker::of(args.admin.as_deref(), &client, context)? else {
        let endpoint = context.endpoint().unwrap_or_default();
        return Err(Failure::new(format!(
            "the service at {endpoint} cannot show messages without leasing them; `dms-worker receive` leases them for a while"
        )));
    };
    let mut shown = 0;
    let mut pages = peeker.pages(source, args.from);
    while shown < args.max
        && let Some(page) = pages.next().await?
    {
        let left = usize::try_from(args.max - shown).unwrap_or(usize::MAX);
        let passing = page.iter().filter(|message| args.filter.passes_peeked(message)).take(left);
        for message in passing {
            context.printer().json_line(&line(message))?;
            shown += 1;
        }
    }
    let what = if args.dead_letters { "dead letter" } else { "message" };
    context.say(&format!("{} shown, none leased", counted(shown, what)));
    Ok(())
}

/// The line of a message: what `send` reads, then what a look adds.
fn line(message: &PeekedMessage) -> String {
    let mut line = match message.body.fault() {
        None => Object::new().raw("body", &one_line(message.body.as_str())),
        Some(fault) => Object::new().raw("raw", message.body.quoted().as_str()).text("undecodable", fault),
    };
    if !message.attributes.is_empty() {
        line = line.raw("attributes", &one_line(&message.attributes.to_json()));
    }
    line = line.some_text("id", message.message_id().as_ref().map(MessageId::as_str));
    if !message.tags.is_empty() {
        line = line.texts("tags", &message.tags);
    }
    line = line.raw("sequence", &message.sequence.to_string()).text("state", message.state.as_str());
    if let PeekState::Leased(left) | PeekState::Delayed(left) = message.state {
        line = line.raw("left_ms", &left.as_millis().to_string());
    }
    line = line.raw("failures", &message.failures.to_string());
    if let Some(entered_ms) = message.entered_ms {
        line = line.raw("entered_ms", &entered_ms.to_string());
    }
    if let Some(Ok(info)) = message.dead_letter.as_ref().map(serde_json::to_string) {
        line = line.raw("dead_letter", &info);
    }
    line.finish()
}
