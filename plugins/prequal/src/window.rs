//! The loads that were seen last, and a quantile of them.

use crate::Load;

/// Loads that are kept.
const SEEN: usize = 128;

/// The last loads that were seen.
#[derive(Debug)]
pub(crate) struct Window {
    loads: [Load; SEEN],
    /// How many there are.
    count: usize,
    /// Where the next one goes.
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

    /// The load that so much of what was seen is at most, from 0 to 1; 0 if nothing was.
    pub(crate) fn quantile(&self, part: f64) -> Load {
        let mut loads = self.loads;
        // As long as there are fewer, they are the first ones.
        let loads = &mut loads[..self.count];
        match loads.len().checked_sub(1) {
            Some(last) => *loads.select_nth_unstable((last as f64 * part) as usize).1,
            None => 0,
        }
    }
}
