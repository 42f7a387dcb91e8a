//! Prometheus' text format: what a server tells of itself, one sample on a line.
//!
//! Source: Prometheus, "Exposition formats", version 0.0.4. OpenMetrics is read as far as it is
//! alike: its `# EOF` is a comment, and what follows the value of a sample is not used. Of a text,
//! only the samples of a few names are of interest, and it can be long. So it is read as it comes,
//! in lines, and nothing is kept of a line that has another name.

#[cfg(any(test, fuzzing))]
pub(crate) mod fuzzing;

use std::borrow::Cow;

use thiserror::Error;

/// Most bytes of a text.
pub(crate) const MAX_TEXT_BYTES: usize = 4 << 20;

/// Most lines of a text.
pub(crate) const MAX_TEXT_LINES: usize = 100_000;

/// Most bytes of a line.
pub(crate) const MAX_LINE_BYTES: usize = 16 << 10;

/// Why a text cannot be used.
#[derive(Debug, Error, PartialEq, Eq)]
pub(crate) enum TextError {
    #[error("the metrics have more than {} MiB", MAX_TEXT_BYTES >> 20)]
    TooManyBytes,
    #[error("the metrics have more than {MAX_TEXT_LINES} lines")]
    TooManyLines,
    #[error("line {0} of the metrics has more than {kib} KiB", kib = MAX_LINE_BYTES >> 10)]
    LongLine(usize),
    #[error("line {0} of the metrics is not a sample in Prometheus' text format")]
    Malformed(usize),
}

/// One sample.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Sample<'a> {
    /// The name of its metric.
    pub name: &'a str,
    /// Its labels as they are written, without the braces.
    labels: &'a str,
    /// Its value.
    pub value: f64,
}

impl<'a> Sample<'a> {
    /// The sample of a line; none if the line is a comment, empty or malformed.
    pub(crate) fn of_line(line: &'a str) -> Option<Self> {
        let line = skip_blanks(line);
        let name = name_of(line)?;
        let rest = &line[name.len()..];
        let (labels, rest) = match skip_blanks(rest).strip_prefix('{') {
            Some(rest) => split_labels(rest)?,
            None if rest.starts_with(BLANKS) => ("", rest),
            None => return None,
        };
        let mut words = rest.split_ascii_whitespace();
        let value = words.next()?.parse().ok()?;
        // A timestamp, and in OpenMetrics an exemplar behind a `#`.
        match (words.next(), words.next()) {
            (None, _) => {}
            (Some(word), _) if word.starts_with('#') => {}
            (Some(time), next) if time.parse::<f64>().is_ok() => {
                next.is_none_or(|word| word.starts_with('#'))
                    .then_some(())?;
            }
            _ => return None,
        }
        Some(Self {
            name,
            labels,
            value,
        })
    }

    /// Its labels.
    #[cfg(any(test, fuzzing))]
    fn labels(&self) -> impl Iterator<Item = (&'a str, Cow<'a, str>)> {
        let labels = self.escaped_labels();
        labels.map(|label| (label.name, unescaped(label.escaped)))
    }

    fn escaped_labels(&self) -> impl Iterator<Item = Label<'a>> {
        let mut rest = skip_blanks(self.labels);
        std::iter::from_fn(move || {
            let label = Label::first(rest)?;
            rest = skip_blanks(label.rest.strip_prefix(',').unwrap_or_default());
            Some(label)
        })
    }

    /// The values of the labels of these names, which are sorted. A label that is missing has the
    /// empty value, as in PromQL; of several with one name the first counts.
    fn values_of(&self, names: &[&str]) -> Vec<Cow<'a, str>> {
        let mut values = vec![None; names.len()];
        if !names.is_empty() {
            for label in self.escaped_labels() {
                if let Ok(place) = names.binary_search(&label.name) {
                    values[place].get_or_insert_with(|| unescaped(label.escaped));
                }
            }
        }
        values.into_iter().map(Option::unwrap_or_default).collect()
    }
}

/// The first label of a list.
struct Label<'a> {
    name: &'a str,
    /// Its value as it is written between the quotes.
    escaped: &'a str,
    /// What follows it, without blanks.
    rest: &'a str,
}

impl<'a> Label<'a> {
    fn first(text: &'a str) -> Option<Self> {
        let name = name_of(text)?;
        let rest = skip_blanks(&text[name.len()..]).strip_prefix('=')?;
        let rest = skip_blanks(rest).strip_prefix('"')?;
        let mut is_escaped = false;
        let end = rest.bytes().position(|byte| {
            let is_end = byte == b'"' && !is_escaped;
            is_escaped = byte == b'\\' && !is_escaped;
            is_end
        })?;
        #[cfg(test)]
        tests::LABELS_READ.set(tests::LABELS_READ.get() + 1);
        Some(Self {
            name,
            escaped: &rest[..end],
            rest: skip_blanks(&rest[end + 1..]),
        })
    }
}

const BLANKS: [char; 2] = [' ', '\t'];

fn skip_blanks(text: &str) -> &str {
    text.trim_start_matches(BLANKS)
}

/// The name that a text begins with. That of a label may have a colon here.
fn name_of(text: &str) -> Option<&str> {
    let is_part = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b':');
    let end = text.bytes().position(|byte| !is_part(byte));
    let name = &text[..end.unwrap_or(text.len())];
    let is_name = name
        .bytes()
        .next()
        .is_some_and(|byte| !byte.is_ascii_digit());
    is_name.then_some(name)
}

/// The labels up to the closing brace, and what follows it.
fn split_labels(text: &str) -> Option<(&str, &str)> {
    let mut rest = skip_blanks(text);
    loop {
        if let Some(after) = rest.strip_prefix('}') {
            return Some((&text[..text.len() - rest.len()], after));
        }
        let after = Label::first(rest)?.rest;
        rest = match after.strip_prefix(',') {
            Some(next) => skip_blanks(next),
            None if after.starts_with('}') => after,
            None => return None,
        };
    }
}

fn unescaped(text: &str) -> Cow<'_, str> {
    if !text.contains('\\') {
        return text.into();
    }
    let mut plain = String::with_capacity(text.len());
    let mut letters = text.chars();
    while let Some(letter) = letters.next() {
        match (letter, letters.clone().next()) {
            ('\\', Some(escaped @ ('\\' | '"'))) => plain.push(escaped),
            ('\\', Some('n')) => plain.push('\n'),
            _ => {
                plain.push(letter);
                continue;
            }
        }
        letters.next();
    }
    plain.into()
}

/// What is made of several samples. The names are PromQL's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Aggregation {
    #[default]
    Sum,
    Min,
    Max,
    Avg,
}

/// Which samples are read, and what is made of them.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Selector {
    /// The name of the metric.
    pub name: String,
    /// Labels that a sample must have, with their values.
    pub labels: Vec<(String, String)>,
    /// What is made of several samples.
    pub aggregation: Aggregation,
}

impl Selector {
    /// Whether it is for a sample of this name. `label` returns the value of a label.
    fn takes<'a>(&self, name: &str, label: impl Fn(&str) -> &'a str) -> bool {
        let mut labels = self.labels.iter();
        self.name == name && labels.all(|(name, value)| label(name) == value)
    }
}

/// What was found for a selector so far.
#[derive(Debug, Clone, Copy, Default)]
struct Found {
    value: f64,
    samples: u32,
}

impl Found {
    fn add(&mut self, aggregation: Aggregation, value: f64) {
        // What is not a number says nothing, and an infinite one is none to balance by.
        if !value.is_finite() {
            return;
        }
        self.value = match aggregation {
            _ if self.samples == 0 => value,
            Aggregation::Sum | Aggregation::Avg => self.value + value,
            Aggregation::Min => self.value.min(value),
            Aggregation::Max => self.value.max(value),
        };
        self.samples = self.samples.saturating_add(1);
    }

    fn result(self, aggregation: Aggregation) -> Option<f64> {
        let value = match aggregation {
            Aggregation::Avg => self.value / f64::from(self.samples),
            _ => self.value,
        };
        (self.samples > 0 && value.is_finite()).then_some(value)
    }
}

/// Reads a text that comes in pieces.
#[derive(Debug)]
pub(crate) struct Reading<'s> {
    selectors: &'s [Selector],
    /// The names of the labels that selectors ask for, sorted, each once.
    label_names: Vec<&'s str>,
    found: Vec<Found>,
    /// The start of a line whose end has not come.
    begun: Vec<u8>,
    bytes: usize,
    lines: usize,
}

impl<'s> Reading<'s> {
    /// Begins a text.
    pub(crate) fn new(selectors: &'s [Selector]) -> Self {
        let labels = selectors.iter().flat_map(|selector| &selector.labels);
        let mut label_names: Vec<&str> = labels.map(|(name, _)| &**name).collect();
        label_names.sort_unstable();
        label_names.dedup();
        Self {
            selectors,
            label_names,
            found: vec![Found::default(); selectors.len()],
            begun: Vec::new(),
            bytes: 0,
            lines: 0,
        }
    }

    /// Reads the next piece.
    ///
    /// # Errors
    /// The text is too long, or a sample that is of interest is malformed.
    pub(crate) fn read(&mut self, piece: &[u8]) -> Result<(), TextError> {
        self.bytes += piece.len();
        if self.bytes > MAX_TEXT_BYTES {
            return Err(TextError::TooManyBytes);
        }
        let mut rest = piece;
        while let Some(end) = rest.iter().position(|byte| *byte == b'\n') {
            let (line, next) = (&rest[..end], &rest[end + 1..]);
            if self.begun.is_empty() {
                self.line(line)?;
            } else {
                self.keep(line)?;
                let whole = std::mem::take(&mut self.begun);
                self.line(&whole)?;
                self.begun = whole;
                self.begun.clear();
            }
            rest = next;
        }
        self.keep(rest)
    }

    /// What was found for each selector.
    ///
    /// # Errors
    /// As of [`Reading::read`], since the last line need not have an end.
    pub(crate) fn finish(mut self) -> Result<Vec<Option<f64>>, TextError> {
        let last = std::mem::take(&mut self.begun);
        if !last.is_empty() {
            self.line(&last)?;
        }
        let found = self.found.iter().zip(self.selectors);
        let results = found.map(|(found, selector)| found.result(selector.aggregation));
        Ok(results.collect())
    }

    fn keep(&mut self, part: &[u8]) -> Result<(), TextError> {
        if self.begun.len() + part.len() > MAX_LINE_BYTES {
            return Err(TextError::LongLine(self.lines + 1));
        }
        self.begun.extend_from_slice(part);
        Ok(())
    }

    fn line(&mut self, line: &[u8]) -> Result<(), TextError> {
        self.lines += 1;
        if self.lines > MAX_TEXT_LINES {
            return Err(TextError::TooManyLines);
        }
        if line.len() > MAX_LINE_BYTES {
            return Err(TextError::LongLine(self.lines));
        }
        let is_wanted = |selector: &Selector| begins_with(line, &selector.name);
        if !self.selectors.iter().any(is_wanted) {
            return Ok(());
        }
        let malformed = || TextError::Malformed(self.lines);
        let line = str::from_utf8(line).map_err(|_| malformed())?;
        let sample = Sample::of_line(line).ok_or_else(malformed)?;
        // The labels of a line can be thousands: they are read once for all selectors.
        let values = sample.values_of(&self.label_names);
        let label = |name: &str| {
            let place = self.label_names.binary_search(&name);
            place.map_or("", |place| &*values[place])
        };
        for (found, selector) in self.found.iter_mut().zip(self.selectors) {
            if selector.takes(sample.name, label) {
                found.add(selector.aggregation, sample.value);
            }
        }
        Ok(())
    }
}

/// Whether a line begins with this name, and with no longer one.
fn begins_with(line: &[u8], name: &str) -> bool {
    let Some(rest) = line.trim_ascii_start().strip_prefix(name.as_bytes()) else {
        return false;
    };
    matches!(rest.first(), None | Some(b'{' | b' ' | b'\t' | b'\r'))
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test may fail by panicking")]
mod tests;
