//! The latest probed loads, and a quantile of them.

use crate::Load;

/// The number of loads that are kept.
const SEEN: usize = 128;

/// The latest probed loads, in a ring buffer.
#[derive(Debug)]
pub(crate) struct Window {
    loads: [Load; SEEN],
    /// The number of loads so far, up to [`SEEN`].
    count: usize,
    /// The index of the next load.
    next: usize,
}

impl Default for Window {
    fn default() -> Self {
        Self {
            loads: [0; SEEN],
            count: 0,
            next: 0,
        }
    }
}

impl Window {
    pub(crate) fn note(&mut self, load: Load) {
        self.loads[self.next % SEEN] = load;
        self.next = (self.next + 1) % SEEN;
        self.count = (self.count + 1).min(SEEN);
    }

    pub(crate) fn len(&self) -> usize {
        self.count
    }

    /// The quantile of the loads for `part`, from 0 to 1; 0 if there are no loads.
    pub(crate) fn quantile(&self, part: f64) -> Load {
        let mut loads = self.loads;
        // Until the buffer is full, the loads are at its start.
        let loads = &mut loads[..self.count];
        match loads.len().checked_sub(1) {
            Some(last) => *loads.select_nth_unstable((last as f64 * part) as usize).1,
            None => 0,
        }
    }
}
