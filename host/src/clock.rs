//! The two clocks that measure picks.

use std::sync::LazyLock;
use std::time::{Duration, Instant};

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
