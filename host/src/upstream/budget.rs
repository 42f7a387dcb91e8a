//! How much of the traffic may be retries, so that they do not overload a struggling upstream.
//! Source: Envoy, `retry_budget`.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use crate::entity::upstream::RetryBudget;

/// Requests and retries of an upstream that are in flight, over all workers.
#[derive(Debug, Default)]
pub(super) struct Budget {
    requests: AtomicU32,
    retries: AtomicU32,
}

/// Counts a request of the budget until it is dropped, and permits its retries.
#[derive(Debug)]
pub struct RetryPermit {
    budget: Arc<Budget>,
    settings: RetryBudget,
    retries: u32,
}

impl RetryPermit {
    pub(super) fn new(budget: &Arc<Budget>, settings: RetryBudget) -> Self {
        budget.requests.fetch_add(1, Ordering::Relaxed);
        Self {
            budget: Arc::clone(budget),
            settings,
            retries: 0,
        }
    }

    /// Whether the request may be sent once more; if so, that is counted.
    pub fn retry(&mut self) -> bool {
        let (budget, settings) = (&self.budget, &self.settings);
        let share = f64::from(budget.requests.load(Ordering::Relaxed)) * settings.budget_percent;
        let limit = settings.min_retry_concurrency.max((share / 100.0) as u32);
        // A request counts as one retry in flight, however many it has had.
        let allowed = self.retries > 0 || {
            let taken =
                budget
                    .retries
                    .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |retries| {
                        (retries < limit).then_some(retries + 1)
                    });
            taken.is_ok()
        };
        self.retries += u32::from(allowed);
        allowed
    }
}

impl Drop for RetryPermit {
    fn drop(&mut self) {
        self.budget.requests.fetch_sub(1, Ordering::Relaxed);
        if self.retries > 0 {
            self.budget.retries.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retries_in_flight_stay_a_share_of_the_requests() {
        let settings = RetryBudget {
            budget_percent: 20.0,
            min_retry_concurrency: 1,
        };
        let budget = Arc::default();
        let mut all: Vec<RetryPermit> = (0..50)
            .map(|_| RetryPermit::new(&budget, settings))
            .collect();
        let allowed = all.iter_mut().filter_map(|s| s.retry().then_some(()));
        assert_eq!(allowed.count(), 10);
        all.clear();
        let mut one = RetryPermit::new(&budget, settings);
        assert!(one.retry(), "a few are always allowed");
        assert!(one.retry(), "one that has begun may go on");
        assert!(!RetryPermit::new(&budget, settings).retry());
    }
}
