//! Counters of requests in the memory of this gateway, for all its workers.

use std::collections::{HashMap, VecDeque};
use std::hash::{BuildHasher, Hash};

use foldhash::{fast, quality};
use parking_lot::Mutex;

use super::period::{Limit, PERIODS, Period, Window};

/// Parts with a lock of their own, so that workers seldom wait for each other.
const SHARDS: usize = 64;

/// Most counters of a shard: seven eighths of 8192, which a hash map holds before it grows.
const MOST_OF_SHARD: usize = 7 << 10;

/// The largest number of counters.
pub(super) const MAX_COUNTERS: usize = SHARDS * MOST_OF_SHARD;

/// How many counters of a shard are examined before one is added.
const EXAMINED: usize = 8;

/// How far the clock may go back, in seconds, without a window being started anew. Two workers also
/// may have read the clock in another order than they count.
const SKEW: u64 = 1;

/// Fixed-window counters: one for each key and period of the calendar.
///
/// There are at most [`MAX_COUNTERS`]. When a counter is added or its window begins anew, the
/// [`EXAMINED`] counters of its shard that were examined longest ago are examined, and those whose
/// windows are over are removed. If the shard is still full, the one of them with the lowest count
/// is evicted: so a flood of new keys does not evict keys that are close to their limits.
#[derive(Debug)]
pub(super) struct Counters<K> {
    shards: Box<[Mutex<Shard<K>>]>,
    /// Assigns keys to shards. The faster hash gives keys that differ little to few of the shards.
    hasher: quality::RandomState,
}

/// What was counted before a request, and whether the limits allow the request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Usage {
    /// Whether each count is below its limit.
    pub(super) allowed: bool,
    /// The counts, in the order of the limits; 0 beyond the last limit.
    pub(super) counts: [u64; PERIODS],
}

impl Usage {
    /// The usage that these counts are. `counts` has the order of `limits`.
    pub(super) fn of(limits: &[Limit], counts: [u64; PERIODS]) -> Self {
        let mut each = limits.iter().zip(counts);
        Self {
            allowed: each.all(|(limit, count)| (count as f64) < limit.most),
            counts,
        }
    }
}

impl<K: Hash + Eq + Clone> Default for Counters<K> {
    fn default() -> Self {
        Self {
            shards: (0..SHARDS).map(|_| Mutex::default()).collect(),
            hasher: quality::RandomState::default(),
        }
    }
}

impl<K: Hash + Eq + Clone> Counters<K> {
    /// Counts a request atomically, unless a count has reached its limit. `now` is in seconds since
    /// 1970, as in all methods.
    pub(super) fn take(&self, key: &K, limits: &[Limit], now: u64) -> Usage {
        let mut shard = self.shard(key).lock();
        let usage = Usage::of(limits, shard.counts(key, limits, now));
        if usage.allowed {
            for limit in limits {
                shard.counter(key, limit.period, now).count += 1;
            }
        }
        usage
    }

    /// What was counted in the windows of `now`. Counts nothing.
    pub(super) fn read(&self, key: &K, limits: &[Limit], now: u64) -> Usage {
        let shard = self.shard(key).lock();
        Usage::of(limits, shard.counts(key, limits, now))
    }

    /// Counts `amount`, whether or not the limits allow it.
    pub(super) fn add(&self, key: &K, limits: &[Limit], amount: u64, now: u64) {
        let mut shard = self.shard(key).lock();
        for limit in limits {
            let counter = shard.counter(key, limit.period, now);
            counter.count = counter.count.saturating_add(amount);
        }
    }

    /// Raises the count of a window to `count` if it is lower. Does nothing unless `now` is in the
    /// window.
    pub(super) fn raise(&self, key: &K, period: Period, window: Window, count: u64, now: u64) {
        if window.contains(now) {
            let mut shard = self.shard(key).lock();
            let counter = shard.counter(key, period, now);
            if counter.window == window {
                counter.count = counter.count.max(count);
            }
        }
    }

    fn shard(&self, key: &K) -> &Mutex<Shard<K>> {
        // The shard of a key depends on other bits of its hash than its place in the shard does.
        let hash = self.hasher.hash_one(key) >> 32;
        &self.shards[hash as usize % SHARDS]
    }

    #[cfg(test)]
    fn len(&self) -> usize {
        let shards = self.shards.iter();
        shards.map(|shard| shard.lock().counters.len()).sum()
    }
}

/// A part of the counters.
#[derive(Debug)]
struct Shard<K> {
    counters: HashMap<(K, Period), Counter, fast::RandomState>,
    /// All keys, those first that were examined longest ago.
    order: VecDeque<(K, Period)>,
}

/// What was counted in a window.
#[derive(Debug, Clone, Copy)]
struct Counter {
    window: Window,
    count: u64,
}

impl Counter {
    /// Whether requests at this time are counted in its window.
    fn is_current(&self, now: u64) -> bool {
        self.window.contains(now) || self.window.contains(now + SKEW)
    }
}

impl<K> Default for Shard<K> {
    fn default() -> Self {
        Self {
            counters: HashMap::default(),
            order: VecDeque::new(),
        }
    }
}

impl<K: Hash + Eq + Clone> Shard<K> {
    fn counts(&self, key: &K, limits: &[Limit], now: u64) -> [u64; PERIODS] {
        let mut counts = [0; PERIODS];
        for (count, limit) in counts.iter_mut().zip(limits) {
            let counter = self.counters.get(&(key.clone(), limit.period));
            let current = counter.filter(|counter| counter.is_current(now));
            *count = current.map_or(0, |counter| counter.count);
        }
        counts
    }

    /// The counter of the window that contains `now`, or of the next one if that begins within
    /// [`SKEW`]. Begins a new window if the known one is over.
    fn counter(&mut self, key: &K, period: Period, now: u64) -> &mut Counter {
        let key = (key.clone(), period);
        let fresh = Counter {
            window: period.window(now),
            count: 0,
        };
        let known = self.counters.get(&key);
        if !known.is_some_and(|counter| counter.is_current(now)) {
            let least = self.examine_oldest(now);
            if !self.counters.contains_key(&key) {
                if let Some(least) = least.filter(|_| self.counters.len() >= MOST_OF_SHARD) {
                    self.remove(&least);
                }
                self.order.push_back(key.clone());
            }
            self.counters.insert(key.clone(), fresh);
        }
        self.counters.entry(key).or_insert(fresh)
    }

    /// Examines the [`EXAMINED`] counters that were examined longest ago, and removes those whose
    /// windows are over. Returns the key of the remaining one with the lowest count, to be evicted
    /// if the shard is full.
    fn examine_oldest(&mut self, now: u64) -> Option<(K, Period)> {
        let mut least: Option<((K, Period), u64)> = None;
        for _ in 0..EXAMINED.min(self.order.len()) {
            let Some(key) = self.order.pop_front() else {
                break;
            };
            match self.counters.get(&key) {
                Some(Counter { window, count }) if window.end > now => {
                    if least.as_ref().is_none_or(|(_, least)| count < least) {
                        least = Some((key.clone(), *count));
                    }
                    self.order.push_back(key);
                }
                _ => {
                    self.counters.remove(&key);
                }
            }
        }
        // A burst of keys does not keep its memory once they have left.
        if self.counters.capacity() > 8 * self.counters.len() + 64 {
            self.counters.shrink_to(2 * self.counters.len());
            self.order.shrink_to(2 * self.counters.len());
        }
        least.map(|(key, _)| key)
    }

    fn remove(&mut self, key: &(K, Period)) {
        self.counters.remove(key);
        // It was examined a moment ago, so it is near the end.
        if let Some(place) = self.order.iter().rposition(|other| other == key) {
            self.order.remove(place);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use proptest::prelude::*;

    use super::*;
    use crate::policy::period::ALL;

    const HOUR: u64 = 3600;

    fn limit(period: Period, most: f64) -> Limit {
        Limit { period, most }
    }

    #[test]
    fn a_limit_is_exact_whatever_the_number_of_threads() {
        let counters = Counters::default();
        let limits = [limit(Period::Minute, 1000.0), limit(Period::Hour, 1500.0)];
        let allowed = AtomicUsize::new(0);
        for (now, expected) in [(0, 1000), (60, 1500), (120, 1500), (HOUR, 2500)] {
            std::thread::scope(|scope| {
                for _ in 0..8 {
                    scope.spawn(|| {
                        for _ in 0..250 {
                            let usage = counters.take(&"key", &limits, now);
                            allowed.fetch_add(usize::from(usage.allowed), Ordering::Relaxed);
                        }
                    });
                }
            });
            assert_eq!(allowed.load(Ordering::Relaxed), expected, "{now}");
        }
    }

    #[test]
    fn a_refused_request_is_not_counted() {
        let counters = Counters::default();
        let limits = [limit(Period::Second, 1.0), limit(Period::Minute, 9.0)];
        assert!(counters.take(&1, &limits, 100).allowed);
        for _ in 0..9 {
            let usage = counters.take(&1, &limits, 100);
            assert_eq!((usage.allowed, usage.counts[1]), (false, 1));
        }
        assert_eq!(counters.take(&1, &limits, 101).counts[1], 1);
    }

    #[test]
    fn a_fraction_of_a_request_is_a_request() {
        let counters = Counters::default();
        let limits = [limit(Period::Day, 2.5)];
        let taken = [(); 4].map(|()| counters.take(&1, &limits, 0).allowed);
        assert_eq!(taken, [true, true, true, false]);
    }

    #[test]
    fn a_clock_that_goes_back_a_little_starts_no_window_anew() {
        let counters = Counters::default();
        let limits = [limit(Period::Minute, 1.0)];
        assert!(counters.take(&1, &limits, 60).allowed);
        assert!(!counters.take(&1, &limits, 59).allowed);
        assert!(counters.take(&1, &limits, 58).allowed);
    }

    #[test]
    fn expired_counters_leave_as_others_come_and_their_memory_is_returned() {
        let counters = Counters::default();
        let limits = [limit(Period::Hour, 9.0)];
        for key in 0..100_000 {
            counters.take(&key, &limits, 0);
        }
        assert_eq!(counters.len(), 100_000);
        for key in 0..20_000 {
            counters.take(&-key, &limits, HOUR);
        }
        assert_eq!(counters.len(), 20_000);
        for shard in &counters.shards {
            let shard = shard.lock();
            assert!(
                shard.counters.capacity() <= 4096,
                "{}",
                shard.counters.capacity()
            );
            assert_eq!(shard.order.len(), shard.counters.len());
        }
        // A new window of a known key does the same.
        for _ in 0..100 {
            for key in 0..1000 {
                counters.take(&-key, &limits, 2 * HOUR);
                counters.take(&-key, &limits, 3 * HOUR);
            }
        }
        assert_eq!(counters.len(), 1000);
    }

    #[test]
    fn keys_that_differ_little_are_spread_over_all_shards() {
        // The seeds of the hashes differ.
        for _ in 0..100 {
            let counters = Counters::default();
            let limits = [limit(Period::Year, 9.0)];
            for key in 0..64 * SHARDS as i64 {
                counters.take(&key, &limits, 0);
            }
            for shard in &counters.shards {
                let len = shard.lock().counters.len();
                assert!((16..160).contains(&len), "{len}");
            }
        }
    }

    #[test]
    fn the_number_of_counters_is_bounded_and_high_counts_are_kept() {
        let counters = Counters::default();
        let limits = [limit(Period::Year, 1e9)];
        for _ in 0..5 {
            counters.take(&-1, &limits, 0);
        }
        for key in 0..(MAX_COUNTERS as i64 / 4 * 5) {
            counters.take(&key, &limits, 0);
        }
        assert!(counters.len() <= MAX_COUNTERS, "{}", counters.len());
        assert!(
            counters.len() > MAX_COUNTERS - MAX_COUNTERS / 8,
            "{}",
            counters.len()
        );
        assert_eq!(counters.read(&-1, &limits, 0).counts[0], 5);
    }

    #[test]
    fn a_count_is_raised_only_in_its_window() {
        let counters = Counters::default();
        let limits = [limit(Period::Hour, 9.0)];
        let count = |now| counters.read(&1, &limits, now).counts[0];
        let window = Period::Hour.window(0);
        counters.take(&1, &limits, 0);
        counters.raise(&1, Period::Hour, window, 7, 10);
        assert_eq!(count(10), 7);
        counters.raise(&1, Period::Hour, window, 3, 10);
        assert_eq!(count(10), 7);
        counters.raise(&1, Period::Hour, window, 9, HOUR);
        assert_eq!(count(HOUR), 0);
    }

    proptest! {
        /// Against counting by the definition: the requests that passed in the same window.
        #[test]
        fn counts_are_those_of_the_windows(
            set in proptest::collection::btree_map(0..PERIODS, 0.5..9.0_f64, 1..PERIODS),
            steps in proptest::collection::vec((0..3_u8, 0..40_000_u64), 1..200),
        ) {
            let limits: Vec<Limit> = set.into_iter().map(|(at, most)| limit(ALL[at], most)).collect();
            let counters = Counters::default();
            let mut passed: Vec<(u8, u64)> = Vec::new();
            let mut now = 1_700_000_000;
            for (key, after) in steps {
                now += after;
                let count = |period: Period| {
                    let window = period.window(now);
                    let same = |(other, at): &&(u8, u64)| *other == key && window.contains(*at);
                    passed.iter().filter(same).count() as u64
                };
                let mut counts = [0; PERIODS];
                for (at, limit) in limits.iter().enumerate() {
                    counts[at] = count(limit.period);
                }
                let usage = counters.take(&key, &limits, now);
                prop_assert_eq!(usage, Usage::of(&limits, counts));
                if usage.allowed {
                    passed.push((key, now));
                }
            }
        }
    }
}
