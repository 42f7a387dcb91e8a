//! Histograms that one thread adds to, and others may read at any time. The thread never waits.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;

use super::counts::add;
use crate::request_log::Id;

/// What a histogram counts: the bounds of its buckets, and their unit.
#[derive(Debug)]
pub(super) struct Scale {
    /// Upper bounds of the buckets, ascending, in the unit of observations.
    pub(super) bounds: &'static [u32],
    /// What the page divides bounds and sums by. Observations are integers.
    pub(super) divisor: u32,
}

/// The time that the gateway took, in milliseconds. Source: Kong.
pub(super) static GATEWAY_MS: Scale = Scale {
    bounds: &[
        1, 2, 5, 7, 10, 15, 20, 30, 50, 75, 100, 200, 500, 750, 1000, 3000, 6000,
    ],
    divisor: 1,
};

/// The other times that Kong has, in milliseconds. Source: Kong.
pub(super) static MS: Scale = Scale {
    bounds: &[
        25, 50, 80, 100, 250, 400, 700, 1000, 2000, 5000, 10_000, 30_000, 60_000,
    ],
    divisor: 1,
};

/// Times within the gateway, observed in microseconds and shown in seconds: most are shorter than
/// the first bucket of Kong's.
pub(super) static MICROS: Scale = Scale {
    bounds: &[
        25, 50, 100, 250, 500, 1000, 2500, 5000, 10_000, 25_000, 50_000, 100_000, 250_000,
        1_000_000,
    ],
    divisor: 1_000_000,
};

impl Scale {
    /// An observation in the unit of the page.
    pub(super) fn shown(&self, value: u64) -> f64 {
        value as f64 / f64::from(self.divisor)
    }
}

/// An example of an observation: a request that can be looked up in logs or traces.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Exemplar {
    /// The label that says what the id is of.
    pub(super) label: &'static str,
    pub(super) id: Id,
    /// The observation, in its unit.
    pub(super) value: u64,
    /// When the request began, in milliseconds since 1970.
    pub(super) at: u64,
}

/// Milliseconds for which an exemplar is kept before it is replaced. A scraper comes less often.
const EXEMPLAR_MS: u64 = 1000;

/// A bucket: how many observations, and one of them.
#[derive(Debug, Default)]
struct Bucket {
    count: AtomicU64,
    /// Allocated once it is needed.
    exemplar: OnceLock<Box<Mutex<Exemplar>>>,
}

/// A histogram.
#[derive(Debug)]
pub(super) struct Histogram {
    scale: &'static Scale,
    /// The last one has no bound.
    buckets: Box<[Bucket]>,
    sum: AtomicU64,
}

impl Histogram {
    pub(super) fn new(scale: &'static Scale) -> Self {
        Self {
            scale,
            buckets: (0..=scale.bounds.len())
                .map(|_| Bucket::default())
                .collect(),
            sum: AtomicU64::new(0),
        }
    }

    /// Counts an observation. `example` is the request that it is of, if exemplars are wanted. Only
    /// one thread may call this.
    pub(super) fn observe(&self, value: u64, example: Option<Exemplar>) {
        let bounds = self.scale.bounds;
        let place = bounds.partition_point(|bound| u64::from(*bound) < value);
        add(&self.sum, value);
        let Some(bucket) = self.buckets.get(place) else {
            return;
        };
        add(&bucket.count, 1);
        if let Some(example) = example {
            bucket.show(Exemplar { value, ..example });
        }
    }

    /// The figures at this moment.
    pub(super) fn figures(&self) -> HistogramFigures {
        let buckets = self.buckets.iter();
        HistogramFigures {
            scale: self.scale,
            buckets: buckets
                .map(|bucket| {
                    let exemplar = bucket.exemplar.get().map(|exemplar| *exemplar.lock());
                    (bucket.count.load(Ordering::Relaxed), exemplar)
                })
                .collect(),
            sum: self.sum.load(Ordering::Relaxed),
        }
    }
}

impl Bucket {
    fn show(&self, example: Exemplar) {
        let known = self.exemplar.get_or_init(|| Box::new(Mutex::new(example)));
        // While a scrape reads it, it stays.
        if let Some(mut known) = known.try_lock()
            && known.at + EXEMPLAR_MS <= example.at
        {
            *known = example;
        }
    }
}

/// The figures of a histogram at one moment.
#[derive(Debug, Clone)]
pub(super) struct HistogramFigures {
    pub(super) scale: &'static Scale,
    /// Observations in each bucket, and one of them.
    buckets: Vec<(u64, Option<Exemplar>)>,
    sum: u64,
}

impl HistogramFigures {
    /// Adds those of another histogram of the same scale.
    pub(super) fn add(&mut self, other: &Self) {
        for ((count, exemplar), (more, newer)) in self.buckets.iter_mut().zip(&other.buckets) {
            *count += more;
            let at = |exemplar: &Option<Exemplar>| exemplar.map(|exemplar| exemplar.at);
            if at(newer) > at(exemplar) {
                *exemplar = *newer;
            }
        }
        self.sum += other.sum;
    }

    /// Number of observations.
    pub(super) fn count(&self) -> u64 {
        self.buckets.iter().map(|(count, _)| count).sum()
    }

    /// Sum of the observations, in their unit.
    pub(super) fn sum(&self) -> u64 {
        self.sum
    }

    /// Each bound (the last bucket has none) with the number of observations up to it, and one that
    /// is in this bucket.
    pub(super) fn buckets(&self) -> impl Iterator<Item = (Option<u32>, u64, Option<&Exemplar>)> {
        let bounds = self.scale.bounds.iter().copied().map(Some).chain([None]);
        let buckets = bounds.zip(&self.buckets);
        buckets.scan(0, |sum, (bound, (count, exemplar))| {
            *sum += count;
            Some((bound, *sum, exemplar.as_ref()))
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn example(at: u64) -> Option<Exemplar> {
        Some(Exemplar {
            label: "request_id",
            id: [b'0'; 32],
            value: 0,
            at,
        })
    }

    proptest! {
        #[test]
        fn a_bucket_has_all_observations_up_to_its_bound(values in proptest::collection::vec(0_u64..70_000, 0..100)) {
            let histogram = Histogram::new(&MS);
            for value in &values {
                histogram.observe(*value, None);
            }
            let figures = histogram.figures();
            for (bound, count, _) in figures.buckets() {
                let is_in = |value: &&u64| bound.is_none_or(|bound| **value <= u64::from(bound));
                prop_assert_eq!(count, values.iter().filter(is_in).count() as u64);
            }
            prop_assert_eq!(figures.count(), values.len() as u64);
            prop_assert_eq!(figures.sum(), values.iter().sum::<u64>());
        }
    }

    #[test]
    fn an_exemplar_is_in_its_bucket_and_is_replaced_after_a_while() {
        let histogram = Histogram::new(&MS);
        histogram.observe(30, example(5000));
        histogram.observe(40, example(5999));
        let shown = |histogram: &Histogram| {
            let figures = histogram.figures();
            let shown = figures.buckets().filter_map(|(bound, _, exemplar)| {
                let exemplar = exemplar?;
                Some((bound, exemplar.value, exemplar.at))
            });
            shown.collect::<Vec<_>>()
        };
        assert_eq!(shown(&histogram), [(Some(50), 30, 5000)]);
        histogram.observe(41, example(6000));
        histogram.observe(70_000, example(6000));
        assert_eq!(
            shown(&histogram),
            [(Some(50), 41, 6000), (None, 70_000, 6000)]
        );
    }

    #[test]
    fn the_newer_exemplar_of_two_histograms_is_shown() {
        let (one, other) = (Histogram::new(&MS), Histogram::new(&MS));
        one.observe(1, example(2));
        other.observe(3, example(4));
        let mut figures = one.figures();
        figures.add(&other.figures());
        let first = figures.buckets().next();
        let shown = first.map(|(bound, count, example)| (bound, count, example.map(|e| e.value)));
        assert_eq!(shown, Some((Some(25), 2, Some(3))));
    }
}
