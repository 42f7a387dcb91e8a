//! The labels of an axis: at least three, at round numbers.

use std::ops::Range;

use plotters::coord::ranged1d::{DefaultFormatting, KeyPointHint, Ranged};

/// An axis with our own labels, because plotters chooses too few if the range is narrow.
pub(super) struct Axis {
    range: Range<f64>,
    scale: fn(f64) -> f64,
    labels: Vec<f64>,
}

impl Axis {
    pub(super) fn linear(from: f64, to: f64) -> Self {
        Self {
            range: from..to,
            scale: |value| value,
            labels: linear(from, to),
        }
    }

    /// A logarithmic axis between two numbers above 0.
    pub(super) fn logarithmic(from: f64, to: f64) -> Self {
        Self {
            range: from..to,
            scale: f64::ln,
            labels: logarithmic(from, to),
        }
    }
}

impl Ranged for Axis {
    type FormatOption = DefaultFormatting;
    type ValueType = f64;

    fn map(&self, value: &f64, limit: (i32, i32)) -> i32 {
        let [start, end, value] = [self.range.start, self.range.end, *value].map(self.scale);
        let part = (value - start) / (end - start);
        limit.0 + (part * f64::from(limit.1 - limit.0)).round() as i32
    }

    fn key_points<Hint: KeyPointHint>(&self, hint: Hint) -> Vec<f64> {
        match hint.weight().allow_light_points() {
            true => Vec::new(),
            false => self.labels.clone(),
        }
    }

    fn range(&self) -> Range<f64> {
        self.range.clone()
    }
}

/// Fewest labels of an axis.
const FEWEST: usize = 3;

/// Round numbers of a decade, the fewest first.
const DECADES: [&[f64]; 3] = [
    &[1.0],
    &[1.0, 2.0, 5.0],
    &[1.0, 1.5, 2.0, 3.0, 4.0, 5.0, 7.0],
];

/// Labels of an axis with a logarithmic scale, between two numbers above 0.
fn logarithmic(from: f64, to: f64) -> Vec<f64> {
    let exponents = (from.log10().floor() as i32)..=(to.log10().ceil() as i32);
    for decade in DECADES {
        let all = exponents
            .clone()
            .flat_map(|exponent| decade.iter().map(move |digit| scaled(*digit, exponent)));
        let inside: Vec<f64> = all.filter(|value| is_inside(*value, from, to)).collect();
        if inside.len() >= FEWEST {
            return inside;
        }
    }
    linear(from, to)
}

/// Labels of an axis with a linear scale: multiples of the largest round number that gives enough
/// labels.
fn linear(from: f64, to: f64) -> Vec<f64> {
    let largest = (to - from).log10().ceil() as i32;
    for exponent in (largest - 3..=largest).rev() {
        for digit in [5.0, 2.0, 1.0] {
            let step = scaled(digit, exponent);
            let (first, last) = ((from / step).ceil() as i64, (to / step).floor() as i64);
            let multiples = (first..=last).map(|number| rounded(number as f64 * step));
            let inside: Vec<f64> = multiples
                .filter(|value| is_inside(*value, from, to))
                .collect();
            if inside.len() >= FEWEST {
                return inside;
            }
        }
    }
    vec![from, (from + to) / 2.0, to]
}

/// A number as a label, without superfluous digits.
pub(super) fn label(value: f64) -> String {
    rounded(value).to_string()
}

/// Whether a value is on the axis. Both edges belong to it, despite the rounding of powers of ten.
fn is_inside(value: f64, from: f64, to: f64) -> bool {
    (from * (1.0 - 1e-9)..=to * (1.0 + 1e-9)).contains(&value)
}

fn scaled(digit: f64, exponent: i32) -> f64 {
    rounded(digit * 10_f64.powi(exponent))
}

/// Rounded to nine significant digits, so that 0.1 + 0.2 is 0.3.
fn rounded(value: f64) -> f64 {
    format!("{value:.8e}").parse().unwrap_or(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_axis_has_three_labels_at_least() {
        for (from, to) in [
            (1.0, 10.0),
            (0.5, 1.1),
            (3.0, 7.0),
            (22.8, 23.4),
            (1e-4, 1.0),
            (17.0, 5001.0),
            (0.013, 0.13),
            (0.5, 1e6),
        ] {
            let labels = logarithmic(from, to);
            assert!(
                (3..=10).contains(&labels.len()),
                "{from} to {to}: {labels:?}"
            );
            assert!(labels.iter().all(|label| is_inside(*label, from, to)));
        }
    }

    #[test]
    fn labels_are_round_numbers() {
        assert_eq!(linear(0.0, 120.0), [0.0, 50.0, 100.0]);
        assert_eq!(linear(0.0, 1.0), [0.0, 0.5, 1.0]);
        assert_eq!(logarithmic(5.0, 5001.0), [10.0, 100.0, 1000.0]);
        assert_eq!(logarithmic(15.0, 150.0), [20.0, 50.0, 100.0]);
        assert_eq!(label(0.01 * 100.0), "1");
        assert_eq!(label(1e-4 * 100.0), "0.01");
    }
}
