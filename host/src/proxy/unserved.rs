//! Log lines about connections that cannot be served.

use std::cell::{Cell, RefCell};
use std::io;
use std::time::{Duration, Instant};

/// Shortest time between two log lines about connections that cannot be served.
const WARN_INTERVAL: Duration = Duration::from_secs(10);

/// Number of connections that could not be served since the last log line about them. With a line
/// for each connection, clients could fill the disk.
#[derive(Debug, Default)]
pub(super) struct Unserved {
    refused: Cell<u64>,
    of_address: Cell<u64>,
    failed: Cell<u64>,
    error: RefCell<String>,
    noted: Cell<Option<Instant>>,
}

impl Unserved {
    pub(super) fn refuse(&self) {
        self.refused.set(self.refused.get() + 1);
    }

    pub(super) fn refuse_of_address(&self) {
        self.of_address.set(self.of_address.get() + 1);
    }

    pub(super) fn fail(&self, error: &io::Error) {
        if self.failed.replace(self.failed.get() + 1) == 0 {
            *self.error.borrow_mut() = error.to_string();
        }
    }

    pub(super) fn note(&self, now: Instant, most: usize) {
        let recent = (self.noted.get()).is_some_and(|noted| now - noted < WARN_INTERVAL);
        if !recent && self.say(most) {
            self.noted.set(Some(now));
        }
    }

    /// Logs the numbers and resets them. Returns whether there was something to log.
    pub(super) fn say(&self, most: usize) -> bool {
        let (refused, failed) = (self.refused.take(), self.failed.take());
        let of_address = self.of_address.take();
        if refused > 0 {
            tracing::warn!(
                "{refused} connections of clients were refused: there are {most} already \
                 (setting max_connections, limit of open files)"
            );
        }
        if of_address > 0 {
            tracing::warn!(
                "{of_address} connections of clients were closed: their addresses had reached the \
                 limit (setting max_connections_per_address)"
            );
        }
        if failed > 0 {
            let error = self.error.borrow();
            tracing::warn!("{failed} connections could not be accepted; the first error: {error}");
        }
        refused + of_address + failed > 0
    }
}
