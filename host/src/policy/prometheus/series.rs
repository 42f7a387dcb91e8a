//! The figures of one key.

use crate::policy::logs::document::millis;
use crate::policy::record::Latencies;
use crate::policy::response::Source;

/// Upper bounds of the buckets for the time that the gateway took, in milliseconds. Source: Kong.
pub(super) const GATEWAY_BOUNDS: &[u32] = &[
    1, 2, 5, 7, 10, 15, 20, 30, 50, 75, 100, 200, 500, 750, 1000, 3000, 6000,
];

/// Upper bounds of the buckets for the other times, in milliseconds. Source: Kong.
pub(super) const BOUNDS: &[u32] = &[
    25, 50, 80, 100, 250, 400, 700, 1000, 2000, 5000, 10_000, 30_000, 60_000,
];

/// The figures of one key.
#[derive(Debug, Clone, Default)]
pub(super) struct Series {
    /// Whether its route is for streams, and not for requests.
    pub(super) is_stream: bool,
    /// Requests or streams by status and by who has made the response. There are few, so they are searched.
    pub(super) statuses: Vec<((u16, bool), u64)>,
    /// Bytes of requests.
    pub(super) ingress: u64,
    /// Bytes of responses.
    pub(super) egress: u64,
    pub(super) times: Option<Box<Times>>,
}

/// Times of requests, in milliseconds.
#[derive(Debug, Clone)]
pub(super) struct Times {
    /// The time that the gateway took.
    pub(super) gateway: Histogram,
    /// The wait for endpoints.
    pub(super) upstream: Histogram,
    /// The whole time; of a stream, from its beginning to its end.
    pub(super) request: Histogram,
}

impl Default for Times {
    fn default() -> Self {
        Self {
            gateway: Histogram::new(GATEWAY_BOUNDS),
            upstream: Histogram::new(BOUNDS),
            request: Histogram::new(BOUNDS),
        }
    }
}

impl Series {
    pub(super) fn count_status(&mut self, status: u16, source: Source) {
        self.add_status((status, source == Source::Endpoint), 1);
    }

    fn add_status(&mut self, key: (u16, bool), count: u64) {
        match self.statuses.iter_mut().find(|(known, _)| *known == key) {
            Some((_, known)) => *known += count,
            None => self.statuses.push((key, count)),
        }
    }

    pub(super) fn count_bytes(&mut self, ingress: u64, egress: u64) {
        self.ingress += ingress;
        self.egress += egress;
    }

    pub(super) fn count_latencies(&mut self, latencies: &Latencies) {
        let times = self.times.get_or_insert_default();
        times.gateway.observe(millis(latencies.gateway));
        times.request.observe(millis(latencies.total));
        if let Some(upstream) = latencies.upstream {
            times.upstream.observe(millis(upstream));
        }
    }

    /// Adds the figures of another series.
    pub(super) fn add(&mut self, other: &Self) {
        self.is_stream |= other.is_stream;
        for (key, count) in &other.statuses {
            self.add_status(*key, *count);
        }
        self.ingress += other.ingress;
        self.egress += other.egress;
        if let Some(theirs) = &other.times {
            let times = self.times.get_or_insert_default();
            times.gateway.add(&theirs.gateway);
            times.upstream.add(&theirs.upstream);
            times.request.add(&theirs.request);
        }
    }
}

/// A histogram.
#[derive(Debug, Clone)]
pub(super) struct Histogram {
    bounds: &'static [u32],
    /// Observations in each bucket; the last one has no bound.
    counts: Vec<u64>,
    pub(super) sum: u64,
}

impl Histogram {
    fn new(bounds: &'static [u32]) -> Self {
        Self {
            bounds,
            counts: vec![0; bounds.len() + 1],
            sum: 0,
        }
    }

    fn observe(&mut self, value: i64) {
        let value = u64::try_from(value).unwrap_or(0);
        let bucket = self
            .bounds
            .partition_point(|bound| u64::from(*bound) < value);
        if let Some(count) = self.counts.get_mut(bucket) {
            *count += 1;
        }
        self.sum += value;
    }

    pub(super) fn add(&mut self, other: &Self) {
        for (count, more) in self.counts.iter_mut().zip(&other.counts) {
            *count += more;
        }
        self.sum += other.sum;
    }

    /// Number of observations.
    pub(super) fn count(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// Each bound with the number of observations up to it.
    pub(super) fn buckets(&self) -> impl Iterator<Item = (u32, u64)> {
        let cumulative = self.counts.iter().scan(0, |sum, count| {
            *sum += count;
            Some(*sum)
        });
        self.bounds.iter().copied().zip(cumulative)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_bucket_has_all_observations_up_to_its_bound(values in proptest::collection::vec(0_i64..70_000, 0..100)) {
            let mut histogram = Histogram::new(BOUNDS);
            for value in &values {
                histogram.observe(*value);
            }
            for (bound, count) in histogram.buckets() {
                let expected = values.iter().filter(|value| **value <= i64::from(bound)).count();
                prop_assert_eq!(count, expected as u64);
            }
            prop_assert_eq!(histogram.count(), values.len() as u64);
            prop_assert_eq!(histogram.sum, values.iter().sum::<i64>() as u64);
        }
    }

    #[test]
    fn series_are_added_status_by_status() {
        let (mut one, mut other) = (Series::default(), Series::default());
        one.count_status(200, Source::Endpoint);
        other.count_status(200, Source::Endpoint);
        other.count_status(200, Source::Gateway);
        other.count_bytes(1, 2);
        one.add(&other);
        assert_eq!(one.statuses, [((200, true), 2), ((200, false), 1)]);
        assert_eq!((one.ingress, one.egress), (1, 2));
        assert!(one.times.is_none());
    }
}
