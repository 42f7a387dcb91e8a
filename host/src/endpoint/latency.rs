//! How long endpoints take to answer, as balancers see it.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

/// Time after which an answer counts for a fraction 1/e, in milliseconds. Source: Kong, Finagle.
const DECAY: f64 = 10_000.0;

/// An average that decays with time.
///
/// Microseconds in the upper half, the millisecond of the last answer in the lower one. Of two
/// answers at the same time one may be lost, which hardly changes an average. 0 means that nothing
/// is known.
#[derive(Debug, Default)]
struct Average(AtomicU64);

impl Average {
    /// The average, and how many milliseconds ago the last answer was, at a time in microseconds
    /// since some start.
    fn get(&self, now: u64) -> Option<(f64, u32)> {
        let packed = self.0.load(Ordering::Relaxed);
        if packed == 0 {
            return None;
        }
        let age = ((now / 1000) as u32).wrapping_sub(packed as u32);
        // A time stamp from slightly ahead, set by another thread, must not count as 49 days old.
        let age = if age > u32::MAX / 2 { 0 } else { age };
        Some((f64::from((packed >> 32) as u32), age))
    }

    /// Includes an answer in a mean, which follows a change within a few answers.
    fn include(&self, now: u64, value: u32) {
        let new = f64::from(value);
        let average = match self.get(now) {
            Some((old, age)) if age < FRESH => {
                let gain = (1.0 - part(age)).max(GAIN);
                old + (new - old) * gain
            }
            _ => new,
        };
        self.set(now, average);
    }

    fn set(&self, now: u64, average: f64) {
        let packed = (average as u64).max(1) << 32 | u64::from((now / 1000) as u32);
        self.0.store(packed, Ordering::Relaxed);
    }
}

/// The weight that remains of an answer of that age.
fn part(age: u32) -> f64 {
    let x = f64::from(age) / DECAY;
    if age < 1000 {
        // The series is good to five digits here, and several times as quick, which matters because
        // balancers ask at every pick.
        return 1.0 - x * (1.0 - x * (0.5 - x / 6.0));
    }
    (-x).exp()
}

/// How long until an answer: it jumps up to a slower answer, comes down with quicker ones, and
/// decays with time. Source: Finagle's Peak EWMA.
#[derive(Debug, Default)]
pub(super) struct Latency(Average);

impl Latency {
    /// Microseconds; 0 while nothing is known.
    pub(super) fn at(&self, now: u64) -> u32 {
        let known = self.0.get(now);
        known.map_or(0, |(average, age)| (average * part(age)) as u32)
    }

    pub(super) fn observe(&self, now: u64, latency: u32) {
        let new = f64::from(latency);
        let average = match self.0.get(now) {
            Some((old, age)) if new < old * part(age) => old * part(age) + new * (1.0 - part(age)),
            _ => new,
        };
        self.0.set(now, average);
    }
}

/// A mean of what was observed lately; 0 if there was nothing for 5 seconds.
#[derive(Debug, Default)]
pub(super) struct Mean(Average);

impl Mean {
    /// Microseconds; 0 while nothing is known.
    pub(super) fn at(&self, now: u64) -> u32 {
        let known = self.0.get(now).filter(|(_, age)| *age < FRESH);
        known.map_or(0, |(mean, _)| mean as u32)
    }

    pub(super) fn observe(&self, now: u64, value: u32) {
        self.0.include(now, value);
    }
}

/// How long until an answer to a request that finds so many others at the endpoint. There is a mean
/// for each step of load, which follows a change within a few answers. Source: Prequal (NSDI 2024),
/// where servers tell the latency of recent requests that came at about the present load.
#[derive(Debug, Default)]
pub(super) struct LatencyAtLoad {
    means: [Average; STEPS],
    /// A bit for each step that has a mean, so that the nearest is found without a look at all.
    known: AtomicU32,
}

/// Steps of load: 0 to 3 one by one, then two for each doubling, all from 768 on as one.
const STEPS: usize = 20;

/// The least weight that one answer has in a mean.
const GAIN: f64 = 0.125;

/// Milliseconds after which a mean is no longer used: the load of others has changed.
const FRESH: u32 = 5_000;

impl LatencyAtLoad {
    fn step(ahead: u32) -> usize {
        match ahead {
            0..4 => ahead as usize,
            _ => {
                let doubling = ahead.ilog2();
                let half = ahead >> (doubling - 1) & 1;
                ((2 * doubling + half) as usize).min(STEPS - 1)
            }
        }
    }

    /// Microseconds, at the nearest load with a known mean.
    pub(super) fn at(&self, now: u64, in_flight: u32) -> Option<u32> {
        let step = Self::step(in_flight);
        let mut known = self.known.load(Ordering::Relaxed);
        while known != 0 {
            // The highest one up to this step, and the lowest one from it on.
            let below = (known & ((2 << step) - 1)).checked_ilog2();
            let above =
                (known >> step != 0).then(|| step + (known >> step).trailing_zeros() as usize);
            let below = below.map(|step| step as usize);
            let nearest = match (below, above) {
                (Some(below), Some(above)) if step - below <= above - step => below,
                (_, Some(above)) => above,
                (below, None) => below?,
            };
            let mean = self.means.get(nearest)?.get(now);
            if let Some((mean, _)) = mean.filter(|(_, age)| *age < FRESH) {
                return Some(mean as u32);
            }
            known &= !(1 << nearest);
        }
        None
    }

    pub(super) fn observe(&self, now: u64, latency: u32, ahead: u32) {
        let step = Self::step(ahead);
        self.means[step].include(now, latency);
        if self.known.load(Ordering::Relaxed) >> step & 1 == 0 {
            self.known.fetch_or(1 << step, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn latency_jumps_up_comes_down_and_is_forgotten() {
        let latency = Latency::default();
        assert_eq!(latency.at(5), 0);
        latency.observe(0, 1000);
        assert_eq!(latency.at(0), 1000);
        latency.observe(1_000_000, 50_000);
        assert_eq!(latency.at(1_000_000), 50_000);
        // A second later a quick one: a tenth of the way down.
        latency.observe(2_000_000, 1000);
        let now = latency.at(2_000_000);
        assert!((45_000..46_000).contains(&now), "{now}");
        // A time constant later without any.
        let later = latency.at(12_000_000);
        assert!((16_000..18_000).contains(&later), "{later}");
        // Asked by a thread whose clock was read a moment earlier.
        assert_eq!(latency.at(1_999_000), now);
    }

    #[test]
    fn latency_belongs_to_a_load() {
        let latency = LatencyAtLoad::default();
        assert_eq!(latency.at(0, 0), None);
        latency.observe(0, 1000, 0);
        latency.observe(0, 9000, 16);
        for (in_flight, expected) in [(0, 1000), (2, 1000), (15, 9000), (16, 9000), (5000, 9000)] {
            assert_eq!(latency.at(0, in_flight), Some(expected), "{in_flight}");
        }
        // An eighth of the way with one answer, nearly all of it with twenty.
        latency.observe(1000, 5000, 0);
        assert_eq!(latency.at(1000, 0), Some(1500));
        for _ in 0..20 {
            latency.observe(1000, 5000, 0);
        }
        assert!(latency.at(1000, 0) > Some(4700));
        // An old mean is not used, neither as an answer nor for the mean with a new answer.
        latency.observe(5_000_000, 7000, 16);
        assert_eq!(latency.at(6_000_000, 0), Some(7000));
        assert_eq!(latency.at(10_000_000, 0), None);
    }

    #[test]
    fn steps_of_load_are_in_order() {
        let steps: Vec<usize> = (0..2000).map(LatencyAtLoad::step).collect();
        assert_eq!(steps[..9], [0, 1, 2, 3, 4, 4, 5, 5, 6]);
        assert!(steps.windows(2).all(|pair| pair[0] <= pair[1]));
        assert_eq!(steps[767..769], [STEPS - 2, STEPS - 1]);
        assert_eq!(steps[1999], STEPS - 1);
    }
}
