//! The laws for texts of metrics that targets send; see `crate::fuzzing`.

#![expect(clippy::unwrap_used, reason = "a law that does not hold ends the run")]

use super::{Aggregation, Reading, Sample, Selector};

/// A sample that is read is read again from what is written of it. What is found in a text does not
/// depend on how its bytes are split.
pub fn exposition(input: &[u8]) {
    let (size, text) = input.split_first().unwrap_or((&1, &[]));
    let mut selectors = Vec::new();
    for line in text.split(|byte| *byte == b'\n') {
        let Ok(line) = str::from_utf8(line) else {
            continue;
        };
        let Some(sample) = Sample::of_line(line) else {
            continue;
        };
        let written = written(&sample);
        let again = Sample::of_line(&written).unwrap();
        assert_eq!(sample.name, again.name);
        assert!(sample.labels().eq(again.labels()), "{written}");
        assert!(sample.value == again.value || (sample.value.is_nan() && again.value.is_nan()));
        if selectors.len() < 3 {
            let first = sample.labels().next();
            selectors.push(Selector {
                name: sample.name.to_owned(),
                labels: first
                    .map(|(name, value)| (name.to_owned(), value.into_owned()))
                    .into_iter()
                    .collect(),
                aggregation: [Aggregation::Sum, Aggregation::Min, Aggregation::Avg]
                    [selectors.len()],
            });
        }
    }
    let whole = [text].into_iter();
    let whole = read(&selectors, whole);
    let split = read(&selectors, text.chunks(usize::from(*size).max(1)));
    assert_eq!(whole, split);
    if let Ok(found) = whole {
        assert!(found.into_iter().flatten().all(f64::is_finite));
    }
}

fn read<'a>(
    selectors: &[Selector],
    pieces: impl Iterator<Item = &'a [u8]>,
) -> Result<Vec<Option<f64>>, super::TextError> {
    let mut reading = Reading::new(selectors);
    for piece in pieces {
        reading.read(piece)?;
    }
    reading.finish()
}

/// A sample as text.
fn written(sample: &Sample<'_>) -> String {
    let labels = sample.labels().map(|(name, value)| {
        let value = value
            .replace('\\', "\\\\")
            .replace('"', "\\\"")
            .replace('\n', "\\n");
        format!("{name}=\"{value}\"")
    });
    let labels = labels.collect::<Vec<_>>().join(",");
    format!("{}{{{labels}}} {}", sample.name, sample.value)
}
