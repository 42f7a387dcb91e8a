//! Pictures of outcomes, as SVG.

use std::error::Error;

use plotters::coord::Shift;
use plotters::prelude::*;

use super::outcome::Outcome;
use super::scenario::Scenario;

/// Smallest share of requests in the picture of latencies: beyond lies chance.
const RAREST: f64 = 1e-4;

/// Share of requests at its left edge.
const SOONEST: f64 = 0.01;

/// Columns of the picture of loads, and the size of each of its panels.
const COLUMNS: usize = 3;
const PANEL: (u32, u32) = (420, 260);

/// Up to so many targets are drawn one by one, more as quantiles.
const APART: usize = 12;

type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;
type Drawn = Result<(), Box<dyn Error>>;

/// For each balancer the share of requests that take longer than a time.
pub(super) fn latencies(outcomes: &[Outcome]) -> Result<String, Box<dyn Error>> {
    let mut text = String::new();
    draw_latencies(
        &SVGBackend::with_string(&mut text, (960, 600)).into_drawing_area(),
        outcomes,
    )?;
    Ok(text)
}

fn draw_latencies(area: &Area<'_>, outcomes: &[Outcome]) -> Drawn {
    area.fill(&WHITE)?;
    let all = || outcomes.iter().map(|outcome| &outcome.latencies);
    let at = |quantile| all().map(move |latencies| latencies.value_at_quantile(quantile));
    let least = at(SOONEST).min().unwrap_or(1).max(1) as f64 / 1e3;
    let most = at(1.0 - RAREST).max().unwrap_or(1) as f64 / 1e3;
    let mut chart = ChartBuilder::on(area)
        .caption("Latency", ("sans-serif", 22))
        .margin(12)
        .margin_right(36)
        .x_label_area_size(44)
        .y_label_area_size(70)
        .build_cartesian_2d(
            (least..most.max(least * 10.0)).log_scale(),
            (RAREST..1.0).log_scale(),
        )?;
    chart
        .configure_mesh()
        .x_desc("milliseconds")
        .y_desc("share of requests that take longer")
        .draw()?;
    for (number, outcome) in outcomes.iter().enumerate() {
        let colour = Palette99::pick(number).to_rgba();
        let count = outcome.latencies.len().max(1) as f64;
        let mut longer = count;
        let mut points = Vec::new();
        for value in outcome.latencies.iter_recorded() {
            longer -= value.count_since_last_iteration() as f64;
            let share = longer / count;
            if share >= RAREST {
                points.push((value.value_iterated_to() as f64 / 1e3, share));
            }
        }
        chart
            .draw_series(LineSeries::new(thinned(points), colour.stroke_width(2)))?
            .label(&outcome.balancer)
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 18, y)], colour.stroke_width(2)));
    }
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::LowerLeft)
        .background_style(WHITE.mix(0.8))
        .border_style(BLACK.mix(0.3))
        .draw()?;
    area.present()?;
    Ok(())
}

/// Points that lie apart enough to be seen apart.
fn thinned(points: Vec<(f64, f64)>) -> Vec<(f64, f64)> {
    let mut kept: Vec<(f64, f64)> = Vec::new();
    for point in points {
        let far = kept
            .last()
            .is_none_or(|(x, y)| point.0 > x * 1.01 || point.1 < y * 0.98);
        if far {
            kept.push(point);
        }
    }
    kept
}

/// For each balancer a panel with the requests that targets work on over time.
pub(super) fn loads(scenario: &Scenario, outcomes: &[Outcome]) -> Result<String, Box<dyn Error>> {
    let columns = outcomes.len().clamp(1, COLUMNS);
    let rows = outcomes.len().div_ceil(columns).max(1);
    let size = (PANEL.0 * columns as u32, PANEL.1 * rows as u32);
    let mut text = String::new();
    draw_loads(
        &SVGBackend::with_string(&mut text, size).into_drawing_area(),
        (rows, columns),
        scenario,
        outcomes,
    )?;
    Ok(text)
}

fn draw_loads(
    area: &Area<'_>,
    grid: (usize, usize),
    scenario: &Scenario,
    outcomes: &[Outcome],
) -> Drawn {
    area.fill(&WHITE)?;
    let all = outcomes
        .iter()
        .flat_map(|outcome| &outcome.timeline.working);
    let most = all.flatten().copied().fold(1.0, f64::max);
    for (panel, outcome) in area.split_evenly(grid).iter().zip(outcomes) {
        let mut chart = ChartBuilder::on(panel)
            .caption(&outcome.balancer, ("sans-serif", 16))
            .margin(8)
            .x_label_area_size(34)
            .y_label_area_size(52)
            .build_cartesian_2d(0.0..scenario.seconds(), (0.5..most * 1.1).log_scale())?;
        chart
            .configure_mesh()
            .x_labels(5)
            .y_labels(6)
            .x_desc("seconds")
            .y_desc("requests at a target")
            .draw()?;
        for (number, line) in lines(&outcome.timeline.working).into_iter().enumerate() {
            let points = line.into_iter().enumerate().map(|(sample, value)| {
                ((sample + 1) as f64 * outcome.timeline.step, value.max(0.5))
            });
            let colour = Palette99::pick(number);
            chart.draw_series(LineSeries::new(points, colour.stroke_width(1)))?;
        }
    }
    area.present()?;
    Ok(())
}

/// The lines of a panel: each target, or if they are many the maximum, the ninth decile, the median, the
/// first decile and the minimum.
fn lines(working: &[Vec<f64>]) -> Vec<Vec<f64>> {
    let targets = working.first().map_or(0, Vec::len);
    if targets <= APART {
        let of = |target: usize| working.iter().map(|sample| sample[target]).collect();
        return (0..targets).map(of).collect();
    }
    let sorted: Vec<Vec<f64>> = working
        .iter()
        .map(|sample| {
            let mut sample = sample.clone();
            sample.sort_unstable_by(f64::total_cmp);
            sample
        })
        .collect();
    [1.0, 0.9, 0.5, 0.1, 0.0]
        .into_iter()
        .map(|quantile| {
            let place = ((targets - 1) as f64 * quantile).round() as usize;
            sorted.iter().map(|sample| sample[place]).collect()
        })
        .collect()
}
