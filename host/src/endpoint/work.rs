//! What requests weigh: the cost that a balancer has given to each, counted at its endpoint until
//! the parts of it are done; and how bodies stream.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use super::latency::{Latency, Mean};
use super::{Endpoint, Live};

/// What a request weighs, in units of the balancer that placed it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct RequestCost {
    /// The part that is done with the first byte of the body.
    pub first_byte: u32,
    /// The part that is done with the last byte.
    pub rest: u32,
}

impl RequestCost {
    /// What most requests weigh: their balancer does not say.
    pub const NONE: Self = Self {
        first_byte: 0,
        rest: 0,
    };
}

/// The sums of an endpoint.
#[derive(Debug, Default)]
pub(super) struct WorkCounters {
    cost: AtomicU64,
    unanswered: AtomicU32,
    unanswered_cost: AtomicU64,
    first_byte: Latency,
    chunk_gap: Mean,
}

/// The requests in flight of an endpoint and what they weigh, at one time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct WorkInFlight {
    /// Requests.
    pub in_flight: u32,
    /// The cost of those parts of them that are not done.
    pub cost: u32,
    /// Requests without a first byte of the body.
    pub unanswered: u32,
    /// What they weigh until that byte.
    pub unanswered_cost: u32,
}

fn shown(sum: u64) -> u32 {
    u32::try_from(sum).unwrap_or(u32::MAX)
}

impl WorkCounters {
    pub(super) fn cost(&self) -> u32 {
        shown(self.cost.load(Ordering::Relaxed))
    }

    pub(super) fn unanswered(&self) -> u32 {
        self.unanswered.load(Ordering::Relaxed)
    }

    pub(super) fn unanswered_cost(&self) -> u32 {
        shown(self.unanswered_cost.load(Ordering::Relaxed))
    }

    pub(super) fn first_byte(&self, now: u64) -> u32 {
        self.first_byte.at(now)
    }

    pub(super) fn chunk_gap(&self, now: u64) -> u32 {
        self.chunk_gap.at(now)
    }
}

impl Endpoint {
    /// The requests in flight with what they weigh.
    pub fn work(&self) -> WorkInFlight {
        self.pinned().unwrap_or_else(|| WorkInFlight {
            in_flight: self.live.in_flight(),
            cost: self.live.work.cost(),
            unanswered: self.live.work.unanswered(),
            unanswered_cost: self.live.work.unanswered_cost(),
        })
    }

    /// The cost of the requests in flight, without the parts that are done.
    pub fn in_flight_cost(&self) -> u32 {
        let pinned = self.pinned().map(|work| work.cost);
        pinned.unwrap_or_else(|| self.live.work.cost())
    }

    /// What those without a first byte of the body weigh until it.
    pub fn unanswered_cost(&self) -> u32 {
        let pinned = self.pinned().map(|work| work.unanswered_cost);
        pinned.unwrap_or_else(|| self.live.work.unanswered_cost())
    }

    /// Sets what the requests in flight weigh, and how their bodies stream, to any value, for a
    /// balancer that is tried out without a gateway. No request that weighs something may count
    /// here at the same time.
    pub(crate) fn pretend_work(&self, now: u64, value: u32) {
        let sums = &self.live.work;
        sums.cost.store(value.into(), Ordering::Relaxed);
        sums.unanswered.store(value, Ordering::Relaxed);
        sums.unanswered_cost.store(value.into(), Ordering::Relaxed);
        sums.first_byte.observe(now, value);
        sums.chunk_gap.observe(now, value);
    }

    /// Microseconds from the pick to the first byte of the body, a moving average as of `now`; 0
    /// while nothing is known.
    pub fn first_byte(&self, now: u64) -> u32 {
        self.live.work.first_byte(now)
    }

    /// Microseconds between two parts of a body, a mean of the last seconds as of `now`; 0 while
    /// nothing is known.
    pub fn chunk_gap(&self, now: u64) -> u32 {
        self.live.work.chunk_gap(now)
    }
}

/// What one request counts for, until it is ended. It takes back exactly what it has added, so sums
/// stay right whatever becomes of the balancer that placed it.
#[derive(Debug)]
pub(super) struct Work {
    cost: RequestCost,
    /// Whether the first byte of the body has not come.
    is_unanswered: bool,
    /// Whether times are read for a balancer.
    is_timed: bool,
    /// When the request was placed, or the last part of its body came, in microseconds.
    since: u64,
}

impl Work {
    /// Adds a request that is placed at `now`.
    pub(super) fn begin(live: &Live, cost: RequestCost, is_timed: bool, now: u64) -> Self {
        let sums = &live.work;
        let whole = u64::from(cost.first_byte) + u64::from(cost.rest);
        sums.cost.fetch_add(whole, Ordering::Relaxed);
        sums.unanswered.fetch_add(1, Ordering::Relaxed);
        sums.unanswered_cost
            .fetch_add(cost.first_byte.into(), Ordering::Relaxed);
        Self {
            cost,
            is_unanswered: true,
            is_timed,
            since: now,
        }
    }

    /// Notes a part of the body. `now` is called if the time is needed.
    pub(super) fn note_part(&mut self, live: &Live, now: impl FnOnce() -> u64) {
        if !self.is_timed {
            return self.answer(live);
        }
        let now = now();
        let passed = now.saturating_sub(self.since);
        let passed = u32::try_from(passed).unwrap_or(u32::MAX);
        self.since = now;
        if self.is_unanswered {
            live.work.first_byte.observe(now, passed);
            self.answer(live);
        } else {
            live.work.chunk_gap.observe(now, passed);
        }
    }

    /// Takes back what was for the first byte.
    pub(super) fn answer(&mut self, live: &Live) {
        if !std::mem::take(&mut self.is_unanswered) {
            return;
        }
        let sums = &live.work;
        let part = u64::from(self.cost.first_byte);
        sums.unanswered.fetch_sub(1, Ordering::Relaxed);
        sums.unanswered_cost.fetch_sub(part, Ordering::Relaxed);
        sums.cost.fetch_sub(part, Ordering::Relaxed);
    }

    /// Takes back the rest.
    pub(super) fn end(&mut self, live: &Live) {
        self.answer(live);
        let rest = u64::from(std::mem::take(&mut self.cost.rest));
        live.work.cost.fetch_sub(rest, Ordering::Relaxed);
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test may fail by panicking")]
mod tests {
    use std::sync::Arc;

    use proptest::prelude::*;

    use super::super::{Endpoint, InFlight};
    use super::*;

    fn endpoint() -> Arc<Endpoint> {
        let address = ([127, 0, 0, 1], 80).into();
        Arc::new(Endpoint::new(1, address, "a".into(), 1))
    }

    fn placed(endpoint: &Arc<Endpoint>, first_byte: u32, rest: u32, now: u64) -> InFlight {
        let cost = RequestCost { first_byte, rest };
        InFlight::new(Arc::clone(endpoint)).weighing(cost, true, now)
    }

    #[test]
    fn a_cost_is_taken_back_in_two_parts() {
        let endpoint = endpoint();
        let mut request = placed(&endpoint, 30, 12, 1000);
        let plain = InFlight::new(Arc::clone(&endpoint)).weighing(RequestCost::NONE, false, 0);
        let work = |in_flight, cost, unanswered, unanswered_cost| WorkInFlight {
            in_flight,
            cost,
            unanswered,
            unanswered_cost,
        };
        assert_eq!(endpoint.work(), work(2, 42, 1, 30));
        request.note_body(|| 5000);
        assert_eq!(endpoint.work(), work(2, 12, 0, 0));
        assert_eq!(
            (endpoint.first_byte(5000), endpoint.chunk_gap(5000)),
            (4000, 0)
        );
        request.note_body(|| 5300);
        assert_eq!(
            (endpoint.first_byte(5300), endpoint.chunk_gap(5300)),
            (4000, 300)
        );
        drop((request, plain));
        assert_eq!(endpoint.work(), WorkInFlight::default());
    }

    #[test]
    fn a_sum_that_does_not_fit_is_the_largest_number_and_no_less_exact() {
        let endpoint = endpoint();
        let requests = [u32::MAX, u32::MAX, 7].map(|cost| placed(&endpoint, 0, cost, 0));
        assert_eq!(endpoint.work().cost, u32::MAX);
        let [first, second, _last] = requests;
        drop((first, second));
        assert_eq!(endpoint.work().cost, 7);
    }

    #[derive(Debug, Clone)]
    enum Step {
        Place(usize, u32, u32),
        Body(usize),
        Answer(usize),
        End(usize),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            (0_usize..3, 0_u32..9, 0_u32..9).prop_map(|(at, a, b)| Step::Place(at, a, b)),
            (0_usize..8).prop_map(Step::Body),
            (0_usize..8).prop_map(Step::Answer),
            (0_usize..8).prop_map(Step::End),
        ]
    }

    proptest! {
        /// In whichever order requests begin, stream, are answered and break off.
        #[test]
        fn the_sums_are_those_of_the_requests_in_flight(
            steps in prop::collection::vec(step(), 0..80)
        ) {
            let endpoints = [endpoint(), endpoint(), endpoint()];
            // Endpoint, cost, and whether the first byte has come.
            let mut model: Vec<(InFlight, usize, u32, u32, bool)> = Vec::new();
            for step in steps {
                let count = model.len().max(1);
                match step {
                    Step::Place(at, first, rest) => {
                        let request = placed(&endpoints[at], first, rest, 0);
                        model.push((request, at, first, rest, false));
                    }
                    Step::Body(at) => if let Some(request) = model.get_mut(at % count) {
                        request.0.note_body(|| 1);
                        request.4 = true;
                    },
                    Step::Answer(at) => if let Some(request) = model.get_mut(at % count) {
                        request.0.note_answered();
                        request.4 = true;
                    },
                    Step::End(at) => if !model.is_empty() {
                        model.swap_remove(at % count);
                    },
                }
                for (number, endpoint) in endpoints.iter().enumerate() {
                    let mut expected = WorkInFlight::default();
                    for (_, at, first, rest, answered) in &model {
                        if *at == number {
                            expected.in_flight += 1;
                            expected.cost += rest;
                            if !answered {
                                expected.cost += first;
                                expected.unanswered += 1;
                                expected.unanswered_cost += first;
                            }
                        }
                    }
                    prop_assert_eq!(endpoint.work(), expected);
                }
            }
            drop(model);
            for endpoint in &endpoints {
                prop_assert_eq!(endpoint.work(), WorkInFlight::default());
            }
        }
    }

    #[test]
    fn sums_are_exact_over_threads() {
        let endpoint = endpoint();
        let workers: Vec<_> = (0..4_u32)
            .map(|worker| {
                let endpoint = Arc::clone(&endpoint);
                std::thread::spawn(move || {
                    let mut open = Vec::new();
                    for number in 0..20_000_u32 {
                        let cost = number.wrapping_mul(worker + 3);
                        open.push(placed(&endpoint, cost % 1000, cost % 77, number.into()));
                        if number % 3 == 0 {
                            let index = number as usize % open.len();
                            open[index].note_body(|| number.into());
                        }
                        if open.len() == 5 {
                            open.swap_remove(cost as usize % 5);
                        }
                    }
                })
            })
            .collect();
        for worker in workers {
            worker.join().unwrap();
        }
        assert_eq!(endpoint.work(), WorkInFlight::default());
    }
}
