//! `bench --sweep`: how the cost of a message changes with the load.
//!
//! Each curve changes one thing and leaves the rest as the options say. A point sends messages, then receives and acknowledges
//! them, on separate queues. Costs are CPU time of client and server together, because rates on a shared machine depend on both.

mod figures;
mod many_queues;
mod plot;
mod report;

use std::time::Duration;

use self::many_queues::ManyQueues;
pub(super) use self::report::report;
use super::{
    args::{BenchArgs, Scenario},
    batch,
    curves::Curve,
    figures::{Figures, Meter},
    load::Load,
    server::BenchServer,
    time_bar::TimeBar,
    with_queue,
};
use crate::cli::support::{context::Context, failure::Failure};

/// Longer than filling a queue takes.
const FILLING: Duration = Duration::from_secs(24 * 60 * 60);

/// A curve with its measured points, in the order of their values.
#[derive(Clone, Debug)]
pub(super) struct Swept {
    curve: Curve,
    points: Vec<Point>,
}

/// One point of a curve.
#[derive(Clone, Debug)]
pub(super) struct Point {
    value: u32,
    /// Bytes of each body.
    size: u32,
    sending: Figures,
    receiving: Figures,
}

/// Measures the curves, each once, in the order of the options.
pub(super) async fn measure(
    curves: &[Curve],
    target: &BenchServer,
    args: &BenchArgs,
    context: &Context,
) -> Result<Vec<Swept>, Failure> {
    let mut swept: Vec<Swept> = Vec::new();
    for &curve in curves {
        if swept.iter().any(|done| done.curve == curve) {
            continue;
        }
        let mut points = Vec::new();
        for value in curve.values(args.up_to) {
            if curve == Curve::Queues && !has_room(value, target).await? {
                context
                    .say(&format!("the quota of the project leaves no room for {value} queues: the curve ends before"));
                break;
            }
            points.push(point(curve, value, target, args, context).await?);
        }
        swept.push(Swept { curve, points });
    }
    Ok(swept)
}

/// Whether the quota of the project leaves room for this many queues, and one more. A service that has no quotas has.
async fn has_room(queues: u32, target: &BenchServer) -> Result<bool, Failure> {
    let quotas = target.client.quotas().await?;
    let quota = quotas.iter().find(|quota| quota.kind == "queue");
    Ok(quota.is_none_or(|quota| quota.used.unwrap_or(0) + u64::from(queues) < quota.quota))
}

async fn point(
    curve: Curve,
    value: u32,
    target: &BenchServer,
    args: &BenchArgs,
    context: &Context,
) -> Result<Point, Failure> {
    let count = usize::try_from(value).unwrap_or(usize::MAX);
    let groups = if curve == Curve::Groups { count } else { 1 };
    with_queue(target, args, groups, async |mut load| {
        match curve {
            Curve::Connections => load.connections = count,
            Curve::Workers => load.workers = count,
            Curve::Size => (load.size, load.batch) = (value, batch(args.batch, value)),
            Curve::Backlog => {
                Load { messages: count, duration: FILLING, ..load.clone() }.produce().await?;
            }
            Curve::Groups | Curve::Queues => {}
        }
        let bar = TimeBar::new(context, curve.name(), load.duration * 2);
        let measured = async {
            if curve == Curve::Queues { on_queues(count, &load, target).await } else { on_one(&load, target).await }
        };
        let (sending, receiving) = bar.of(measured).await?;
        Ok(Point { value, size: load.size, sending, receiving })
    })
    .await
}

/// Sends to the queue of the load, and consumes from it.
async fn on_one(load: &Load, target: &BenchServer) -> Result<(Figures, Figures), Failure> {
    let meter = Meter::start(target.process);
    let sent = load.produce().await?;
    let messages = sent.produced;
    let sending = meter.stop(Scenario::Produce.name(), sent, load.size);
    let meter = Meter::start(target.process);
    let receiving = meter.stop(Scenario::Consume.name(), load.consume(messages).await?, load.size);
    Ok((sending, receiving))
}

/// Sends to many queues in turn, and consumes from them in turn.
async fn on_queues(count: usize, load: &Load, target: &BenchServer) -> Result<(Figures, Figures), Failure> {
    let queues = ManyQueues::create(count, load).await?;
    let measured = async {
        let meter = Meter::start(target.process);
        let sent = queues.produce().await?;
        let messages = sent.produced;
        let sending = meter.stop(Scenario::Produce.name(), sent, load.size);
        let meter = Meter::start(target.process);
        let receiving = meter.stop(Scenario::Consume.name(), queues.consume(messages).await?, load.size);
        Ok::<_, Failure>((sending, receiving))
    }
    .await;
    let deleted = queues.delete().await;
    let measured = measured?;
    deleted?;
    Ok(measured)
}
