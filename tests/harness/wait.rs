//! Waiting for what has to happen, without a fixed time.

use std::time::{Duration, Instant};

/// Longest wait for something that has to happen.
pub(crate) const WAIT_TIMEOUT: Duration = Duration::from_secs(30);

/// Waits until a condition holds; fails the test if it does not within [`WAIT_TIMEOUT`].
#[track_caller]
pub(crate) fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let start = Instant::now();
    while !holds() {
        assert!(start.elapsed() < WAIT_TIMEOUT, "waited in vain: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}
