//! Families of metrics as text. Source: the text format of Prometheus, version 0.0.4, and
//! OpenMetrics 1.0 for exemplars.

use std::collections::BTreeMap;
use std::fmt::Write;

use super::super::histogram::{Exemplar, HistogramFigures, Scale};

/// The labels of a sample, as they are written: without braces, and with values escaped.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Labels(String);

impl Labels {
    /// Adds a label at the end.
    pub(super) fn with(mut self, name: &str, value: &str) -> Self {
        if !self.0.is_empty() {
            self.0.push(',');
        }
        self.0.push_str(name);
        self.0.push_str("=\"");
        for char in value.chars() {
            match char {
                '\\' => self.0.push_str("\\\\"),
                '"' => self.0.push_str("\\\""),
                '\n' => self.0.push_str("\\n"),
                char => self.0.push(char),
            }
        }
        self.0.push('"');
        self
    }
}

/// The text of families, one after another.
pub(super) struct FamilyText {
    pub(super) text: String,
    with_exemplars: bool,
}

impl FamilyText {
    pub(super) fn new(with_exemplars: bool) -> Self {
        Self {
            text: String::new(),
            with_exemplars,
        }
    }

    /// The samples of a counter. A family without samples is absent.
    pub(super) fn counter(&mut self, name: &str, help: &str, samples: &BTreeMap<Labels, u64>) {
        self.head(name, help, "counter", samples.is_empty());
        for (labels, value) in samples {
            self.text.push_str(name);
            if !labels.0.is_empty() {
                self.write(format_args!("{{{}}}", labels.0));
            }
            self.write(format_args!(" {value}\n"));
        }
    }

    /// The samples of a histogram. A family without samples is absent.
    pub(super) fn histogram(
        &mut self,
        name: &str,
        help: &str,
        samples: &BTreeMap<Labels, HistogramFigures>,
    ) {
        self.head(name, help, "histogram", samples.is_empty());
        for (Labels(labels), histogram) in samples {
            let scale = histogram.scale;
            for (bound, count, exemplar) in histogram.buckets() {
                self.write(format_args!("{name}_bucket{{{labels},le=\""));
                match bound {
                    Some(bound) => self.write(format_args!("{}", scale.shown(bound.into()))),
                    None => self.text.push_str("+Inf"),
                }
                self.write(format_args!("\"}} {count}"));
                if let Some(exemplar) = exemplar.filter(|_| self.with_exemplars) {
                    self.exemplar(exemplar, scale);
                }
                self.text.push('\n');
            }
            let (count, sum) = (histogram.count(), scale.shown(histogram.sum()));
            self.write(format_args!("{name}_count{{{labels}}} {count}\n"));
            self.write(format_args!("{name}_sum{{{labels}}} {sum}\n"));
        }
    }

    fn exemplar(&mut self, exemplar: &Exemplar, scale: &Scale) {
        let Exemplar {
            label,
            id,
            value,
            at,
        } = exemplar;
        let id = std::str::from_utf8(id).unwrap_or_default();
        let (value, at) = (scale.shown(*value), *at as f64 / 1000.0);
        self.write(format_args!(" # {{{label}=\"{id}\"}} {value} {at:.3}"));
    }

    /// The lines before the samples of a family.
    fn head(&mut self, name: &str, help: &str, kind: &str, is_empty: bool) {
        if !is_empty {
            self.write(format_args!("# HELP {name} {help}\n# TYPE {name} {kind}\n"));
        }
    }

    fn write(&mut self, text: std::fmt::Arguments<'_>) {
        // Writing to memory does not fail.
        let _ = self.text.write_fmt(text);
    }
}
