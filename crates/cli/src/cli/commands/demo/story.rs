//! What the tour tells while it goes, and its closing table.

use std::io;

use indicatif::ProgressBar;

use dms_worker::Dialect;

use crate::cli::{
    commands::demo::ledger::Summary,
    support::{context::Context, global_options::Format, progress::bar},
};

const GREEN: &str = "\u{1b}[32m";
const RED: &str = "\u{1b}[31m";
const BOLD: &str = "\u{1b}[1m";

/// The narrator: on standard error for a person, silent for a program.
pub(super) struct Story<'a> {
    context: &'a Context,
    /// Whether messages that keep failing are parked.
    parks: bool,
}

impl<'a> Story<'a> {
    pub(super) fn new(context: &'a Context, dialect: Dialect) -> Self {
        Self { context, parks: dialect == Dialect::Mqs }
    }

    /// A bar that counts to `length`; hidden where there is no terminal.
    pub(super) fn bar(&self, what: &'static str, length: usize) -> ProgressBar {
        let bar = bar(self.context, Some(length as u64), "  {bar:40.green} {pos}/{len} {msg}");
        bar.set_style(bar.style().progress_chars("━━─"));
        bar.with_message(what)
    }

    pub(super) fn server(&self, url: &str) {
        self.step(
            "server",
            &format!(
                "{} in this process, in memory, on {url}",
                if self.parks { "an MQS server" } else { "a DMS server" }
            ),
        );
        self.step(
            "queue",
            match self.parks {
                true => "topic orders, with the group billing; parked in orders-parked after 3 failures",
                false => "orders, with the group billing; dead letters after 3 failures",
            },
        );
    }

    pub(super) fn sent(&self, orders: usize) {
        self.step("send", &format!("{orders} orders, one in a hundred of them poison"));
    }

    pub(super) fn handled(&self, handled: usize, poison: usize) {
        let now = if self.parks { "parked" } else { "dead letters" };
        self.step("work", &format!("{handled} orders handled; {poison} failed three times and are {now} now"));
    }

    /// Shows a few of the dead letters.
    pub(super) fn dead_letters(&self, bodies: &[String]) {
        for body in bodies {
            self.step("", body);
        }
        self.step("fix", "the handler is fixed and can process them");
    }

    pub(super) fn redriven(&self, redriven: u64, poison: usize) {
        let what = if self.parks { "parked messages" } else { "dead letters" };
        self.step("redrive", &format!("{redriven} of {poison} {what} sent again and handled"));
    }

    /// The link to the dashboard, which goes on.
    #[cfg(feature = "dashboard")]
    pub(super) fn dashboard(&self, link: &str, url: &str, token: &str) {
        self.step("dashboard", &format!("{link}   (logs in once, within 10 minutes)"));
        self.step("", &format!("later: {url} with the token {token}; Ctrl-C ends the demo"));
    }

    fn step(&self, name: &str, text: &str) {
        let (bold, plain) = (self.context.style(BOLD), self.context.style(""));
        self.context.say_styled(&format!("{bold}{name:>9}{plain}  "), text);
    }

    /// The closing table, or JSON for a program.
    ///
    /// # Errors
    /// When it cannot be written.
    pub(super) fn summary(&self, summary: &Summary) -> io::Result<()> {
        let printer = self.context.printer();
        if self.context.global.output == Format::Json {
            let mut value = serde_json::to_value(summary).map_err(io::Error::other)?;
            value["complete"] = summary.is_complete().into();
            return printer.json(&value);
        }
        let rows = [
            ("sent", summary.sent.to_string()),
            ("handled", summary.handled.to_string()),
            ("redelivered", summary.redelivered.to_string()),
            (if self.parks { "parked" } else { "dead-lettered" }, summary.dead_lettered.to_string()),
            ("redriven", summary.redriven.to_string()),
            ("lost", summary.lost.to_string()),
            ("messages per second", format!("{:.0}", summary.messages_per_second)),
            ("send to handled, p50", format!("{:.1} ms", summary.p50_ms)),
            ("send to handled, p99", format!("{:.1} ms", summary.p99_ms)),
        ];
        self.context.say("");
        printer.text(&rows.map(|(name, value)| format!("  {name:<22}{value:>12}")).join("\n"))?;
        let (verdict, color) = match summary.is_complete() {
            true => ("every message is accounted for", GREEN),
            false => ("messages are missing", RED),
        };
        let verdict = format!("\n  {}{verdict}{}", self.context.style(color), self.context.style(""));
        self.context.say_styled(&verdict, "");
        Ok(())
    }
}
