//! Which endpoints had which prefixes lately, and so probably have them in their caches.

use crate::mix;

/// The maximum number of endpoints that are remembered for the same prefix, which are the ones that
/// had it last. Among so many there is probably one that is not busy.
pub const HOLDERS: usize = 16;

/// Stands for no entry or no position.
const NONE: u32 = u32::MAX;

/// A bounded set of pairs of a prefix's hash and an endpoint's position. When it is full, a new
/// pair replaces the least recently used one.
///
/// All prefixes of a request are used together, the longest first. So an endpoint that is known for
/// a prefix is known for the shorter ones as well, unless [`HOLDERS`] other endpoints had those
/// later.
#[derive(Debug, Default)]
pub(crate) struct Index {
    capacity: usize,
    entries: Vec<Entry>,
    /// The first entry of each chain. Entries of the same hash are in the same chain, the most
    /// recently used one first.
    chains: Vec<u32>,
    /// Mixed with a hash to choose its chain, so that a client cannot put many hashes into one
    /// chain; none before the first pick.
    secret: Option<u64>,
    /// The ends of the list by age.
    newest: u32,
    oldest: u32,
}

#[derive(Debug, Clone, Copy)]
struct Entry {
    hash: u64,
    position: u32,
    newer: u32,
    older: u32,
    /// The next entry in the chain.
    next: u32,
}

impl Index {
    /// An index that remembers at most `capacity` pairs. It allocates its memory at once: if there
    /// is too little, this fails when the settings are checked, and not hours later.
    pub(crate) fn new(capacity: usize) -> Self {
        Self {
            capacity,
            entries: Vec::with_capacity(capacity),
            chains: vec![NONE; capacity.next_power_of_two()],
            secret: None,
            newest: NONE,
            oldest: NONE,
        }
    }

    /// The positions that are known for a hash, the most recently used one first.
    pub(crate) fn holders(&self, hash: u64) -> impl Iterator<Item = usize> {
        let first = self.chains.get(self.chain(hash)).copied();
        let entry = |index: u32| self.entries.get(index as usize);
        let chain = std::iter::successors(first.and_then(entry), move |found| entry(found.next));
        let same = chain.filter(move |found| found.hash == hash && found.position != NONE);
        same.map(|found| found.position as usize)
    }

    /// Records that the endpoint at a position had a request with these prefixes.
    pub(crate) fn used(&mut self, beginnings: &[u64], position: usize) {
        for &hash in beginnings.iter().rev() {
            self.touch(hash, position as u32);
        }
    }

    /// All pairs, the least recently used one first.
    pub(crate) fn pairs(&self) -> impl Iterator<Item = (u64, usize)> {
        let entry = |index: u32| self.entries.get(index as usize);
        let from_oldest =
            std::iter::successors(entry(self.oldest), move |found| entry(found.newer));
        let known = from_oldest.filter(|found| found.position != NONE);
        known.map(|found| (found.hash, found.position as usize))
    }

    /// Changes the positions after a change of the table: `moved` has the new position of each old
    /// one, or none if the endpoint has left. The pairs of an endpoint that has left are ignored;
    /// their entries are reused as they become the oldest ones.
    pub(crate) fn renumber(&mut self, moved: &[Option<usize>]) {
        for entry in &mut self.entries {
            let new = moved.get(entry.position as usize).copied().flatten();
            entry.position = new.map_or(NONE, |new| new as u32);
        }
    }

    fn chain(&self, hash: u64) -> usize {
        let mixed = mix(hash ^ self.secret.unwrap_or_default());
        mixed as usize & self.chains.len().wrapping_sub(1)
    }

    /// Sets the secret, unless it is set already. `number` must not be known to clients.
    pub(crate) fn set_seed(&mut self, number: u64) {
        if self.secret.is_some() {
            return;
        }
        self.secret = Some(number);
        self.chains.fill(NONE);
        // From the oldest to the newest entry, so that the newest one comes first in each chain.
        let mut index = self.oldest;
        while let Some(&Entry { hash, newer, .. }) = self.entries.get(index as usize) {
            let chain = self.chain(hash);
            self.entries[index as usize].next = self.chains[chain];
            self.chains[chain] = index;
            index = newer;
        }
    }

    /// Makes a pair the newest one.
    fn touch(&mut self, hash: u64, position: u32) {
        if self.capacity == 0 {
            return;
        }
        let chain = self.chain(hash);
        let (mut before, mut index) = (NONE, self.chains[chain]);
        let (mut holders, mut last) = (0, NONE);
        while index != NONE {
            let entry = self.entries[index as usize];
            if entry.hash == hash {
                if entry.position == position {
                    self.link(before, chain, entry.next);
                    self.detach(index);
                    self.attach(index, chain);
                    return;
                }
                holders += 1;
                last = index;
            }
            (before, index) = (index, entry.next);
        }
        let index = if holders >= HOLDERS {
            self.take(last)
        } else if self.entries.len() < self.capacity {
            self.entries.push(Entry {
                hash,
                position,
                newer: NONE,
                older: NONE,
                next: NONE,
            });
            self.entries.len() as u32 - 1
        } else {
            self.take(self.oldest)
        };
        let entry = &mut self.entries[index as usize];
        (entry.hash, entry.position) = (hash, position);
        self.attach(index, chain);
    }

    /// Removes an entry from its chain and from the list by age, so that it can be used for another
    /// pair.
    fn take(&mut self, index: u32) -> u32 {
        let entry = self.entries[index as usize];
        let chain = self.chain(entry.hash);
        let (mut before, mut found) = (NONE, self.chains[chain]);
        while found != index {
            (before, found) = (found, self.entries[found as usize].next);
        }
        self.link(before, chain, entry.next);
        self.detach(index);
        index
    }

    /// Makes `next` the entry after `before` in a chain, or the first one if `before` is none.
    fn link(&mut self, before: u32, chain: usize, next: u32) {
        match self.entries.get_mut(before as usize) {
            Some(before) => before.next = next,
            None => self.chains[chain] = next,
        }
    }

    /// Removes an entry from the list by age.
    fn detach(&mut self, index: u32) {
        let Entry { newer, older, .. } = self.entries[index as usize];
        match self.entries.get_mut(newer as usize) {
            Some(entry) => entry.older = older,
            None => self.newest = older,
        }
        match self.entries.get_mut(older as usize) {
            Some(entry) => entry.newer = newer,
            None => self.oldest = newer,
        }
    }

    /// Puts an entry at the front of its chain, and at the newest end of the list by age.
    fn attach(&mut self, index: u32, chain: usize) {
        let (first, second) = (self.chains[chain], self.newest);
        let entry = &mut self.entries[index as usize];
        (entry.next, entry.older, entry.newer) = (first, second, NONE);
        self.chains[chain] = index;
        self.newest = index;
        match self.entries.get_mut(second as usize) {
            Some(entry) => entry.newer = index,
            None => self.oldest = index,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A simple model of the index: a list of pairs, the oldest one first.
    #[derive(Default)]
    struct Plain(Vec<(u64, usize)>);

    impl Plain {
        fn touch(&mut self, hash: u64, position: usize, capacity: usize) {
            let pair = (hash, position);
            let before = self.0.len();
            self.0.retain(|known| *known != pair);
            if self.0.len() == before {
                let holders = self.0.iter().filter(|(known, _)| *known == hash).count();
                if holders >= HOLDERS {
                    let oldest = self.0.iter().position(|(known, _)| *known == hash);
                    oldest.map(|oldest| self.0.remove(oldest));
                } else if self.0.len() == capacity {
                    self.0.remove(0);
                }
            }
            self.0.push(pair);
        }
    }

    type Use = (u64, usize, usize);

    fn uses() -> impl Strategy<Value = Vec<Use>> {
        proptest::collection::vec((0_u64..12, 1_usize..4, 0_usize..20), 0..100)
    }

    fn apply(uses: &[Use], index: &mut Index, plain: &mut Plain) {
        for &(first, length, position) in uses {
            let beginnings: Vec<u64> = (first..).take(length).map(|hash| hash << 4).collect();
            index.used(&beginnings, position);
            for hash in beginnings.iter().rev() {
                plain.touch(*hash, position, index.capacity);
            }
        }
    }

    proptest! {
        #[test]
        fn the_index_equals_a_list_by_age(
            before in uses(), after in uses(), capacity in 1_usize..60,
            places in Just((0_usize..20).collect::<Vec<_>>()).prop_shuffle(), here in 0_usize..=20,
            secret: Option<u64>,
        ) {
            let (mut index, mut plain) = (Index::new(capacity), Plain::default());
            apply(&before, &mut index, &mut plain);
            // Some endpoints leave.
            let moved: Vec<_> = places.iter().map(|place| (*place < here).then_some(*place)).collect();
            index.renumber(&moved);
            for (_, position) in &mut plain.0 {
                *position = moved.get(*position).copied().flatten().unwrap_or(usize::MAX);
            }
            // The secret changes only the chains of the hashes.
            if let Some(secret) = secret {
                index.set_seed(secret);
            }
            apply(&after, &mut index, &mut plain);
            let known = || plain.0.iter().copied().filter(|(_, position)| *position != usize::MAX);
            prop_assert_eq!(index.pairs().collect::<Vec<_>>(), known().collect::<Vec<_>>());
            for hash in (0..16).map(|hash| hash << 4) {
                let mut holders: Vec<usize> =
                    known().filter(|(known, _)| *known == hash).map(|(_, position)| position).collect();
                holders.reverse();
                prop_assert_eq!(index.holders(hash).collect::<Vec<_>>(), holders);
            }
        }

        /// The search for the longest match relies on this.
        #[test]
        fn a_known_prefix_implies_that_the_shorter_ones_are_known(
            uses in proptest::collection::vec((0_u64..4, 1_usize..8, 0_usize..40), 1..200), capacity in 1_usize..50,
        ) {
            let mut index = Index::new(capacity);
            for (conversation, length, position) in uses {
                // Two blocks that all conversations share, then the conversation's own blocks.
                let own = (2..).map(|block| 100 * (conversation + 1) + block);
                let beginnings: Vec<u64> = [0, 1].into_iter().chain(own).take(length).collect();
                index.used(&beginnings, position);
                for (conversation, block) in (1..=4).flat_map(|c| (0..8).map(move |b| (c, b))) {
                    let name = |block: u64| if block < 2 { block } else { 100 * conversation + block };
                    if index.holders(name(block)).next().is_some() {
                        prop_assert!((0..block).all(|shorter| index.holders(name(shorter)).next().is_some()));
                    }
                }
            }
        }
    }

    #[test]
    fn an_index_without_capacity_remembers_nothing() {
        for mut index in [Index::default(), Index::new(0)] {
            index.used(&[1, 2], 0);
            index.renumber(&[None]);
            assert_eq!((index.pairs().count(), index.holders(1).count()), (0, 0));
        }
    }
}
