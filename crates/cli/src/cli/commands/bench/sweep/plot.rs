//! The plot of a sweep: one small chart for each curve, drawn as SVG.

use plotters::{prelude::*, style::text_anchor};

use super::figures::{CurveFigures, PointFigures};
use crate::cli::support::failure::Failure;

/// Columns of charts.
const COLUMNS: usize = 3;
/// Width and height of a chart in pixels.
const CHART: (u32, u32) = (360, 280);
/// Room above the highest point.
const HEADROOM: f64 = 1.25;

/// Draws the curves, in the order given.
pub(super) fn svg(curves: &[CurveFigures]) -> Result<String, Failure> {
    let mut text = String::new();
    draw(curves, &mut text).map_err(|error| Failure::new(format!("cannot draw the plot: {error}")))?;
    Ok(text)
}

/// Whose cost a line shows.
type Cost = fn(&PointFigures) -> Option<f64>;

type Drawn = Result<(), Box<dyn std::error::Error>>;

fn draw(curves: &[CurveFigures], text: &mut String) -> Drawn {
    let columns = curves.len().clamp(1, COLUMNS);
    let rows = curves.len().div_ceil(columns).max(1);
    let side = |charts: usize, length: u32| u32::try_from(charts).map(|charts| charts * length);
    let area = SVGBackend::with_string(text, (side(columns, CHART.0)?, side(rows, CHART.1)?)).into_drawing_area();
    area.fill(&WHITE)?;
    for (curve, chart) in curves.iter().zip(area.split_evenly((rows, columns))) {
        draw_one(curve, &chart)?;
    }
    area.present()?;
    drop(area);
    Ok(())
}

/// Values at equal distances, as they grow by factors; CPU time for each message upwards from 0.
fn draw_one(curve: &CurveFigures, area: &DrawingArea<SVGBackend<'_>, plotters::coord::Shift>) -> Drawn {
    let lines: [(&str, RGBColor, Cost); 3] = [
        ("both", RGBColor(0x1f, 0x2a, 0x44), PointFigures::cost),
        ("server", RGBColor(0xc2, 0x41, 0x0c), |point| point.server_cpu_us_per_message),
        ("client", RGBColor(0x1d, 0x6f, 0xb8), |point| point.client_cpu_us_per_message),
    ];
    let highest =
        curve.points.iter().filter_map(|point| point.cost().or(point.client_cpu_us_per_message)).fold(0.0, f64::max);
    let right = curve.points.len().saturating_sub(1) as f64;
    let mut chart = ChartBuilder::on(area)
        .caption(format!("µs for each message, by {}", curve.name.title()), ("sans-serif", 14))
        .margin(12)
        .x_label_area_size(26)
        .y_label_area_size(44)
        .build_cartesian_2d(-0.3..right + 0.3, 0.0..(highest * HEADROOM).max(1.0))?;
    chart
        .configure_mesh()
        .disable_x_mesh()
        .light_line_style(TRANSPARENT)
        .bold_line_style(RGBColor(0xe2, 0xe5, 0xea))
        .axis_style(RGBColor(0x6b, 0x72, 0x80))
        .label_style(("sans-serif", 11))
        .x_labels(0)
        .y_labels(6)
        .y_label_formatter(&|cost| format!("{cost:.0}"))
        .draw()?;
    for (name, color, of) in lines {
        let places: Vec<_> =
            curve.points.iter().map(of).enumerate().filter_map(|(at, cost)| Some((at as f64, cost?))).collect();
        chart.draw_series(LineSeries::new(places.iter().copied(), color.stroke_width(2)))?;
        chart.draw_series(places.iter().map(|place| Circle::new(*place, 3, color.filled())))?;
        // The lines of client and server may lie on each other: their names are at different ends.
        let (place, side) = if name == "server" {
            (places.first(), text_anchor::HPos::Left)
        } else {
            (places.last(), text_anchor::HPos::Right)
        };
        if let Some(place) = place {
            let font = ("sans-serif", 11).into_font().color(&color);
            let style = font.pos(text_anchor::Pos::new(side, text_anchor::VPos::Bottom));
            chart.draw_series([Text::new(name, (place.0, place.1 + highest * 0.02), style)])?;
        }
    }
    let below = ("sans-serif", 11)
        .into_font()
        .color(&BLACK)
        .pos(text_anchor::Pos::new(text_anchor::HPos::Center, text_anchor::VPos::Top));
    for (at, point) in curve.points.iter().enumerate() {
        let (x, y) = chart.backend_coord(&(at as f64, 0.0));
        area.draw_text(&short(point.value), &below, area_place(area, x, y + 6))?;
    }
    Ok(())
}

/// A place of the whole drawing as one of this part of it.
fn area_place(area: &DrawingArea<SVGBackend<'_>, plotters::coord::Shift>, x: i32, y: i32) -> (i32, i32) {
    let (left, top) = area.get_base_pixel();
    (x - left, y - top)
}

/// A number with at most four characters.
fn short(value: u32) -> String {
    match value {
        1_000_000.. => format!("{} M", value / 1_000_000),
        1_000.. => format!("{} k", value / 1_000),
        _ => value.to_string(),
    }
}
