//! Reports on standard error what is being checked, if that takes long: a balancer is asked for
//! tens of thousands of picks even if each takes milliseconds.

use std::cell::Cell;
use std::time::{Duration, Instant};

/// Time between two lines.
const PRINT_INTERVAL: Duration = Duration::from_secs(2);

/// Picks between two readings of the clock. Each may take as long as a pick may.
const PICKS_PER_CLOCK_READ: u64 = 16;

#[derive(Clone, Copy)]
struct Progress {
    /// The current check.
    id: &'static str,
    picks: u64,
    /// Picks at the last reading of the clock, and the time of the last line.
    looked: u64,
    told: Instant,
}

thread_local! {
    static PROGRESS: Cell<Option<Progress>> = const { Cell::new(None) };
}

/// Another check begins.
pub(super) fn begin(id: &'static str) {
    let told = PROGRESS
        .get()
        .map_or_else(Instant::now, |before| before.told);
    PROGRESS.set(Some(Progress {
        id,
        picks: 0,
        looked: 0,
        told,
    }));
}

/// One more pick was asked for.
pub(super) fn pick() {
    picks(1);
}

/// So many more picks were asked for.
pub(super) fn picks(count: u64) {
    let Some(mut progress) = PROGRESS.get() else {
        return;
    };
    progress.picks += count;
    if progress.picks - progress.looked >= PICKS_PER_CLOCK_READ {
        progress.looked = progress.picks;
        if progress.told.elapsed() >= PRINT_INTERVAL {
            progress.told = Instant::now();
            eprintln!("checking {}: {} picks so far", progress.id, progress.picks);
        }
    }
    PROGRESS.set(Some(progress));
}
