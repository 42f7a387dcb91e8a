//! How fast a body has to come.

use std::cell::Cell;
use std::time::Duration;

/// How fast the client has to send the body, and how fast it was.
pub(super) struct Pace {
    /// Longest time between two reads.
    pub(super) patience: Duration,
    /// Smallest rate, in bytes a second; the body may be slower for at most `patience`. 0 sets no
    /// limit.
    pub(super) min_rate: Cell<u32>,
    /// Time that was spent waiting for the client.
    pub(super) waited: Cell<Duration>,
    /// Bytes that the client has sent.
    pub(super) received: Cell<u64>,
}

impl Pace {
    /// No limit but this patience.
    pub(super) fn new(patience: Duration) -> Self {
        Self {
            patience,
            min_rate: Cell::new(0),
            waited: Cell::default(),
            received: Cell::default(),
        }
    }

    /// How long the gateway may wait for the client from now on.
    pub(super) fn patience(&self) -> Duration {
        match self.min_rate.get() {
            0 => self.patience,
            rate => {
                let earned = Duration::from_secs(self.received.get() / u64::from(rate));
                let left = (self.patience + earned).saturating_sub(self.waited.get());
                left.min(self.patience)
            }
        }
    }
}
