//! Who has had which beginning lately: what is supposed to be in the endpoints' caches.

use guest_sdk::mix;

/// Endpoints that are remembered for the same beginning: the ones that had it last. Among so many one that is not busy
/// is found, if there is one.
pub(crate) const HOLDERS: usize = 16;

/// No entry, no position.
const NONE: u32 = u32::MAX;

/// A bounded set of pairs of a beginning's hash and an endpoint's position, of which the ones used the longest ago
/// are forgotten.
///
/// All beginnings of a request are used together, the longest first. So who is known for one is known for the shorter
/// ones, unless [`HOLDERS`] others had those later.
#[derive(Debug, Default)]
pub(crate) struct Index {
    capacity: usize,
    entries: Vec<Entry>,
    /// The first entry of each chain. Entries of the same hash are in the same chain, the one used last before others.
    chains: Vec<u32>,
    /// What hashes are mixed with to tell their chain, so that nobody can have many of them in one; none before the
    /// first pick.
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
    /// The next one in the chain.
    next: u32,
}

impl Index {
    /// An index that remembers so many pairs. It takes its memory at once: too little of it shows when settings are
    /// tried, and not hours later.
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

    /// Positions that are known for a hash, the one used last first.
    pub(crate) fn holders(&self, hash: u64) -> impl Iterator<Item = usize> {
        let first = self.chains.get(self.chain(hash)).copied();
        let entry = |index: u32| self.entries.get(index as usize);
        let chain = std::iter::successors(first.and_then(entry), move |found| entry(found.next));
        let same = chain.filter(move |found| found.hash == hash && found.position != NONE);
        same.map(|found| found.position as usize)
    }

    /// A position had a request that begins so.
    pub(crate) fn used(&mut self, beginnings: &[u64], position: usize) {
        for &hash in beginnings.iter().rev() {
            self.touch(hash, position as u32);
        }
    }

    /// All pairs, the one used the longest ago first.
    pub(crate) fn pairs(&self) -> impl Iterator<Item = (u64, usize)> {
        let entry = |index: u32| self.entries.get(index as usize);
        let from_oldest =
            std::iter::successors(entry(self.oldest), move |found| entry(found.newer));
        let known = from_oldest.filter(|found| found.position != NONE);
        known.map(|found| (found.hash, found.position as usize))
    }

    /// The table has changed: `moved` has the new position of each old one, if it has any. Who has none is forgotten;
    /// the room is used for others as it grows old.
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

    /// Takes a number that nobody else knows, unless it has one.
    pub(crate) fn keep_secret(&mut self, number: u64) {
        if self.secret.is_some() {
            return;
        }
        self.secret = Some(number);
        self.chains.fill(NONE);
        // The newest comes to the front.
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

    /// Takes an entry out, for another pair.
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

    /// Has another entry follow in a chain, at its start if nothing is before.
    fn link(&mut self, before: u32, chain: usize, next: u32) {
        match self.entries.get_mut(before as usize) {
            Some(before) => before.next = next,
            None => self.chains[chain] = next,
        }
    }

    /// Takes an entry out of the list by age.
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

    /// Puts an entry in front of its chain and of the list by age.
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

    /// The same as a plain list, the oldest pair first.
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
        fn it_is_a_list_by_age(
            before in uses(), after in uses(), capacity in 1_usize..60,
            places in Just((0_usize..20).collect::<Vec<_>>()).prop_shuffle(), here in 0_usize..=20,
            secret: Option<u64>,
        ) {
            let (mut index, mut plain) = (Index::new(capacity), Plain::default());
            apply(&before, &mut index, &mut plain);
            // Some of them go.
            let moved: Vec<_> = places.iter().map(|place| (*place < here).then_some(*place)).collect();
            index.renumber(&moved);
            for (_, position) in &mut plain.0 {
                *position = moved.get(*position).copied().flatten().unwrap_or(usize::MAX);
            }
            // Where a hash is found changes, and nothing else.
            if let Some(secret) = secret {
                index.keep_secret(secret);
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

        /// What a look for the longest match relies on.
        #[test]
        fn whoever_is_known_for_a_beginning_somebody_is_known_for_the_shorter_ones(
            uses in proptest::collection::vec((0_u64..4, 1_usize..8, 0_usize..40), 1..200), capacity in 1_usize..50,
        ) {
            let mut index = Index::new(capacity);
            for (conversation, length, position) in uses {
                // Two blocks that all share, then their own.
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
    fn one_without_room_remembers_nothing() {
        for mut index in [Index::default(), Index::new(0)] {
            index.used(&[1, 2], 0);
            index.renumber(&[None]);
            assert_eq!((index.pairs().count(), index.holders(1).count()), (0, 0));
        }
    }
}
