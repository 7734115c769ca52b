//! The results of a sweep: a table, figures in JSON, and a plot.

use std::{fs, io, path::Path};

use serde::Serialize;

use super::{
    super::args::BenchArgs,
    Swept,
    figures::{CurveFigures, PointFigures},
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
    use crate::cli::commands::bench::sweep::Curve;

    #[test]
    fn figures_that_are_not_known_are_dashes() {
        let point = PointFigures {
            value: 1,
            sent_per_second: 1_000.4,
            acknowledged_per_second: 500.0,
            send_ms: None,
            client_cpu_us_per_message: None,
            server_cpu_us_per_message: None,
            cpu_us_per_kib: None,
            relative: None,
        };
        let curve = CurveFigures { name: Curve::Groups, spread_percent: None, flat: None, points: vec![point] };
        assert_eq!(markdown(&[curve]).lines().nth(2), Some("| groups | 1 | 1000 | 500 | - | - | - | - |"));
    }
}
