//! `receive`: messages of a group as JSON lines.

mod reader;
mod settling;

use std::time::Duration;

use clap::Args;
use tokio_util::sync::CancellationToken;

use self::{reader::Reader, settling::Settling};
use crate::{
    cli::{
        service::signals,
        support::{confirm::counted, context::Context, failure::Failure},
    },
    config::Span,
    message_json::object::Object,
};
use dms_protocol::{
    internal::json::one_line,
    limits,
    message::{MessageId, ReceivedMessage},
    queue::{SourcePath, Stream, TagFilter, TagMode},
};
use dms_worker::{client::ConsumeOptions, internal::consume_leased};

/// Options of `receive`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  dms-worker receive orders billing            at most 10, redelivered after --ack-wait
  dms-worker receive orders billing --ack      acknowledges what it has printed
  dms-worker receive orders billing --ack --follow | jq .body
  dms-worker receive orders billing --ack | dms-worker send other -

Without --ack, each message counts as consumed once without success when --ack-wait has passed, and becomes a dead letter at the \
queue's max_consume_count. With --ack and a pipe, a message is acknowledged when the other program has read its line: \
`--ack --follow | head -3` acknowledges three. Only Linux says what was read: on other systems, a message is acknowledged when its \
line is written, and lines that the other program leaves unread are lost.

SIGINT, SIGTERM and SIGHUP end the command after what was read is acknowledged; a second signal ends it at once.")]
pub(crate) struct ReceiveArgs {
    /// The queue's name or id
    queue: String,
    /// The group's name or id
    group: String,
    /// Total number of messages
    #[arg(long, default_value_t = 10, value_name = "COUNT")]
    max: usize,
    /// How long to wait for a first message: 1s to 60s; over MQS at most 30s
    #[arg(long, default_value = "20s", value_name = "DURATION")]
    wait: Span,
    /// How long a message may stay unacknowledged: 15s to 300s; over MQS from 1s
    #[arg(long, default_value = "30s", value_name = "DURATION")]
    ack_wait: Span,
    /// Acknowledge the printed messages
    #[arg(long, overrides_with = "no_ack")]
    ack: bool,
    /// Do not acknowledge (the default); lines include the handler, and messages are redelivered after --ack-wait
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
    let client = context.client()?;
    options.check_for(client.dialect())?;
    let queue = client.find_queue(&args.queue).await?;
    let group = client.find_group(&queue.id, &args.group).await?;
    let stream = if args.dead_letters { Stream::DeadLetters } else { Stream::Messages };
    let source = SourcePath { queue: queue.id, group: group.id, stream };
    let stop = CancellationToken::new();
    let (stopped, signal) = (stop.clone(), signals::first());
    tokio::spawn(async move {
        signal.await;
        stopped.cancel();
    });
    let print = |line: &str| Ok(context.printer().json_line(line)?);
    let say = |text: &str| context.say(text);
    let reader = Reader::of_stdout();
    let settling = Settling { client, source, print: &print, say: &say, reader, ack: args.ack, stop };
    let received = receive(&settling, options, &args).await?;
    let received = counted(received, "message");
    let kept = format!(", not acknowledged: redelivered after {} (--ack acknowledges them)", args.ack_wait);
    context.say(&format!("{received} received{}", if args.ack { "" } else { &kept }));
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

async fn receive(settling: &Settling<'_>, mut options: ConsumeOptions, args: &ReceiveArgs) -> Result<usize, Failure> {
    let mut received = 0;
    while args.follow || received < args.max {
        options.max_messages =
            if args.follow { limits::MAX_MESSAGES } else { (args.max - received).min(limits::MAX_MESSAGES) };
        let batch = tokio::select! {
            biased;
            () = settling.stop.cancelled() => break,
            () = settling.reader.gone() => break,
            batch = consume_leased(&settling.client, &settling.source, &options) => batch?,
        };
        if batch.messages.is_empty() && !args.follow {
            break;
        }
        let printed = settling.settle(&batch).await?;
        received += printed.count;
        if printed.ended {
            break;
        }
        if !args.follow {
            // The wait was for a first message; the rest is there or not.
            options.poll_wait = Duration::from_secs(1);
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
    line = line.some_text("id", message.message_id().as_ref().map(MessageId::as_str));
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
