//! How long requests took, by classes, exact enough for a p99.

use std::time::Duration;

/// Classes in each octave of times: a reported time is at most a sixteenth too long.
const STEPS: u32 = 16;
const STEP_BITS: u32 = STEPS.ilog2();

/// Classes of all times that fit into 32 bits of microseconds, which is more than an hour.
const CLASSES: usize = ((32 - STEP_BITS + 1) * STEPS) as usize;

/// The number of times in each class.
#[derive(Clone)]
pub(crate) struct Times(Box<[u64; CLASSES]>);

impl Default for Times {
    fn default() -> Self {
        Self(Box::new([0; CLASSES]))
    }
}

impl Times {
    /// Counts a time.
    pub(crate) fn add(&mut self, time: Duration) {
        self.0[class_of(u32::try_from(time.as_micros()).unwrap_or(u32::MAX))] += 1;
    }

    /// Counts the times of others as well.
    pub(crate) fn merge(&mut self, other: &Self) {
        for (own, other) in self.0.iter_mut().zip(&*other.0) {
            *own = own.saturating_add(*other);
        }
    }

    /// The times that are in these and were not in those before.
    pub(crate) fn since(&self, before: &Self) -> Self {
        let mut left = self.clone();
        for (own, before) in left.0.iter_mut().zip(&*before.0) {
            *own = own.saturating_sub(*before);
        }
        left
    }

    /// The classes that have times, with their numbers.
    pub(crate) fn sparse(&self) -> Vec<(u16, u64)> {
        let all = (0..).zip(&*self.0);
        let some = all.filter(|(_, number)| **number > 0);
        some.map(|(class, number)| (class, *number)).collect()
    }

    /// What [`Self::sparse`] returned. Classes that do not exist are left out.
    pub(crate) fn of_sparse(sparse: &[(u16, u64)]) -> Self {
        let mut times = Self::default();
        for (class, number) in sparse {
            if let Some(own) = times.0.get_mut(usize::from(*class)) {
                *own = own.saturating_add(*number);
            }
        }
        times
    }

    /// The time in milliseconds that 99 of 100 of these times do not exceed; none if there are
    /// none.
    pub(crate) fn p99_ms(all: [&Self; 2]) -> Option<f64> {
        let [one, other] = all;
        let all = || (one.0.iter().zip(&*other.0)).map(|(one, other)| one.saturating_add(*other));
        let total = all().fold(0_u64, u64::saturating_add);
        if total == 0 {
            return None;
        }
        let mut beyond = 0_u64;
        let class = all().rposition(|times| {
            beyond = beyond.saturating_add(times);
            beyond > total / 100
        });
        class.map(|class| longest(class) as f64 / 1000.0)
    }
}

impl std::fmt::Debug for Times {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_list().entries(self.sparse()).finish()
    }
}

/// The class of a time in microseconds: the same number of classes for each octave, and one class
/// for each of the shortest times.
fn class_of(micros: u32) -> usize {
    let octave = micros.max(1).ilog2().saturating_sub(STEP_BITS);
    (octave * STEPS + (micros >> octave)) as usize
}

/// The longest time of a class, in microseconds.
fn longest(class: usize) -> u64 {
    let steps = STEPS as usize;
    let octave = (class / steps).saturating_sub(1);
    (((class - octave * steps + 1) as u64) << octave) - 1
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test may fail by panicking")]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_class_contains_its_times_to_within_a_sixteenth(micros in any::<u32>()) {
            let class = class_of(micros);
            prop_assert!(class < CLASSES);
            let (time, most) = (u64::from(micros), longest(class));
            prop_assert!(time <= most && most <= time + time / u64::from(STEPS), "{time} {most}");
            prop_assert!(class == 0 || longest(class - 1) < time);
        }

        /// The result is what the definition of p99 gives, within the width of a class.
        #[test]
        fn p99_is_exceeded_by_one_in_a_hundred(
            micros in prop::collection::vec(0_u32..10_000_000, 1..500),
        ) {
            let mut times = Times::default();
            for time in &micros {
                times.add(Duration::from_micros((*time).into()));
            }
            let told = Times::p99_ms([&Times::default(), &times]).unwrap() * 1000.0;
            let mut sorted = micros;
            sorted.sort_unstable();
            let exact = f64::from(sorted[sorted.len() - 1 - sorted.len() / 100]);
            let most = exact + exact / f64::from(STEPS);
            prop_assert!(told >= exact - 0.001 && told <= most + 0.001, "{told} {exact}");
        }

        /// What a gateway tells another one is what it has, and differences are what came since.
        #[test]
        fn times_are_told_and_compared_without_loss(
            before in prop::collection::vec(any::<u32>(), 0..50),
            later in prop::collection::vec(any::<u32>(), 0..50),
        ) {
            let of = |all: &[u32]| {
                let mut times = Times::default();
                all.iter().for_each(|time| times.add(Duration::from_micros((*time).into())));
                times
            };
            let (before, later) = (of(&before), of(&later));
            let mut all = before.clone();
            all.merge(&later);
            prop_assert_eq!(Times::of_sparse(&all.sparse()).sparse(), all.sparse());
            prop_assert_eq!(all.since(&before).sparse(), later.sparse());
        }
    }
}
