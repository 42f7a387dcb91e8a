//! The figures of one key. The thread of a worker adds to them, and a scrape reads them, without a
//! lock.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, UNIX_EPOCH};

use super::counts::{Counts, add};
use super::histogram::{Exemplar, GATEWAY_MS, Histogram, HistogramFigures, MICROS, MS};
use crate::policy::record::{LogRecord, Record, Try};
use crate::policy::response::Source;

/// The outcome of a try with an endpoint that has answered, as metrics name it. The other outcomes
/// have the codes of records.
const ANSWERED: &str = "answered";

/// The figures of one key.
#[derive(Debug, Default)]
pub(super) struct Series {
    /// Requests or streams by status, and by whether an endpoint has made the response.
    statuses: Counts<(u16, bool)>,
    /// Requests that a policy has answered, by its name and the status.
    policies: Counts<(&'static str, u16)>,
    /// Tries with endpoints by their outcome.
    tries: Counts<&'static str>,
    /// Bytes of requests.
    ingress: AtomicU64,
    /// Bytes of responses.
    egress: AtomicU64,
    times: OnceLock<Box<Times<Histogram>>>,
}

/// Times of requests.
#[derive(Debug, Clone)]
pub(super) struct Times<H> {
    /// The time that the gateway took, in milliseconds.
    pub(super) gateway: H,
    /// The wait for endpoints, in milliseconds.
    pub(super) upstream: H,
    /// The whole time, in milliseconds; of a stream, from its beginning to its end.
    pub(super) request: H,
    /// The time that the gateway took, in microseconds; not of streams.
    pub(super) own: H,
    /// The part of it that policies took before they let the request pass, in microseconds.
    pub(super) access: H,
}

impl Default for Times<Histogram> {
    fn default() -> Self {
        Self {
            gateway: Histogram::new(&GATEWAY_MS),
            upstream: Histogram::new(&MS),
            request: Histogram::new(&MS),
            own: Histogram::new(&MICROS),
            access: Histogram::new(&MICROS),
        }
    }
}

/// The figures of one key at one moment.
#[derive(Debug, Clone, Default)]
pub(super) struct SeriesFigures {
    pub(super) statuses: Vec<((u16, bool), u64)>,
    pub(super) policies: Vec<((&'static str, u16), u64)>,
    pub(super) tries: Vec<(&'static str, u64)>,
    pub(super) ingress: u64,
    pub(super) egress: u64,
    pub(super) times: Option<Times<HistogramFigures>>,
}

impl Series {
    /// Counts a request or a stream by what became of it.
    pub(super) fn count_outcome(&self, record: &LogRecord) {
        let status = record.status();
        (self.statuses).count((status, record.source() == Source::Endpoint));
        if let LogRecord::Request(request) = record {
            if let Some(policy) = request.policy {
                self.policies.count((policy, status));
            }
            self.count_tries(&request.tries);
        }
    }

    fn count_tries(&self, tries: &[Try]) {
        for one in tries {
            self.tries.count(one.failure.unwrap_or(ANSWERED));
        }
    }

    pub(super) fn count_bytes(&self, ingress: u64, egress: u64) {
        add(&self.ingress, ingress);
        add(&self.egress, egress);
    }

    /// Observes the times of a request or a stream. `wants_exemplars` is whether a request is shown
    /// beside them as an example.
    pub(super) fn observe(&self, record: &LogRecord, wants_exemplars: bool) {
        let times = self.times.get_or_init(Box::default);
        let latencies = record.latencies();
        let (request, example) = match record {
            LogRecord::Request(request) => (
                Some(request),
                wants_exemplars.then(|| Exemplar::of(request)),
            ),
            LogRecord::Stream(_) => (None, None),
        };
        times.gateway.observe(millis(latencies.gateway), example);
        times.request.observe(millis(latencies.total), example);
        if let Some(upstream) = latencies.upstream {
            times.upstream.observe(millis(upstream), example);
        }
        if let Some(request) = request {
            times.own.observe(micros(latencies.gateway), example);
            if let Some(access) = request.stages.access {
                times.access.observe(micros(access), example);
            }
        }
    }

    /// The figures at this moment.
    pub(super) fn figures(&self) -> SeriesFigures {
        SeriesFigures {
            statuses: self.statuses.all(),
            policies: self.policies.all(),
            tries: self.tries.all(),
            ingress: self.ingress.load(Ordering::Relaxed),
            egress: self.egress.load(Ordering::Relaxed),
            times: self.times.get().map(|times| Times {
                gateway: times.gateway.figures(),
                upstream: times.upstream.figures(),
                request: times.request.figures(),
                own: times.own.figures(),
                access: times.access.figures(),
            }),
        }
    }
}

impl SeriesFigures {
    /// Adds the figures of another series.
    pub(super) fn add(&mut self, other: Self) {
        merge(&mut self.statuses, other.statuses);
        merge(&mut self.policies, other.policies);
        merge(&mut self.tries, other.tries);
        self.ingress += other.ingress;
        self.egress += other.egress;
        match (&mut self.times, other.times) {
            (_, None) => {}
            (Some(times), Some(theirs)) => {
                times.gateway.add(&theirs.gateway);
                times.upstream.add(&theirs.upstream);
                times.request.add(&theirs.request);
                times.own.add(&theirs.own);
                times.access.add(&theirs.access);
            }
            (none, theirs) => *none = theirs,
        }
    }
}

fn merge<K: PartialEq>(into: &mut Vec<(K, u64)>, from: Vec<(K, u64)>) {
    for (key, count) in from {
        match into.iter_mut().find(|(known, _)| *known == key) {
            Some((_, known)) => *known += count,
            None => into.push((key, count)),
        }
    }
}

impl Exemplar {
    /// A request as an example: by its trace, if that can be looked up, or else by the id that its
    /// log lines have.
    fn of(request: &Record) -> Self {
        let since = request.started.duration_since(UNIX_EPOCH);
        let trace = request.trace.as_ref().filter(|trace| trace.is_sampled);
        let (label, id) = match trace {
            Some(trace) => ("trace_id", trace.id.digits()),
            None => ("request_id", request.id),
        };
        Self {
            label,
            id,
            value: 0,
            at: millis(since.unwrap_or_default()),
        }
    }
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

#[cfg(test)]
impl Series {
    /// Counts a request with this status.
    pub(super) fn count_status(&self, status: u16, is_proxied: bool) {
        self.statuses.count((status, is_proxied));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_added_status_by_status() {
        let (one, other) = (Series::default(), Series::default());
        one.count_status(200, true);
        other.count_status(200, true);
        other.count_status(200, false);
        other.count_bytes(1, 2);
        let mut figures = one.figures();
        figures.add(other.figures());
        assert_eq!(figures.statuses, [((200, true), 2), ((200, false), 1)]);
        assert_eq!((figures.ingress, figures.egress), (1, 2));
        assert!(figures.times.is_none());
    }
}
