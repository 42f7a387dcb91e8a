//! Targets that serve only so many requests in each period.

use super::scenario::Quota;

/// In nanoseconds, as all times here.
const SECOND: u64 = 1_000_000_000;

/// What a target has served in the present period.
#[derive(Debug)]
pub(super) struct QuotaUse {
    limit: u64,
    period: u64,
    served: u64,
    /// When the present period ends.
    end: u64,
}

impl QuotaUse {
    pub(super) fn new(quota: Quota) -> Self {
        let period = ((quota.every * SECOND as f64) as u64).max(1);
        Self {
            limit: quota.requests,
            period,
            served: 0,
            end: period,
        }
    }

    /// Counts a request. Returns the seconds until the next period if the quota is used up.
    pub(super) fn take(&mut self, now: u64) -> Option<u32> {
        if now >= self.end {
            self.served = 0;
            self.end = (now / self.period + 1).saturating_mul(self.period);
        }
        if self.served < self.limit {
            self.served += 1;
            return None;
        }
        let seconds = (self.end - now).div_ceil(SECOND);
        Some(u32::try_from(seconds).unwrap_or(u32::MAX))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quota_is_for_each_period() {
        let mut quota = QuotaUse::new(Quota {
            requests: 2,
            every: 10.0,
        });
        let mut at = |seconds: f64| quota.take((seconds * SECOND as f64) as u64);
        assert_eq!(
            [at(1.0), at(2.0), at(2.5), at(9.9)],
            [None, None, Some(8), Some(1)]
        );
        assert_eq!(
            [at(10.0), at(31.0), at(31.0), at(31.0)],
            [None, None, None, Some(9)]
        );
    }
}
