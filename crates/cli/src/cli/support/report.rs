//! A failure on standard error, and as an exit code.

use std::process::ExitCode;

use crate::cli::support::{
    context::Context,
    failure::{Failure, Kind},
    global_options::Format,
    terminal,
};

const RED: &str = "\u{1b}[1;31m";

/// Prints the failure and gives the exit code.
pub(crate) fn report(failure: &Failure, context: &Context) -> ExitCode {
    if failure.kind() != Kind::ClosedPipe {
        match context.global.output {
            Format::Text => text(failure, context),
            Format::Json => json(failure),
        }
    }
    ExitCode::from(failure.kind().code())
}

fn text(failure: &Failure, context: &Context) {
    let hint = match (failure.kind(), context.endpoint()) {
        (Kind::Unavailable, Some(endpoint)) => {
            format!("; is a service running at {endpoint}? (--endpoint names another)")
        }
        _ => String::new(),
    };
    let head = format!("{}error:{} ", context.style(RED), context.style(""));
    terminal::tell_styled(&head, &format!("{failure}{hint}"));
    if context.global.verbose > 0 {
        failure.causes().iter().for_each(|cause| terminal::tell(&format!("  caused by: {cause}")));
    }
}

fn json(failure: &Failure) {
    let error = serde_json::json!({
        "code": failure.kind().name(),
        "exit_code": failure.kind().code(),
        "message": failure.to_string(),
        "causes": failure.causes(),
    });
    terminal::tell_json(&serde_json::json!({ "error": error }).to_string());
}
