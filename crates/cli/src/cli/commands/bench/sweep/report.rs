//! The results of a sweep: a table, figures in JSON, and a plot.

use std::{fs, io, path::Path};

use serde::Serialize;

use super::{
    super::{args::BenchArgs, figures::Latencies},
    Point, Swept,
    curves::{Curve, FLAT_PERCENT},
    plot,
};
use crate::cli::support::{context::Context, failure::Failure, table::Table};
use dms_protocol::internal::secret_url::without_secrets;

/// All results, as they are in `sweep.json`.
#[derive(Debug, Serialize)]
struct Report {
    target: String,
    durable: bool,
    connections: u16,
    bytes: u32,
    curves: Vec<CurveFigures>,
}

/// The results of a curve.
#[derive(Clone, Debug, Serialize)]
pub(super) struct CurveFigures {
    pub(super) name: Curve,
    /// How much the dearest point costs more than the cheapest, in percent. Bodies of different sizes are compared by the byte.
    pub(super) spread_percent: Option<f64>,
    /// Whether the spread is at most 10 percent.
    pub(super) flat: Option<bool>,
    pub(super) points: Vec<PointFigures>,
}

/// The results of a point.
#[derive(Clone, Debug, Serialize)]
pub(super) struct PointFigures {
    pub(super) value: u32,
    /// Messages sent in a second, while nothing was received.
    pub(super) sent_per_second: f64,
    /// Messages received and acknowledged in a second, while nothing was sent.
    pub(super) acknowledged_per_second: f64,
    /// The latency of send requests.
    pub(super) send_ms: Option<Latencies>,
    /// CPU time of this process for sending one message, receiving it and acknowledging it.
    pub(super) client_cpu_us_per_message: Option<f64>,
    /// CPU time of the server for the same.
    pub(super) server_cpu_us_per_message: Option<f64>,
    /// Both of them for each KiB of bodies.
    pub(super) cpu_us_per_kib: Option<f64>,
    /// The cost against that of the first point; bodies of different sizes by the byte.
    pub(super) relative: Option<f64>,
}

impl PointFigures {
    fn of(point: &Point) -> Self {
        let sum = |side: fn(&super::Figures) -> Option<super::super::figures::Cost>| {
            Some(side(&point.sending)?.cpu_us_per_message + side(&point.receiving)?.cpu_us_per_message)
        };
        let (client, server) = (sum(|run| run.client), sum(|run| run.server));
        Self {
            value: point.value,
            sent_per_second: point.sending.produced_per_second,
            acknowledged_per_second: point.receiving.acknowledged_per_second,
            send_ms: point.sending.latency_ms,
            client_cpu_us_per_message: client,
            server_cpu_us_per_message: server,
            cpu_us_per_kib: client
                .zip(server)
                .map(|(client, server)| (client + server) * 1_024.0 / f64::from(point.size)),
            relative: None,
        }
    }

    /// CPU time of both sides for each message, in microseconds.
    pub(super) fn cost(&self) -> Option<f64> {
        Some(self.client_cpu_us_per_message? + self.server_cpu_us_per_message?)
    }
}

impl CurveFigures {
    fn of(swept: &Swept) -> Self {
        compared(swept.curve, swept.points.iter().map(PointFigures::of).collect())
    }
}

/// The figures of a curve, with each point compared with the first.
fn compared(name: Curve, mut points: Vec<PointFigures>) -> CurveFigures {
    let cost = |point: &PointFigures| if name == Curve::Size { point.cpu_us_per_kib } else { point.cost() };
    let costs: Option<Vec<f64>> = points.iter().map(cost).collect();
    let mut spread_percent = None;
    if let Some(costs) = costs.filter(|costs| costs.iter().all(|cost| *cost > 0.0)) {
        let least = costs.iter().copied().fold(f64::INFINITY, f64::min);
        let most = costs.iter().copied().fold(0.0, f64::max);
        spread_percent = Some((most / least - 1.0) * 100.0);
        for (point, cost) in points.iter_mut().zip(&costs) {
            point.relative = Some(cost / costs[0]);
        }
    }
    let flat = spread_percent.map(|spread| spread <= FLAT_PERCENT + 1e-9);
    CurveFigures { name, spread_percent, flat, points }
}

/// Prints the results, and writes them to the directory of the options.
pub(in super::super) fn report(swept: &[Swept], args: &BenchArgs, context: &Context) -> Result<(), Failure> {
    let report = Report {
        target: args.against.as_deref().map_or("child process".to_owned(), without_secrets),
        durable: args.data_dir.is_some(),
        connections: args.connections,
        bytes: args.size,
        curves: swept.iter().map(CurveFigures::of).collect(),
    };
    let json = serde_json::to_string_pretty(&report).map_err(io::Error::other)?;
    let svg = plot::svg(&report.curves)?;
    let files = [("sweep.md", markdown(&report.curves)), ("sweep.json", json + "\n"), ("sweep.svg", svg)];
    for (name, text) in files {
        write(&args.report, name, &text)?;
    }
    let wrote = format!("wrote sweep.md, sweep.json and sweep.svg to {}", args.report.display());
    Ok(context.printer().print(&format!("{}\n{LEGEND}\n{wrote}", table(&report.curves)), &report)?)
}

const LEGEND: &str = "CLIENT, SERVER: CPU time to send one message, to receive and to acknowledge it. RELATIVE: both, against the \
                      first point of the curve; for sizes by the byte.";

const HEADS: [&str; 8] = ["CURVE", "VALUE", "SENT/S", "ACKED/S", "SEND P99", "CLIENT", "SERVER", "RELATIVE"];

fn write(directory: &Path, name: &str, text: &str) -> Result<(), Failure> {
    let path = directory.join(name);
    let written = fs::create_dir_all(directory).and_then(|()| fs::write(&path, text));
    written.map_err(|error| Failure::new(format!("--report: cannot write {}: {error}", path.display())).because(error))
}

fn rows(curves: &[CurveFigures]) -> Vec<[String; 8]> {
    let time = |time: Option<f64>| time.map_or_else(|| "-".to_owned(), |time| format!("{time:.1} µs"));
    let row = |curve: &CurveFigures, point: &PointFigures| {
        [
            curve.name.name().to_owned(),
            point.value.to_string(),
            format!("{:.0}", point.sent_per_second),
            format!("{:.0}", point.acknowledged_per_second),
            point.send_ms.map_or_else(|| "-".to_owned(), |latencies| format!("{:.1} ms", latencies.p99)),
            time(point.client_cpu_us_per_message),
            time(point.server_cpu_us_per_message),
            point.relative.map_or_else(|| "-".to_owned(), |relative| format!("{relative:.2} x")),
        ]
    };
    curves.iter().flat_map(|curve| curve.points.iter().map(move |point| row(curve, point))).collect()
}

fn table(curves: &[CurveFigures]) -> Table {
    let mut table = Table::new(&HEADS);
    for row in rows(curves) {
        table.row(row);
    }
    table
}

fn markdown(curves: &[CurveFigures]) -> String {
    let line = |cells: &[String]| format!("| {} |\n", cells.join(" | "));
    let mut text = line(&HEADS.map(|head| head.to_lowercase()));
    text += "|---|---:|---:|---:|---:|---:|---:|---:|\n";
    text.extend(rows(curves).iter().map(|row| line(row)));
    text + "\n" + LEGEND + "\n"
}

#[cfg(test)]
mod tests {
    use super::*;

    fn point(value: u32, cost: Option<f64>) -> PointFigures {
        let half = cost.map(|cost| cost / 2.0);
        PointFigures {
            value,
            sent_per_second: 1_000.4,
            acknowledged_per_second: 500.0,
            send_ms: None,
            client_cpu_us_per_message: half,
            server_cpu_us_per_message: half,
            cpu_us_per_kib: cost.map(|cost| cost * 1_024.0 / f64::from(value)),
            relative: None,
        }
    }

    #[test]
    fn a_curve_is_flat_up_to_a_tenth_more_than_its_cheapest_point() {
        let flat = compared(Curve::Queues, vec![point(1, Some(10.5)), point(10, Some(10.0)), point(100, Some(11.0))]);
        assert_eq!((flat.spread_percent.map(f64::round), flat.flat), (Some(10.0), Some(true)));
        assert_eq!(flat.points[0].relative, Some(1.0));
        let steep = compared(Curve::Queues, vec![point(1, Some(10.0)), point(10, Some(15.0))]);
        assert_eq!((steep.flat, steep.points[1].relative), (Some(false), Some(1.5)));
    }

    #[test]
    fn sizes_are_compared_by_the_byte() {
        let curve = compared(Curve::Size, vec![point(100, Some(10.0)), point(1_000, Some(100.0))]);
        assert_eq!((curve.flat, curve.points[1].relative), (Some(true), Some(1.0)));
    }

    #[test]
    fn without_the_cost_of_the_server_nothing_is_called_flat() {
        let curve = compared(Curve::Groups, vec![point(1, None), point(2, None)]);
        assert_eq!((curve.spread_percent, curve.flat), (None, None));
        assert_eq!(
            markdown(&[curve]).lines().nth(2),
            Some("| groups | 1 | 1000 | 500 | - | - | - | - |"),
            "figures that are not known are dashes"
        );
    }
}
