//! The pool of endpoints that were probed lately.
//!
//! Picks are frequent and the pool is small, so one pass over it finds all that a pick needs: the
//! probe to pick, and the probes to replace next. For this, each slot has two numbers, its rank and
//! its age, with the slot's index in their lowest bits.

use crate::Load;

/// The maximum number of slots of a pool.
pub(crate) const SLOTS: usize = 128;

/// The same as `u64`, for numbers with a slot in their lowest bits.
const SLOT: u64 = SLOTS as u64;

/// The place of an endpoint that is not in the pool.
const NOWHERE: u8 = u8::MAX;

/// The rank of a slot that must not be picked: its probe has been used as often as allowed, or is
/// too old, or the slot is empty.
const SPENT: u64 = !(SLOT - 1);

/// The result of a look at an endpoint.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Probe {
    pub(crate) position: u32,
    pub(crate) load: Load,
    /// Microseconds.
    pub(crate) latency: u32,
    /// Whether the endpoint reports more load than `hot_load` allows.
    pub(crate) full: bool,
    pub(crate) uses: u32,
}

impl Probe {
    /// The lower the better: cold endpoints by latency, and by load if latencies are equal, then
    /// hot endpoints by load. The lowest bits of a load, in units of 2^-20 requests, are ignored.
    fn rank(&self, hot: Load) -> u64 {
        const HOT: u64 = 1 << 63;
        let by_load = HOT | self.load.min(HOT - SLOT - 1);
        let by_latency = u64::from(self.latency) << 31 | self.load.min((1 << 31) - 1);
        let is_hot = self.full | (self.load > hot);
        let rank = if is_hot { by_load } else { by_latency };
        rank & !(SLOT - 1)
    }
}

/// A fixed number of slots, all present from the start. A probe of an endpoint that has no slot
/// replaces the worst or the oldest probe, and no probe is worse than one that must not be picked
/// any more. All numbers that are compared have the slot in their lowest bits.
///
/// The fields are arrays, because each indirection costs a component time: the address of an array
/// is known, and a slot is always within its bounds.
#[derive(Debug)]
pub(crate) struct Pool {
    /// The number of slots in use.
    size: usize,
    probes: [Probe; SLOTS],
    /// The ranks of the probes, or [`SPENT`].
    ranks: [u64; SLOTS],
    /// The times of the probes, in microseconds, multiplied by [`SLOT`], plus the slot.
    ages: [u64; SLOTS],
    /// The slot of each endpoint, by position; [`NOWHERE`] for most. The last entry is for the
    /// position that empty slots have.
    places: Vec<u8>,
    /// The slots to replace next, as of the last pass: the worst one, then the oldest one.
    leaving: [u8; 2],
    /// How many of these have been replaced since.
    left: usize,
    /// The time of the oldest probe, as of the last pass. No probe is older.
    oldest: u64,
}

/// The result of a pass over the pool. Each number has its slot in the lowest bits.
struct Found {
    best: u64,
    worst: u64,
    oldest: u64,
}

fn slot(number: u64) -> usize {
    (number % SLOT) as usize
}

impl Default for Pool {
    fn default() -> Self {
        let empty = Probe {
            position: 0,
            load: 0,
            latency: 0,
            full: false,
            uses: 0,
        };
        Self {
            size: 0,
            probes: [empty; SLOTS],
            ranks: [0; SLOTS],
            ages: [0; SLOTS],
            places: vec![NOWHERE],
            leaving: [0, 1],
            left: 0,
            oldest: u64::MAX,
        }
    }
}

impl Pool {
    /// Removes all probes, and sets the number of slots to `size`, at least 2, for a table of
    /// `count` endpoints.
    pub(crate) fn clear(&mut self, size: usize, count: usize) {
        self.size = size.clamp(2, SLOTS);
        for place in 0..self.size {
            self.probes[place].position = count as u32;
            self.ranks[place] = SPENT | place as u64;
            self.ages[place] = place as u64;
        }
        self.places = vec![NOWHERE; count + 1];
        self.leaving = [0, 1];
        self.left = 0;
        self.oldest = u64::MAX;
    }

    /// Adds a probe that was made now, at `at` microseconds. It replaces an earlier probe of the
    /// same endpoint. If there is none, it replaces the worst and the oldest probe in turn, so that
    /// the pool does not fill with probes that no pick would choose. An endpoint with a load above
    /// `hot` is hot.
    ///
    /// No branch depends on the content of the pool, because a CPU could not predict it.
    pub(crate) fn put(&mut self, probe: Probe, at: u64, hot: Load) {
        if self.left == self.leaving.len() {
            let found = self.look();
            self.note(&found);
        }
        let known = self.places[probe.position as usize];
        let new = known == NOWHERE;
        let place = if new { self.leaving[self.left] } else { known };
        self.left += usize::from(new);
        let slot = usize::from(place) % SLOTS;
        self.places[self.probes[slot].position as usize] = NOWHERE;
        self.places[probe.position as usize] = place;
        self.ranks[slot] = probe.rank(hot) | slot as u64;
        self.ages[slot] = (at * SLOT) | slot as u64;
        self.probes[slot] = probe;
    }

    /// Returns the position of the best probe, and adds the new request to the load of this probe,
    /// by the value of `steps` for the position. After `max_uses` picks a probe is spent. None if
    /// no probe can be picked.
    pub(crate) fn choose(&mut self, max_uses: u32, hot: Load, steps: &[Load]) -> Option<u32> {
        let found = self.look();
        if found.best >= SPENT {
            return None;
        }
        self.note(&found);
        let place = slot(found.best);
        let probe = &mut self.probes[place];
        probe.uses += 1;
        // The probe was made before this request, so its load does not include it yet.
        probe.load += steps[probe.position as usize];
        let rank = probe.rank(hot);
        let rank = if probe.uses < max_uses { rank } else { SPENT };
        self.ranks[place] = rank | place as u64;
        Some(probe.position)
    }

    /// Excludes the probes that are older than `limit` at `now`, both in microseconds, from picks.
    pub(crate) fn expire(&mut self, now: u64, limit: u64) {
        if now.saturating_sub(self.oldest) <= limit {
            return;
        }
        for place in 0..self.size {
            if now.saturating_sub(self.ages[place] / SLOT) > limit {
                self.ranks[place] = SPENT | place as u64;
                // With the time of now, the slot is not checked again before `limit` has passed.
                self.ages[place] = (now * SLOT) | place as u64;
            }
        }
        let found = self.look();
        self.note(&found);
    }

    /// Computes all ranks again, for another `hot`.
    pub(crate) fn judge(&mut self, hot: Load) {
        for (place, probe) in self.probes[..self.size].iter().enumerate() {
            if self.ranks[place] < SPENT {
                self.ranks[place] = probe.rank(hot) | place as u64;
            }
        }
    }

    /// The probes that can be picked, with their times.
    #[cfg(test)]
    pub(crate) fn usable(&self) -> Vec<(Probe, u64)> {
        let slots = (0..self.size).filter(|place| self.ranks[*place] < SPENT);
        slots
            .map(|place| (self.probes[place], self.ages[place] / SLOT))
            .collect()
    }

    fn look(&self) -> Found {
        let mut found = Found {
            best: u64::MAX,
            worst: 0,
            oldest: u64::MAX,
        };
        let (ranks, ages) = (&self.ranks[..self.size], &self.ages[..self.size]);
        for (&rank, &age) in ranks.iter().zip(ages) {
            found.best = found.best.min(rank);
            found.worst = found.worst.max(rank);
            found.oldest = found.oldest.min(age);
        }
        found
    }

    fn note(&mut self, found: &Found) {
        let (worst, oldest) = (slot(found.worst), slot(found.oldest));
        // Another slot, if the worst one is also the oldest.
        let other = if oldest + 1 < self.size {
            oldest + 1
        } else {
            0
        };
        let second = if oldest == worst { other } else { oldest };
        self.leaving = [worst as u8, second as u8];
        self.left = 0;
        self.oldest = found.oldest / SLOT;
    }
}
