//! Outcomes as a table for users.

use std::fmt::Write;

use super::outcome::{SimulationResult, Summary, short_names};
use super::scenario::Scenario;

/// The columns of every table.
const COLUMNS: [&str; 9] = [
    "balancer",
    "requests",
    "p50 ms",
    "p90 ms",
    "p99 ms",
    "p99.9 ms",
    "errors",
    "peak/mean",
    "Jain",
];

/// One more column, if requests have prompts.
const CACHED: &str = "cached";

/// Further columns, if targets stream their answers: the time to the first byte.
const FIRST_BYTE: [&str; 3] = ["first p50", "first p90", "first p99"];

/// Stands where no request has a figure.
const NOTHING: &str = "-";

/// A table for each phase, if there are several, and one for all phases together.
pub(super) fn tables(scenario: &Scenario, outcomes: &[SimulationResult]) -> String {
    let mut text = String::new();
    let names = short_names(outcomes);
    if scenario.load.len() > 1 {
        for (number, phase) in scenario.load.iter().enumerate() {
            let of =
                |(outcome, name): (&SimulationResult, &String)| row(name, &outcome.phases[number]);
            let rows: Vec<Vec<String>> = outcomes.iter().zip(&names).map(of).collect();
            let level = phase.level * 100.0;
            table(&mut text, &format!("Load {level:.0} %"), &rows);
        }
    }
    let of = |(outcome, name): (&SimulationResult, &String)| row(name, &outcome.total);
    let rows: Vec<Vec<String>> = outcomes.iter().zip(&names).map(of).collect();
    table(&mut text, "All", &rows);
    text
}

fn row(name: &str, summary: &Summary) -> Vec<String> {
    let known = summary.requests - summary.unknown;
    let errors = match known {
        0 if summary.unknown > 0 => NOTHING.to_owned(),
        known => {
            let share = summary.errors.sum() as f64 / known.max(1) as f64;
            format!("{:.3} %", share * 100.0)
        }
    };
    // No latency is 0, so without any the mean is.
    let latency = |value| match summary.mean > 0.0 {
        true => milliseconds(value),
        false => NOTHING.to_owned(),
    };
    let mut row = vec![
        name.to_owned(),
        summary.requests.to_string(),
        latency(summary.p50),
        latency(summary.p90),
        latency(summary.p99),
        latency(summary.p999),
        errors,
        format!("{:.2}", summary.peak_to_mean),
        format!("{:.3}", summary.jain),
    ];
    let first = summary.first_byte;
    row.extend(
        first
            .iter()
            .flat_map(|first| [first.p50, first.p90, first.p99])
            .map(milliseconds),
    );
    let cached = summary.cached;
    row.extend(cached.map(|share| format!("{:.1} %", share * 100.0)));
    row
}

/// Formats a number with three significant digits.
fn milliseconds(value: f64) -> String {
    match value {
        100.0.. => format!("{value:.0}"),
        10.0.. => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    }
}

fn table(text: &mut String, title: &str, rows: &[Vec<String>]) {
    let count = rows.iter().map(Vec::len).max().unwrap_or(COLUMNS.len());
    let first = FIRST_BYTE.into_iter();
    let first = first.filter(|_| count > COLUMNS.len() + 1);
    let all = COLUMNS.into_iter().chain(first).chain([CACHED]);
    let header: Vec<String> = all.take(count).map(str::to_owned).collect();
    let mut widths = vec![0; count];
    for row in std::iter::once(&header).chain(rows) {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    if !text.is_empty() {
        text.push('\n');
    }
    text.push_str(title);
    text.push('\n');
    for row in std::iter::once(&header).chain(rows) {
        let mut line = String::new();
        for (number, (cell, width)) in row.iter().zip(&widths).enumerate() {
            // Writing to a string does not fail.
            let _ = match number {
                0 => write!(line, "  {cell:<width$}"),
                _ => write!(line, "  {cell:>width$}"),
            };
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
}
