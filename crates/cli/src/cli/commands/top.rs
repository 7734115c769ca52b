//! `top`: all groups with their backlogs and rates, drawn again and again.

use std::{cmp::Reverse, time::Duration};

use clap::{Args, ValueEnum};
use jiff::{Zoned, tz::TimeZone};
use tokio::time::{Instant, sleep_until, timeout};

use crate::{
    cli::{
        commands::{
            overview::{
                Row,
                figures::{count, rate},
                rows, table,
            },
            queue,
        },
        service::signals,
        support::{context::Context, failure::Failure, global_options::Format, screen::Screen},
    },
    config::Span,
};
use dms_worker::client::{Client, QueueOverview};

/// How long an answer may take before the screen says so.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);

/// Options of `top`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  dms-worker top
  dms-worker top --sort oldest --interval 5s
  dms-worker top | cat                one snapshot

The key q ends it, and so does Ctrl-C. FLIGHT: leased messages. POLLS: consume calls that wait
for a message. IN/S and OUT/S: messages sent and acknowledged per second, over the last 10 to 15 seconds.")]
pub(crate) struct TopArgs {
    /// The time between two looks, at least 1s
    #[arg(long, default_value = "2s", value_name = "DURATION")]
    interval: Span,
    /// The order of the lines: backlog, oldest, in, out, dead or name
    #[arg(long, value_enum, default_value_t = Order::Backlog, value_name = "COLUMN", hide_possible_values = true)]
    sort: Order,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Order {
    Backlog,
    Oldest,
    In,
    Out,
    Dead,
    Name,
}

impl Order {
    fn sort(self, rows: &mut [Row]) {
        let thousandths = |rate: Option<f64>| {
            #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "it saturates")]
            rate.map(|rate| (rate * 1_000.0) as u64)
        };
        // Groups that are equal in the column keep the order of their names.
        match self {
            Self::Backlog => rows.sort_by_key(|row| Reverse(row.backlog)),
            Self::Oldest => rows.sort_by_key(|row| Reverse(row.oldest)),
            Self::In => rows.sort_by_key(|row| Reverse(thousandths(row.in_per_second))),
            Self::Out => rows.sort_by_key(|row| Reverse(thousandths(row.out_per_second))),
            Self::Dead => rows.sort_by_key(|row| Reverse(row.dead)),
            Self::Name => {}
        }
    }
}

/// Shows all groups until it is ended; once where standard output is no terminal.
pub(crate) async fn run(args: TopArgs, context: &Context) -> Result<(), Failure> {
    let client = context.client()?;
    let first = queue::sorted(client.overview().await?);
    if context.global.output == Format::Json {
        return Ok(context.printer().json(&first.iter().map(queue::overview_object).collect::<Vec<_>>())?);
    }
    let endpoint = context.endpoint().unwrap_or_default();
    if !console::Term::stdout().is_term() {
        return Ok(context.printer().text(&frame(&first, args.sort, endpoint, None, table::width()).join("\n"))?);
    }
    watch(&client, first, &args, endpoint).await
}

async fn watch(client: &Client, mut seen: Vec<QueueOverview>, args: &TopArgs, endpoint: &str) -> Result<(), Failure> {
    let interval = args.interval.get().max(Duration::from_secs(1));
    let mut screen = Screen::enter()?;
    let ended = signals::first();
    tokio::pin!(ended);
    let (mut trouble, mut next) = (None, Instant::now());
    loop {
        screen.draw(&frame(&seen, args.sort, endpoint, trouble.as_deref(), table::width()))?;
        next = (next + interval).max(Instant::now());
        let look = async {
            sleep_until(next).await;
            timeout(ANSWER_TIMEOUT, client.overview()).await
        };
        let looked = tokio::select! {
            looked = look => looked,
            () = screen.quit() => return Ok(()),
            () = &mut ended => return Ok(()),
        };
        trouble = match looked {
            Ok(Ok(queues)) => {
                seen = queue::sorted(queues);
                None
            }
            Ok(Err(error)) => Some(error.to_string()),
            Err(_) => Some(format!("no answer within {} s", ANSWER_TIMEOUT.as_secs())),
        };
    }
}

/// The lines of the screen. After a failure they show the figures of before, and why there are no newer ones.
fn frame(queues: &[QueueOverview], order: Order, endpoint: &str, trouble: Option<&str>, width: usize) -> Vec<String> {
    let mut rows = rows(queues);
    order.sort(&mut rows);
    let sum = |part: fn(&Row) -> Option<u64>| rows.iter().filter_map(part).sum::<u64>();
    let flow: f64 = queues.iter().filter_map(|queue| queue.produced_per_second).sum();
    let time = Zoned::now().with_time_zone(TimeZone::system()).strftime("%H:%M:%S").to_string();
    let mut lines = vec![
        cut(&format!("{time}  {endpoint}"), width),
        cut(
            &format!(
                "{} queues  backlog {}  in flight {}  dead {}  in {}/s  out {}/s",
                queues.len(),
                count(sum(|row| Some(row.backlog))),
                count(sum(|row| row.in_flight)),
                count(sum(|row| row.dead)),
                rate(flow),
                rate(rows.iter().filter_map(|row| row.out_per_second).sum()),
            ),
            width,
        ),
        trouble.map_or_else(String::new, |trouble| cut(&format!("figures are old: {trouble}"), width)),
    ];
    lines.extend(table::lines(&rows, width));
    lines
}

fn cut(text: &str, width: usize) -> String {
    console::truncate_str(text, width, "…").into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(name: &str, backlog: u64, oldest: Option<u64>) -> Row {
        Row {
            queue: name.to_owned(),
            group: None,
            backlog,
            in_flight: None,
            delayed: None,
            dead: Some(backlog / 10),
            oldest: oldest.map(Duration::from_secs),
            waiting: None,
            in_per_second: None,
            out_per_second: None,
        }
    }

    #[test]
    fn the_largest_is_first_and_equals_stay_in_order() {
        let sorted = |order: Order| {
            let mut rows = [row("a", 5, Some(1)), row("b", 50, None), row("c", 5, Some(9))];
            order.sort(&mut rows);
            rows.map(|row| row.queue).concat()
        };
        assert_eq!(sorted(Order::Backlog), "bac");
        assert_eq!(sorted(Order::Oldest), "cab");
        assert_eq!(sorted(Order::Dead), "bac");
        assert_eq!(sorted(Order::Name), "abc");
    }

    #[test]
    fn a_frame_fits_the_width() {
        let lines = frame(&[], Order::Name, &"x".repeat(200), Some(&"y".repeat(200)), 60);
        assert!(lines.iter().all(|line| console::measure_text_width(line) <= 60), "{lines:#?}");
        assert!(lines[2].starts_with("figures are old: yyy"));
    }
}
