//! The pool of endpoints that were looked at lately.
//!
//! Picks are frequent and the pool is small, so one pass over it tells all that a pick wants to know: who is to be
//! taken, and who is to make room at the next one. For that each slot has two numbers that say how good and how old
//! it is, with the slot's own number in their lowest bits.

use crate::Load;

/// Slots that a pool may have.
const SLOTS: u64 = 128;

/// Not in the pool.
const NOWHERE: u8 = u8::MAX;

/// How good a slot is that nobody is to take: it has served as often as it may, or is not believed any longer.
const SPENT: u64 = !(SLOTS - 1);

/// What was seen of an endpoint.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Probe {
    pub(crate) position: u32,
    pub(crate) load: Load,
    /// What one request more adds to it.
    pub(crate) step: Load,
    /// Microseconds.
    pub(crate) latency: u32,
    /// Whether it says itself that it has too much to do.
    pub(crate) full: bool,
    /// Microseconds.
    pub(crate) at: u64,
    pub(crate) uses: u32,
}

impl Probe {
    /// The lower the better: cold ones by latency, and by load where that is the same, then hot ones by
    /// load. The lowest bits of a load, in 2^-20ths of a request, make no difference.
    fn rank(&self, hot: Load) -> u64 {
        const HOT: u64 = 1 << 63;
        let rank = if self.full || self.load > hot {
            HOT | self.load.min(HOT - SLOTS - 1)
        } else {
            u64::from(self.latency) << 31 | self.load.min((1 << 31) - 1)
        };
        rank & !(SLOTS - 1)
    }
}

/// Slots, of which each has its number in the lowest bits of all that is kept for it.
#[derive(Debug, Default)]
pub(crate) struct Pool {
    probes: Vec<Probe>,
    /// The ranks of the probes, or [`SPENT`].
    ranks: Vec<u64>,
    /// When they were made.
    ages: Vec<u64>,
    /// Where in the pool each endpoint is, by position; [`NOWHERE`] for most.
    places: Vec<u8>,
    /// Who makes room next, as of the last pass: the worst one, then the oldest one.
    leaving: [Option<usize>; 2],
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
    (number % SLOTS) as usize
}

impl Pool {
    /// Forgets everything: positions, of which there are `count`, are others now.
    pub(crate) fn clear(&mut self, count: usize) {
        self.probes.clear();
        self.ranks.clear();
        self.ages.clear();
        self.leaving = [None; 2];
        self.places.clear();
        self.places.resize(count, NOWHERE);
    }

    /// Takes a probe in, in the place of an earlier one of the same endpoint, of nobody while there are fewer
    /// than `size`, or else of the worst and the oldest in turn, so that a pool does not fill with what nobody
    /// would choose. From a load of `hot` on an endpoint is hot.
    pub(crate) fn put(&mut self, probe: Probe, size: usize, hot: Load) {
        let known = usize::from(self.places[probe.position as usize]);
        let place = if known < self.probes.len() {
            known
        } else if self.probes.len() < size.min(SLOTS as usize) {
            self.probes.push(probe);
            self.ranks.push(SPENT);
            self.ages.push(0);
            self.probes.len() - 1
        } else {
            let place = self.leaves();
            self.places[self.probes[place].position as usize] = NOWHERE;
            place
        };
        self.places[probe.position as usize] = place as u8;
        self.probes[place] = probe;
        self.ranks[place] = probe.rank(hot) | place as u64;
        self.ages[place] = probe.at * SLOTS | place as u64;
    }

    /// Chooses the best one, and takes note that it will have another request; as often as `max_uses` says.
    /// None if there is none.
    pub(crate) fn choose(&mut self, max_uses: u32, hot: Load) -> Option<u32> {
        let found = self.look();
        if found.best >= SPENT {
            return None;
        }
        let (worst, oldest) = (slot(found.worst), slot(found.oldest));
        self.leaving = [Some(worst), Some(oldest).filter(|slot| *slot != worst)];
        self.oldest = found.oldest / SLOTS;
        let place = slot(found.best);
        let probe = &mut self.probes[place];
        probe.uses += 1;
        // The next pick is to know of this request, which the look was too early for.
        probe.load += probe.step;
        let spent = probe.uses >= max_uses;
        let rank = if spent { SPENT } else { probe.rank(hot) };
        self.ranks[place] = rank | place as u64;
        Some(probe.position)
    }

    /// Believes no probe that is older than `limit` at `now`, both in microseconds.
    pub(crate) fn expire(&mut self, now: u64, limit: u64) {
        if now.saturating_sub(self.oldest) <= limit {
            return;
        }
        for place in 0..self.probes.len() {
            if now.saturating_sub(self.ages[place] / SLOTS) > limit {
                self.ranks[place] = SPENT | place as u64;
                // That is known now.
                self.ages[place] = now * SLOTS | place as u64;
            }
        }
        self.oldest = self.look().oldest / SLOTS;
    }

    /// Ranks all anew.
    pub(crate) fn judge(&mut self, hot: Load) {
        for (place, probe) in self.probes.iter().enumerate() {
            if self.ranks[place] < SPENT {
                self.ranks[place] = probe.rank(hot) | place as u64;
            }
        }
    }

    /// Probes that may be chosen.
    #[cfg(test)]
    pub(crate) fn usable(&self) -> Vec<Probe> {
        let ranked = self.probes.iter().zip(&self.ranks);
        let usable = ranked.filter(|(_, rank)| **rank < SPENT);
        usable.map(|(probe, _)| *probe).collect()
    }

    fn look(&self) -> Found {
        let mut found = Found {
            best: u64::MAX,
            worst: 0,
            oldest: u64::MAX,
        };
        for (&rank, &age) in self.ranks.iter().zip(&self.ages) {
            found.best = found.best.min(rank);
            found.worst = found.worst.max(rank);
            found.oldest = found.oldest.min(age);
        }
        found
    }

    /// Whose place the next one takes.
    fn leaves(&mut self) -> usize {
        let [worst, oldest] = &mut self.leaving;
        let next = worst.take().or_else(|| oldest.take());
        next.unwrap_or_else(|| slot(self.look().worst))
    }
}
