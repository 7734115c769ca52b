//! The condition of a data directory as text for people.

use std::{fmt::Write, process::ExitCode};

use serde_json::json;

use crate::cli::support::{context::Context, failure::Failure};
use dms_server::store::disk::tools::{backup::Backup, check::Condition};

/// How many damaged messages are named one by one; JSON has all of them.
const MAX_NAMED: usize = 20;

/// Prints it; the exit code is 0 if everything is whole, and 1 if not.
pub(super) fn show(found: &Condition, backup: Option<&Backup>, context: &Context) -> Result<ExitCode, Failure> {
    let json =
        json!({ "whole": found.is_whole(), "backup_commit": backup.map(|backup| backup.commit), "condition": found });
    context.printer().print(&text(found), &json)?;
    Ok(ExitCode::from(u8::from(!found.is_whole())))
}

fn text(found: &Condition) -> String {
    let mut text = match &found.refused {
        // Messages are read through the index, once the directory opens.
        Some(_) if found.messages == 0 => format!("{} commits are whole.\n", found.commits),
        _ => format!("{} messages and {} commits are whole.\n", found.messages, found.commits),
    };
    // Writing to a string does not fail.
    for file in &found.changed_files {
        let _ = writeln!(text, "Changed since the copy was made: {file}.");
    }
    for place in &found.damaged_commits {
        let _ = writeln!(text, "A commit is damaged: {} at byte {}.", place.file, place.offset);
    }
    if !found.damaged.is_empty() {
        let count = found.damaged.len();
        let _ = writeln!(text, "{count} messages are damaged; a server sets them aside and delivers all others:");
    }
    for one in found.damaged.iter().take(MAX_NAMED) {
        let group = one.group.as_ref().map(|group| format!(" of {group}")).unwrap_or_default();
        let _ = writeln!(
            text,
            "  {}{group}, {} {}: {} at byte {}: {}",
            one.queue, one.stream, one.sequence, one.file, one.offset, one.reason
        );
    }
    match &found.refused {
        Some(reason) => {
            let _ = writeln!(text, "The directory does not open: {reason}.");
        }
        None if found.is_whole() => {}
        None => text.push_str("The directory opens.\n"),
    }
    text
}
