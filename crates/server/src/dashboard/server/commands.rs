//! A message as commands to copy: for `dms-worker` and for curl.

use maud::{Markup, html};

use crate::{
    broker::{FoundIn, FoundPlace, MessageOrigin},
    dashboard::{
        html::{frame::Ui, json::compact},
        server::Pages,
    },
};
use dms_protocol::{internal::visible::visible_json, queue::ProjectId};

/// The size of a message, in bytes, up to which the commands that send it are shown. A shell takes longer ones from a file.
const MAX_SENT: usize = 32 << 10;

/// Commands that show a message, act on it, or send another one like it. They are text, so that they can be copied without the script.
pub(super) fn commands(
    ui: &Ui<'_>,
    pages: &Pages,
    at: (&ProjectId, &FoundPlace),
    place: usize,
    id: MessageOrigin,
) -> Markup {
    let (t, (project, found)) = (ui.t, at);
    let own = command_lines(ui, found, id);
    let is_open = pages.app.authenticator.is_open();
    let curl = is_shown(ui, found).then(|| curl(project, found, is_open));
    html! {
        details {
            summary { (t.commands) }
            h4 { "dms-worker" }
            (block(ui, &format!("command-{place}"), &own))
            @if let Some(curl) = curl { h4 { "curl" } (block(ui, &format!("curl-{place}"), &curl)) }
            @if ui.visitor.sees_bodies() && !is_shown(ui, found) { p.muted { (t.too_long_to_copy) } }
        }
    }
}

fn block(ui: &Ui<'_>, id: &str, text: &str) -> Markup {
    html! { div.code { pre #(id) tabindex="0" { code { (text) } } (ui.copy(id)) } }
}

/// Whether the commands that send the message are shown.
fn is_shown(ui: &Ui<'_>, found: &FoundPlace) -> bool {
    ui.visitor.sees_bodies() && found.json.len() <= MAX_SENT
}

fn command_lines(ui: &Ui<'_>, found: &FoundPlace, id: MessageOrigin) -> String {
    let mut lines = vec![format!("dms-worker message show {id}")];
    if found.found_in == FoundIn::DeadLetters {
        for group in &found.groups {
            lines.push(format!("dms-worker message retry {id} --queue {} --group {}", found.queue_name, group.name));
        }
    }
    if is_shown(ui, found) {
        lines.push(format!("printf '%s\\n' {} | dms-worker send {} -", quoted(&message(found)), found.queue_name));
    }
    lines.join("\n")
}

fn curl(project: &ProjectId, found: &FoundPlace, is_open: bool) -> String {
    let token = if is_open { "" } else { " -H \"X-Auth-Token: $TOKEN\"" };
    let body = quoted(&format!("{{\"messages\":[{}]}}", message(found)));
    format!(
        "ENDPOINT=http://127.0.0.1:9400\ncurl -X POST \"$ENDPOINT/v2/{project}/queues/{}/messages\" -H 'Content-Type: application/json'{token} \\\n  -d {body}",
        found.queue
    )
}

/// The message as one line of JSON without hidden characters.
fn message(found: &FoundPlace) -> String {
    visible_json(&compact(&String::from_utf8_lossy(&found.json))).into_owned()
}

/// A text as one word of a shell.
fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', "'\\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shell_reads_one_word() {
        assert_eq!(quoted("{\"a\": \"it's $HOME `x` \\\\\"}"), "'{\"a\": \"it'\\''s $HOME `x` \\\\\"}'");
    }
}
