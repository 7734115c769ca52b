//! `receive`: messages of a group as JSON lines.

use clap::Args;
use tokio::signal;

use crate::{
    cli::support::{confirm::counted, context::Context, failure::Failure},
    config::Span,
    message_json::object::Object,
};
use dms_protocol::{
    internal::json::one_line,
    limits,
    message::{AckStatus, ReceivedMessage},
    queue::{SourcePath, Stream, TagFilter, TagMode},
};
use dms_worker::client::{Client, ConsumeOptions};

/// Options of `receive`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  dms-worker receive orders billing            at most 10, acknowledged once printed
  dms-worker receive orders billing --no-ack   redelivered after --ack-wait
  dms-worker receive orders billing --follow | jq .body
  dms-worker receive orders billing | dms-worker send other -")]
pub(crate) struct ReceiveArgs {
    /// The queue's name or id
    queue: String,
    /// The group's name or id
    group: String,
    /// Total number of messages
    #[arg(long, default_value_t = 10, value_name = "COUNT")]
    max: usize,
    /// How long to wait for a first message: 1s to 60s
    #[arg(long, default_value = "20s", value_name = "DURATION")]
    wait: Span,
    /// How long a message may stay unacknowledged: 15s to 300s
    #[arg(long, default_value = "30s", value_name = "DURATION")]
    ack_wait: Span,
    /// Acknowledge the printed messages (the default)
    #[arg(long, overrides_with = "no_ack")]
    ack: bool,
    /// Do not acknowledge; lines include the handler, and messages are redelivered after --ack-wait
    #[arg(long, overrides_with = "ack")]
    no_ack: bool,
    /// Continue until interrupted
    #[arg(long, conflicts_with = "max")]
    follow: bool,
    /// Only messages with this label; up to three. A group keeps the labels of its first consume permanently
    #[arg(long = "tag", value_name = "LABEL")]
    tags: Vec<String>,
    /// Require all of the labels, not only one
    #[arg(long, requires = "tags")]
    all_tags: bool,
    /// The group's dead letters instead of its messages
    #[arg(long, conflicts_with = "tags")]
    dead_letters: bool,
}

/// Prints messages until there are enough, none is left, or the user has seen enough.
pub(crate) async fn run(args: ReceiveArgs, context: &Context) -> Result<(), Failure> {
    let options = options(&args);
    options.check()?;
    let client = context.client()?;
    let queue = client.find_queue(&args.queue).await?;
    let group = client.find_group(&queue.id, &args.group).await?;
    let stream = if args.dead_letters { Stream::DeadLetters } else { Stream::Messages };
    let source = SourcePath { queue: queue.id, group: group.id, stream };
    tokio::select! {
        received = receive(&client, &source, options, &args, context) => {
            let received = counted(u64::try_from(received?).unwrap_or(u64::MAX), "message");
            context.say(&format!("{received} received{}", if args.no_ack { ", not acknowledged" } else { "" }));
        }
        _ = signal::ctrl_c() => {}
    }
    Ok(())
}

fn options(args: &ReceiveArgs) -> ConsumeOptions {
    let mode = if args.all_tags { TagMode::And } else { TagMode::Or };
    ConsumeOptions::new()
        .max_messages(args.max.clamp(1, limits::MAX_MESSAGES))
        .poll_wait(args.wait.get())
        .ack_wait(args.ack_wait.get())
        .filter(TagFilter { tags: args.tags.clone(), mode })
}

async fn receive(
    client: &Client,
    source: &SourcePath,
    mut options: ConsumeOptions,
    args: &ReceiveArgs,
    context: &Context,
) -> Result<usize, Failure> {
    let mut received = 0;
    while args.follow || received < args.max {
        options.max_messages =
            if args.follow { limits::MAX_MESSAGES } else { (args.max - received).min(limits::MAX_MESSAGES) };
        let batch = client.consume(source, &options).await?;
        if batch.is_empty() && !args.follow {
            break;
        }
        // First printed, then acknowledged: a reader that went away costs no message.
        batch.iter().try_for_each(|message| context.printer().json_line(&line(message, args.no_ack)))?;
        if !args.no_ack && !batch.is_empty() {
            let acks: Vec<_> = batch.iter().map(|message| (message.handle.clone(), AckStatus::Success)).collect();
            client.acknowledge(source, &acks).await?;
        }
        received += batch.len();
        if !args.follow {
            // The wait was for a first message; the rest is there or not.
            options.poll_wait = std::time::Duration::from_secs(1);
        }
    }
    Ok(received)
}

/// What `send` reads: body, attributes, labels; the handler where the caller has to acknowledge. A message that cannot be read is its
/// text and the reason, which `send` refuses.
pub(super) fn line(message: &ReceivedMessage, with_handler: bool) -> String {
    // Their own texts, byte for byte, except for blanks between values that are more than one line.
    let mut line = match message.undecodable() {
        None => Object::new().raw("body", &one_line(message.body.as_str())),
        Some(reason) => Object::new().raw("raw", message.body.quoted().as_str()).text("undecodable", reason),
    };
    if !message.attributes.is_empty() {
        line = line.raw("attributes", &one_line(&message.attributes.to_json()));
    }
    if let Some(Ok(info)) = message.dead_letter.as_ref().map(serde_json::to_string) {
        line = line.raw("dead_letter", &info);
    }
    if with_handler {
        line = line.text("handler", message.handle.as_str());
    }
    if !message.tags.is_empty() {
        line = line.texts("tags", &message.tags);
    }
    line.finish()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use dms_protocol::message::{Attributes, Body};

    #[test]
    fn a_message_that_cannot_be_read_is_shown_with_its_text() {
        let body = Body::undecodable("{\"body\":,\n\"a\":1}".into(), "a value is expected");
        let message = ReceivedMessage::new(body, Attributes::new(), Vec::new(), "h");
        let line = line(&message, true);
        assert_eq!(line, r#"{"raw":"{\"body\":,\n\"a\":1}","undecodable":"a value is expected","handler":"h"}"#);
        serde_json::from_str::<serde_json::Value>(&line).unwrap();
    }
}
