//! Which endpoints had which beginnings of prompts lately, and so probably have them in their
//! caches. For balancers of inference servers.
//!
//! ```
//! # use guest_sdk::{Endpoint, Endpoints, prefix};
//! let mut memory = prefix::Memory::new(1000, 4);
//! memory.endpoints_changed(&Endpoints::new(vec![Endpoint { id: 1, weight: 1 }, Endpoint { id: 2, weight: 1 }]));
//! let hashes = |body: &[u8]| {
//!     let prompt = prefix::Prompt::of(body).unwrap_or_default();
//!     prompt.hashes(memory.block_size(), 16)
//! };
//! let (one, other) = (hashes(b"{\"prompt\": \"Say hello\"}"), hashes(b"{\"prompt\": \"Say hi\"}"));
//! memory.used(&one, 1);
//! assert_eq!(memory.known(&other, 1), 1);
//! assert_eq!(memory.known(&other, 0), 0);
//! ```

use std::collections::HashMap;

use crate::Endpoints;

pub use crate::prefix_index::HOLDERS;
use crate::prefix_index::Index;
pub use crate::prefix_saved::FORM;
use crate::prefix_saved::Saved;
pub use crate::prefix_text::{Prompt, of_path};

/// The maximum number of pairs that are saved, which are the newest ones, so that the state stays
/// below a mebibyte.
const SAVED: usize = 40_000;

/// How many of the hashes of a prompt are kept in a row before each further one stands for four
/// times as many blocks.
const DENSE: usize = 256;

/// The hashes of a prompt's prefixes, fewer of the long ones: of the first 256 all, then every
/// fourth up to 1,024, then every sixteenth up to 4,096, and so on. So a prompt of a mebibyte in
/// blocks of 64 bytes has 832, and no prefix is longer than the one before by more than 1.6 %.
#[must_use]
pub fn thinned(mut hashes: Vec<u64>) -> Vec<u64> {
    let (mut blocks, mut step) = (0, 1);
    hashes.retain(|_| {
        blocks += 1;
        if blocks > DENSE * step {
            step *= 4;
        }
        blocks % step == 0
    });
    hashes
}

/// The blocks in the longest of this many [`thinned`] prefixes.
#[must_use]
pub fn blocks_of(thinned: usize) -> usize {
    let mut blocks = thinned.min(DENSE);
    let (mut left, mut step) = (thinned - blocks, 4);
    while left > 0 {
        // From one scale to the next, the blocks grow from a quarter to all.
        let here = left.min(DENSE - DENSE / 4);
        blocks += here * step;
        left -= here;
        step *= 4;
    }
    blocks
}

/// Remembers which endpoints had which prefixes: pairs of a prefix's hash and an endpoint. Its
/// positions are those of the table that it was told of last.
#[derive(Debug, Default)]
pub struct Memory {
    index: Index,
    block_size: usize,
    /// The ids of the endpoints, by the positions that the index uses.
    ids: Vec<u64>,
}

impl Memory {
    /// A memory of at most `capacity` pairs, of 32 bytes each, for blocks of `block_size` bytes. It
    /// allocates its memory at once: if there is too little, this fails when settings are checked,
    /// and not hours later.
    #[must_use]
    pub fn new(capacity: usize, block_size: usize) -> Self {
        Self {
            index: Index::new(capacity),
            block_size,
            ids: Vec::new(),
        }
    }

    /// Bytes of a block.
    #[must_use]
    pub const fn block_size(&self) -> usize {
        self.block_size
    }

    /// Changes the positions to those of a new table, and forgets the endpoints that have left:
    /// their caches may be gone as well.
    pub fn endpoints_changed(&mut self, endpoints: &Endpoints) {
        let positions = endpoints.iter().zip(0..);
        let known: HashMap<u64, usize> = positions.map(|(e, position)| (e.id, position)).collect();
        let moved: Vec<Option<usize>> = self.ids.iter().map(|id| known.get(id).copied()).collect();
        if !moved.iter().zip(0..).all(|(new, old)| *new == Some(old)) {
            self.index.renumber(&moved);
        }
        self.ids = endpoints.iter().map(|endpoint| endpoint.id).collect();
    }

    /// Sets the seed of the hash chains, once; the entropy of the first pick is suitable. Clients
    /// must not know it.
    pub fn set_seed(&mut self, number: u64) {
        self.index.set_seed(number);
    }

    /// The positions that are known for a hash, the most recently used one first; at most
    /// [`HOLDERS`].
    pub fn holders(&self, hash: u64) -> impl Iterator<Item = usize> {
        self.index.holders(hash)
    }

    /// How many of the hashes of a request, from the shortest prefix on, are known for a position.
    #[must_use]
    pub fn known(&self, hashes: &[u64], position: usize) -> usize {
        hashes.partition_point(|hash| self.holders(*hash).any(|holder| holder == position))
    }

    /// Records that the endpoint at a position had a request with these prefixes, the shortest one
    /// first.
    pub fn used(&mut self, hashes: &[u64], position: usize) {
        self.index.used(hashes, position);
    }

    /// All pairs, the least recently used one first.
    pub fn pairs(&self) -> impl Iterator<Item = (u64, usize)> {
        self.index.pairs()
    }

    /// The newest pairs as bytes, for [`Balancer::save`](crate::Balancer::save): less than a
    /// mebibyte.
    #[must_use]
    pub fn save(&self) -> Vec<u8> {
        let surplus = self.index.pairs().count().saturating_sub(SAVED);
        let newest = self.index.pairs().skip(surplus);
        let saved = Saved {
            block_size: self.block_size as u32,
            ids: self.ids.clone(),
            pairs: newest
                .map(|(hash, position)| (hash, position as u32))
                .collect(),
        };
        saved.bytes()
    }

    /// Takes over what another memory has saved, before the first table; nothing if its blocks are
    /// of another size.
    ///
    /// # Errors
    ///
    /// A sentence for the log, if the bytes have another form.
    pub fn restore(&mut self, saved: &[u8]) -> Result<(), String> {
        let saved = Saved::read(saved);
        let saved = saved.ok_or("what was saved is in another form than this version's")?;
        if saved.block_size as usize == self.block_size {
            // The next call of `endpoints_changed` gives the endpoints their positions, as for any
            // other change.
            self.ids = saved.ids;
            for (hash, number) in saved.pairs {
                self.index.used(&[hash], number as usize);
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thinned_prefixes_are_dense_at_first_and_then_close() {
        for count in [
            0, 1, 255, 256, 257, 259, 260, 1023, 1024, 1025, 1040, 5000, 16_384,
        ] {
            let thin = thinned((1..=count).collect());
            // Each hash here is the number of its blocks.
            for (number, blocks) in thin.iter().zip(1..) {
                assert_eq!(blocks_of(blocks), *number as usize, "{count}");
            }
            let steps = thin.windows(2).map(|pair| pair[1] as f64 / pair[0] as f64);
            assert!(steps.skip(255).all(|growth| growth < 1.016), "{count}");
            let last = thin.last().copied().unwrap_or_default();
            assert!(count - last <= count / 64, "{count} {last}");
        }
        assert_eq!(thinned((0..16_384).collect()).len(), 832);
        assert_eq!(blocks_of(0), 0);
    }
}
