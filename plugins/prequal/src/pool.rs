//! The pool of endpoints that were looked at lately.
//!
//! Picks are frequent and the pool is small, so one pass over it tells all that a pick wants to know: who is to be
//! taken, and who is to make room at the next one. For that each slot has two numbers that say how good and how old
//! it is, with the slot's own number in their lowest bits.

use crate::Load;

/// Slots that a pool may have.
pub(crate) const SLOTS: usize = 128;

/// The same, for what has a slot in its lowest bits.
const SLOT: u64 = SLOTS as u64;

/// Not in the pool.
const NOWHERE: u8 = u8::MAX;

/// How good a slot is that nobody is to take: it has served as often as it may, or is not believed any longer.
const SPENT: u64 = !(SLOT - 1);

/// What was seen of an endpoint.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Probe {
    pub(crate) position: u32,
    pub(crate) load: Load,
    /// Microseconds.
    pub(crate) latency: u32,
    /// Whether it says itself that it has too much to do.
    pub(crate) full: bool,
    pub(crate) uses: u32,
}

impl Probe {
    /// The lower the better: cold ones by latency, and by load where that is the same, then hot ones by
    /// load. The lowest bits of a load, in 2^-20ths of a request, make no difference.
    fn rank(&self, hot: Load) -> u64 {
        const HOT: u64 = 1 << 63;
        let by_load = HOT | self.load.min(HOT - SLOT - 1);
        let by_latency = u64::from(self.latency) << 31 | self.load.min((1 << 31) - 1);
        let is_hot = self.full | (self.load > hot);
        let rank = if is_hot { by_load } else { by_latency };
        rank & !(SLOT - 1)
    }
}

/// Slots, as many from the start as there are to be: whoever has none takes that of the worst, and none is worse
/// than one that has served. Each has its number in the lowest bits of all that is compared.
///
/// Arrays, since a component pays for each step to memory: their place is known, and so is that a slot is in them.
#[derive(Debug)]
pub(crate) struct Pool {
    /// Slots in use.
    size: usize,
    probes: [Probe; SLOTS],
    /// The ranks of the probes, or [`SPENT`].
    ranks: [u64; SLOTS],
    /// When they were made.
    ages: [u64; SLOTS],
    /// Where in the pool each endpoint is, by position; [`NOWHERE`] for most. One more for slots that nobody has
    /// had.
    places: Vec<u8>,
    /// Who makes room next, as of the last pass: the worst one, then the oldest one.
    leaving: [u8; 2],
    /// How many of these have left since.
    left: usize,
    /// No probe is older.
    oldest: u64,
}

/// What a pass over the pool finds, each with the slot in its lowest bits.
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
        let nobody = Probe {
            position: 0,
            load: 0,
            latency: 0,
            full: false,
            uses: 0,
        };
        Self {
            size: 0,
            probes: [nobody; SLOTS],
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
    /// Forgets everything, and has `size` slots, at least 2, for endpoints of `count` positions.
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

    /// Takes a probe of now, `at` microseconds, in the place of an earlier one of the same endpoint, or else of the worst and the oldest
    /// in turn, so that a pool does not fill with what nobody would choose. From a load of `hot` on an endpoint is
    /// hot.
    ///
    /// No branch depends on what is in the pool, since none could be foretold.
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

    /// Chooses the best one, and takes note that it will have another request, which adds its of `steps` to its
    /// load; as often as `max_uses` says. None if there is none.
    pub(crate) fn choose(&mut self, max_uses: u32, hot: Load, steps: &[Load]) -> Option<u32> {
        let found = self.look();
        if found.best >= SPENT {
            return None;
        }
        self.note(&found);
        let place = slot(found.best);
        let probe = &mut self.probes[place];
        probe.uses += 1;
        // The next pick is to know of this request, which the look was too early for.
        probe.load += steps[probe.position as usize];
        let rank = probe.rank(hot);
        let rank = if probe.uses < max_uses { rank } else { SPENT };
        self.ranks[place] = rank | place as u64;
        Some(probe.position)
    }

    /// Believes no probe that is older than `limit` at `now`, both in microseconds.
    pub(crate) fn expire(&mut self, now: u64, limit: u64) {
        if now.saturating_sub(self.oldest) <= limit {
            return;
        }
        for place in 0..self.size {
            if now.saturating_sub(self.ages[place] / SLOT) > limit {
                self.ranks[place] = SPENT | place as u64;
                // That is known now.
                self.ages[place] = (now * SLOT) | place as u64;
            }
        }
        let found = self.look();
        self.note(&found);
    }

    /// Ranks all anew.
    pub(crate) fn judge(&mut self, hot: Load) {
        for (place, probe) in self.probes[..self.size].iter().enumerate() {
            if self.ranks[place] < SPENT {
                self.ranks[place] = probe.rank(hot) | place as u64;
            }
        }
    }

    /// Probes that may be chosen, with their times.
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
        // Somebody else, if one is both.
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
