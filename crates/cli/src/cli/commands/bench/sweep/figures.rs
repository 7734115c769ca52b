//! [`CurveFigures`]: the results of a measured curve, with its points compared.

use serde::Serialize;

use super::{
    super::{
        curves::{Curve, FLAT_PERCENT},
        figures::{Cost, Figures, Latencies},
    },
    Point, Swept,
};

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
    /// The cost against the first point; bodies of different sizes are compared by the byte.
    pub(super) relative: Option<f64>,
}

impl PointFigures {
    fn of(point: &Point) -> Self {
        let sum = |side: fn(&Figures) -> Option<Cost>| {
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
    pub(super) fn of(swept: &Swept) -> Self {
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
    }
}
