//! The two clocks that measure picks, and the time of day as it is written.

use std::cell::Cell;
use std::sync::LazyLock;
use std::time::{Duration, Instant, SystemTime};

use rustix::time::{ClockId, clock_gettime};

/// A time on the clock that balancers see, in microseconds since this process first read it.
pub fn micros(time: Instant) -> u64 {
    static START: LazyLock<Instant> = LazyLock::new(Instant::now);
    u64::try_from(time.saturating_duration_since(*START).as_micros()).unwrap_or(u64::MAX)
}

/// CPU time that this thread has used.
pub(crate) fn thread_cpu_time() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::try_from(time).unwrap_or_default()
}

/// How far apart two readings of the two clocks of [`time_of_day`] may be.
const APART: Duration = Duration::from_micros(10);

/// How long a comparison of the two clocks holds.
const COMPARED_FOR: Duration = Duration::from_secs(1);

/// The time of day at an instant. Most calls read no clock: the clocks are compared once in a
/// second on each thread, so a change of the system's time is in effect after a second.
pub(crate) fn time_of_day(at: Instant) -> SystemTime {
    thread_local! {
        static COMPARED: Cell<Option<(Instant, SystemTime)>> = const { Cell::new(None) };
    }
    let compared = COMPARED.get();
    if let Some((instant, time)) = compared
        && let Some(after) = at.checked_duration_since(instant)
        && after < COMPARED_FOR
    {
        return time + after;
    }
    let is_later = compared.is_none_or(|(instant, _)| at >= instant);
    let (instant, time) = compared.filter(|_| !is_later).unwrap_or_else(|| {
        let compared = compare();
        COMPARED.set(Some(compared));
        compared
    });
    match at.checked_duration_since(instant) {
        Some(after) => time + after,
        None => time - (instant - at),
    }
}

/// Reads both clocks at the same time, as far as the system lets this thread do so.
fn compare() -> (Instant, SystemTime) {
    let mut closest = None;
    for _ in 0..3 {
        let before = Instant::now();
        let time = SystemTime::now();
        let apart = before.elapsed();
        if closest.is_none_or(|(_, _, least)| apart < least) {
            closest = Some((before, time, apart));
        }
        if apart < APART {
            break;
        }
    }
    let (instant, time, _) = closest.unwrap_or((Instant::now(), SystemTime::now(), APART));
    (instant, time)
}

/// The time since 1970; none for a time before that.
pub(crate) fn since_1970(time: SystemTime) -> Duration {
    let since = time.duration_since(SystemTime::UNIX_EPOCH);
    since.unwrap_or_default()
}

/// The time of the system, in whole seconds since 1970.
pub(crate) fn unix_seconds() -> u64 {
    since_1970(SystemTime::now()).as_secs()
}

/// The time of the system, in seconds since 1970, to the millisecond.
pub(crate) fn unix_millis() -> f64 {
    to_millis(since_1970(SystemTime::now()))
}

/// Seconds, to the millisecond.
pub(crate) fn to_millis(time: Duration) -> f64 {
    time.as_millis() as f64 / 1000.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_of_day_follows_the_instant() {
        let now = Instant::now();
        let time = time_of_day(now);
        let before = now.checked_sub(Duration::from_secs(5)).unwrap_or(now);
        assert_eq!(time_of_day(before), time - (now - before));
        let later = now + Duration::from_millis(5);
        assert_eq!(time_of_day(later), time + Duration::from_millis(5));
        let apart = SystemTime::now().duration_since(time).unwrap_or_default();
        assert!(apart < Duration::from_secs(60), "{apart:?}");
    }
}
