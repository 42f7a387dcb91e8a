//! A server's cache of earlier prompts.

use std::collections::{BTreeMap, HashMap};

use super::prompts::Prompt;

/// Blocks of prompts, up to a capacity. The least recently used blocks are evicted first, and of a
/// prompt the last blocks first, because a block is useless without those before it. vLLM evicts in
/// the same order.
#[derive(Debug)]
pub(super) struct Cache {
    capacity: u64,
    used: u64,
    owners: HashMap<u64, Kept>,
    /// Owners by the time of their last use.
    ages: BTreeMap<u64, u64>,
    clock: u64,
}

/// The first blocks of an owner.
#[derive(Debug, Clone, Copy, Default)]
struct Kept {
    blocks: u32,
    used_at: u64,
}

impl Cache {
    pub(super) fn new(capacity: u64) -> Self {
        Self {
            capacity,
            used: 0,
            owners: HashMap::new(),
            ages: BTreeMap::new(),
            clock: 0,
        }
    }

    /// How many blocks of a prompt are cached, from its start. This counts as a use of them.
    pub(super) fn recall(&mut self, prompt: &Prompt) -> u32 {
        let mut found = [0; 2];
        for (found, part) in found.iter_mut().zip(&prompt.parts) {
            let kept = self.owners.get(&part.owner).copied().unwrap_or_default();
            *found = kept.blocks.min(part.blocks);
            if *found < part.blocks {
                break;
            }
        }
        for (found, part) in found.iter().zip(&prompt.parts).rev() {
            if *found > 0 {
                self.touch(part.owner, *found);
            }
        }
        found.iter().sum()
    }

    /// Caches a whole prompt.
    pub(super) fn keep(&mut self, prompt: &Prompt) {
        for part in prompt.parts.iter().rev() {
            if part.blocks > 0 {
                self.touch(part.owner, part.blocks);
            }
        }
        while self.used > self.capacity
            && let Some(oldest) = self.ages.first_entry()
        {
            let surplus = self.used - self.capacity;
            let owner = *oldest.get();
            let blocks = self.owners.get(&owner).map_or(0, |kept| kept.blocks);
            if surplus < u64::from(blocks) {
                self.used = self.capacity;
                let left = blocks - surplus as u32;
                self.owners
                    .entry(owner)
                    .and_modify(|kept| kept.blocks = left);
            } else {
                self.used -= u64::from(blocks);
                oldest.remove();
                self.owners.remove(&owner);
            }
        }
    }

    /// Removes everything, as when a server crashes.
    pub(super) fn clear(&mut self) {
        *self = Self::new(self.capacity);
    }

    /// Marks the blocks of an owner as just used, and adds the missing ones up to `blocks`.
    fn touch(&mut self, owner: u64, blocks: u32) {
        self.clock += 1;
        let kept = self.owners.entry(owner).or_default();
        self.ages.remove(&kept.used_at);
        self.used += u64::from(blocks.saturating_sub(kept.blocks));
        kept.blocks = kept.blocks.max(blocks);
        kept.used_at = self.clock;
        self.ages.insert(self.clock, owner);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::prompts::Part;
    use super::*;

    fn prompt(shared: (u64, u32), own: (u64, u32)) -> Prompt {
        let part = |(owner, blocks)| Part { owner, blocks };
        Prompt {
            parts: [part(shared), part(own)],
            tail: 0,
        }
    }

    #[test]
    fn blocks_behind_a_gap_are_not_found() {
        let mut cache = Cache::new(10);
        cache.keep(&prompt((1, 4), (101, 3)));
        assert_eq!(cache.recall(&prompt((1, 4), (101, 5))), 7);
        assert_eq!(cache.recall(&prompt((1, 4), (102, 5))), 4);
        assert_eq!(cache.recall(&prompt((2, 4), (101, 3))), 0);
        // 101 was used before the last use of 1, so its last blocks are evicted first.
        cache.keep(&prompt((2, 4), (103, 0)));
        assert_eq!(cache.recall(&prompt((1, 4), (101, 5))), 6);
        cache.clear();
        assert_eq!(cache.recall(&prompt((1, 4), (101, 5))), 0);
    }

    /// The same prompt as a list of blocks.
    fn blocks(prompt: &Prompt) -> Vec<(u64, u32)> {
        let of = |part: &Part| {
            let owner = part.owner;
            (0..part.blocks).map(move |block| (owner, block))
        };
        prompt.parts.iter().flat_map(of).collect()
    }

    proptest! {
        #[test]
        fn it_agrees_with_a_list_of_blocks_by_last_use(
            asked in prop::collection::vec((0_u64..3, 0_u64..6, any::<bool>()), 1..80),
            capacity in 1_usize..40,
        ) {
            let mut cache = Cache::new(capacity as u64);
            // The most recently used block comes last.
            let mut plain: Vec<(u64, u32)> = Vec::new();
            let mut turns = [0; 6];
            for (group, conversation, kept) in asked {
                // A conversation stays in its group, and grows.
                let group = (group + conversation) % 3;
                turns[conversation as usize] += 1;
                let prompt = prompt((group, 4), (10 + 3 * conversation + group, turns[conversation as usize]));
                let all = blocks(&prompt);
                let found = all.iter().take_while(|block| plain.contains(block)).count();
                let used = if kept { all.len() } else { found };
                plain.retain(|block| !all[..used].contains(block));
                plain.extend(all[..used].iter().rev());
                plain.drain(..plain.len().saturating_sub(capacity));
                prop_assert_eq!(cache.recall(&prompt) as usize, found);
                if kept {
                    cache.keep(&prompt);
                }
                prop_assert_eq!(cache.used as usize, plain.len());
            }
        }
    }
}
