//! Plots of outcomes, as SVG.

mod axis;
mod colours;

use std::error::Error;

use plotters::coord::Shift;
use plotters::element::DashedPathElement;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

use axis::Axis;
use colours::COLOURS;

use super::outcome::{SimulationResult, short_names};
use super::scenario::Scenario;
use crate::named::Named;

/// Smallest share of requests in the plot of latencies: below it, values are random.
const RAREST: f64 = 1e-4;

/// Share of requests at its left edge.
const SOONEST: f64 = 0.01;

/// Size of the plot of latencies, and the width of its legend.
const LATENCIES: (u32, u32) = (1080, 600);
const LEGEND: u32 = 220;

/// Columns of the plot of loads, and the size of each of its panels.
const COLUMNS: usize = 3;
const PANEL: (u32, u32) = (420, 260);

/// For the plot of loads: height of its title and of a row of its legend, and least width of an
/// entry.
const TITLE: u32 = 34;
const LEGEND_ROW: u32 = 20;
const LEGEND_ENTRY: u32 = 140;

/// Width of a letter of a legend, at most.
const LEGEND_LETTER: u32 = 8;

/// Length of a line in a legend.
const SAMPLE: i32 = 26;

/// Up to this many targets have a line each; if there are more, quantiles are drawn.
const APART: usize = 12;

/// The lines if there are many targets.
const QUANTILES: [(&str, f64); 5] = [
    ("maximum", 1.0),
    ("90th percentile", 0.9),
    ("median", 0.5),
    ("10th percentile", 0.1),
    ("minimum", 0.0),
];

/// Lengths of dashes and gaps, in pixels: they distinguish lines of the same colour. The first is
/// solid.
const DASHES: [Option<(i32, i32)>; 3] = [None, Some((9, 4)), Some((3, 3))];

type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;
type Drawn = Result<(), Box<dyn Error>>;

/// The style of the line with a given number.
#[derive(Clone, Copy)]
struct Stroke {
    style: ShapeStyle,
    dash: Option<(i32, i32)>,
}

impl Stroke {
    fn of(number: usize, width: u32) -> Self {
        Self {
            style: COLOURS[number % COLOURS.len()].stroke_width(width),
            dash: DASHES[number / COLOURS.len() % DASHES.len()],
        }
    }

    /// Draws a line of the legend, with its text.
    fn explain(self, area: &Area<'_>, (x, y): (i32, i32), text: &str) -> Drawn {
        let ends = [(x, y), (x + SAMPLE, y)];
        match self.dash {
            None => area.draw(&PathElement::new(ends, self.style))?,
            Some((dash, gap)) => {
                area.draw(&DashedPathElement::new(ends, dash, gap, self.style))?;
            }
        }
        let style = ("sans-serif", 13).into_text_style(area);
        let style = style.pos(Pos::new(HPos::Left, VPos::Center));
        area.draw(&Text::new(text.to_owned(), (x + SAMPLE + 7, y), style))?;
        Ok(())
    }
}

/// Plots, for each balancer, the share of requests that take longer than a time.
pub(super) fn latencies(
    title: &str,
    outcomes: &[SimulationResult],
) -> Result<String, Box<dyn Error>> {
    let mut text = String::new();
    draw_latencies(
        &SVGBackend::with_string(&mut text, LATENCIES).into_drawing_area(),
        title,
        outcomes,
    )?;
    Ok(text)
}

fn draw_latencies(area: &Area<'_>, title: &str, outcomes: &[SimulationResult]) -> Drawn {
    area.fill(&WHITE)?;
    let (left, right) = area.split_horizontally(LATENCIES.0 - LEGEND);
    let all = || outcomes.iter().map(|outcome| &outcome.latencies);
    let at = |quantile| all().map(move |latencies| latencies.value_at_quantile(quantile));
    let least = at(SOONEST).min().unwrap_or(1).max(1) as f64 / 1e3;
    let most = at(1.0 - RAREST).max().unwrap_or(1) as f64 / 1e3;
    let most = most.max(least * 10.0);
    let mut chart = ChartBuilder::on(&left)
        .caption(format!("Latency: {title}"), ("sans-serif", 20))
        .margin(12)
        .margin_right(24)
        .x_label_area_size(44)
        .y_label_area_size(74)
        .build_cartesian_2d(
            Axis::logarithmic(least, most),
            Axis::logarithmic(RAREST, 1.0),
        )?;
    chart
        .configure_mesh()
        .light_line_style(TRANSPARENT)
        .x_desc("milliseconds")
        .y_desc("share of requests that take longer")
        .x_label_formatter(&|value| axis::label(*value))
        .y_label_formatter(&|value| format!("{} %", axis::label(*value * 100.0)))
        .draw()?;
    let names = short_names(outcomes);
    for (number, outcome) in outcomes.iter().enumerate() {
        let count = outcome.latencies.len().max(1) as f64;
        let mut longer = count;
        let mut points = Vec::new();
        for value in outcome.latencies.iter_recorded() {
            longer -= value.count_since_last_iteration() as f64;
            let share = longer / count;
            let milliseconds = value.value_iterated_to() as f64 / 1e3;
            if share >= RAREST && milliseconds >= least {
                points.push((milliseconds, share));
            }
        }
        let stroke = Stroke::of(number, 2);
        let points = thinned(points);
        match stroke.dash {
            None => {
                chart.draw_series(LineSeries::new(points, stroke.style))?;
            }
            Some((dash, gap)) => {
                chart.draw_series(DashedLineSeries::new(points, dash, gap, stroke.style))?;
            }
        }
        let place = (6, 60 + 22 * number as i32);
        stroke.explain(&right, place, &names[number])?;
    }
    area.present()?;
    Ok(())
}

/// The points without those that are too close together to be distinguished.
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

/// Plots, for each balancer, a panel with the requests in progress at targets over time.
pub(super) fn loads(
    title: &str,
    scenario: &Scenario,
    outcomes: &[SimulationResult],
) -> Result<String, Box<dyn Error>> {
    let columns = outcomes.len().clamp(1, COLUMNS);
    let rows = outcomes.len().div_ceil(columns).max(1);
    let width = PANEL.0 * columns as u32;
    let names = line_names(scenario, outcomes);
    let longest = names.iter().map(|name| name.chars().count()).max();
    let entry = 2 * SAMPLE as u32 + LEGEND_LETTER * longest.unwrap_or(0) as u32;
    let entry = entry.clamp(LEGEND_ENTRY, width);
    let entries = (width / entry) as usize;
    let legend = LEGEND_ROW * names.len().div_ceil(entries) as u32 + 8;
    let panels = PANEL.1 * rows as u32;
    let mut text = String::new();
    let area = SVGBackend::with_string(&mut text, (width, TITLE + panels + legend));
    let area = area.into_drawing_area();
    area.fill(&WHITE)?;
    let title = format!("Requests at each target: {title}");
    let below = area.titled(&title, ("sans-serif", 17))?;
    let (grid, strip) = below.split_vertically(panels);
    draw_loads(&grid, (rows, columns), scenario, outcomes)?;
    for (number, name) in names.iter().enumerate() {
        let (row, column) = (number / entries, number % entries);
        let x = 12 + column as i32 * entry as i32;
        let y = (LEGEND_ROW / 2) as i32 + row as i32 * LEGEND_ROW as i32;
        Stroke::of(number, 2).explain(&strip, (x, y), name)?;
    }
    area.present()?;
    drop((grid, strip, below, area));
    Ok(text)
}

fn draw_loads(
    area: &Area<'_>,
    grid: (usize, usize),
    scenario: &Scenario,
    outcomes: &[SimulationResult],
) -> Drawn {
    let all = outcomes
        .iter()
        .flat_map(|outcome| &outcome.timeline.working);
    let most = all.flatten().copied().fold(1.0, f64::max) * 1.1;
    let least = 0.5;
    let seconds = scenario.seconds();
    let names = short_names(outcomes);
    let panels = area.split_evenly(grid);
    for ((panel, outcome), name) in panels.iter().zip(outcomes).zip(&names) {
        let mut chart = ChartBuilder::on(panel)
            .caption(name, ("sans-serif", 15))
            .margin(8)
            .margin_right(18)
            .x_label_area_size(34)
            .y_label_area_size(52)
            .build_cartesian_2d(Axis::linear(0.0, seconds), Axis::logarithmic(least, most))?;
        chart
            .configure_mesh()
            .light_line_style(TRANSPARENT)
            .x_desc("seconds")
            .y_desc("requests at a target")
            .x_label_formatter(&|value| axis::label(*value))
            .y_label_formatter(&|value| axis::label(*value))
            .draw()?;
        for (number, line) in lines(&outcome.timeline.working).into_iter().enumerate() {
            let points = line.into_iter().enumerate().map(|(sample, value)| {
                let time = (sample + 1) as f64 * outcome.timeline.step;
                (time, value.max(least))
            });
            let points: Vec<(f64, f64)> = points.collect();
            let stroke = Stroke::of(number, 1);
            match stroke.dash {
                None => {
                    chart.draw_series(LineSeries::new(points, stroke.style))?;
                }
                Some((dash, gap)) => {
                    chart.draw_series(DashedLineSeries::new(points, dash, gap, stroke.style))?;
                }
            }
        }
    }
    Ok(())
}

/// The names of the lines of a panel.
fn line_names(scenario: &Scenario, outcomes: &[SimulationResult]) -> Vec<String> {
    let working = outcomes.first().map(|outcome| &outcome.timeline.working);
    let targets = working.and_then(|w| w.first()).map_or(0, Vec::len);
    if targets > APART {
        return QUANTILES.map(|(name, _)| name.to_owned()).into();
    }
    let named: Vec<Option<&Named>> = scenario.named().collect();
    let name = |target: usize| {
        let named = named.get(target).copied().flatten();
        named.map_or_else(|| format!("target {target}"), Named::name)
    };
    (0..targets).map(name).collect()
}

/// The lines of a panel: each target, or the quantiles of all if there are many.
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
    QUANTILES
        .into_iter()
        .map(|(_, quantile)| {
            let place = ((targets - 1) as f64 * quantile).round() as usize;
            sorted.iter().map(|sample| sample[place]).collect()
        })
        .collect()
}
