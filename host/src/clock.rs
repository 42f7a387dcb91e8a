//! The two clocks that measure picks, and the time of day as it is written.

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
