//! Maglev hashing: a lookup table in which every endpoint has its share of slots. See README.md.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use guest_sdk::{Balancer, Endpoint, Endpoints, Request, mix};

/// Looks up the key in the table.
#[derive(Debug, Default)]
pub struct Maglev {
    options: Options,
    /// The position of the endpoint for each remainder of a key.
    table: Vec<u32>,
}

guest_sdk::settings! {
    /// What operators may set.
    struct Options {
        /// Places in the table, a prime; a hundred for each endpoint keep shares within 1 %
        table_size: u32 = 65_537, "minimum": 2, "maximum": 5_000_011;
    }
}

impl Balancer for Maglev {
    const CONFIG_SCHEMA: &'static str = Options::SCHEMA;

    fn configure(&mut self, config: &str) -> Result<(), String> {
        self.options = Options::read(config)?;
        let size = self.options.table_size;
        if !is_prime(size) || size > 5_000_011 {
            return Err(format!(
                "table_size: expected a prime of at most 5000011, such as 65537, found {size}"
            ));
        }
        // If there is not enough memory for the table, this fails while the settings are checked,
        // and not at the first table.
        self.table = vec![FREE; size as usize];
        Ok(())
    }

    fn endpoints_changed(&mut self, endpoints: &Endpoints) {
        // Fills the table in place, because there may not be enough memory for two of them.
        fill(&mut self.table, self.options.table_size, endpoints);
    }

    fn pick(&mut self, request: &Request, _: &Endpoints) -> Option<usize> {
        // Without a key, any endpoint may be picked. A retry uses another key, so that it is likely
        // to go to another endpoint.
        let key = match (request.affinity, request.attempt) {
            (Some(key), 0) => key,
            (Some(key), attempt) => mix(key.wrapping_add(u64::from(attempt))),
            (None, _) => request.entropy,
        };
        let place = key.checked_rem(self.table.len() as u64)?;
        self.table
            .get(place as usize)
            .map(|&position| position as usize)
    }
}

/// A slot of the table that no endpoint has taken yet.
const FREE: u32 = u32::MAX;

/// An endpoint while the table is filled: its permutation of the slots, and how many it has taken.
struct Seeker {
    next: u32,
    skip: u32,
    weight: u64,
    /// The number of slots that it has taken.
    chosen: u64,
    position: u32,
}

impl Seeker {
    fn new(endpoint: &Endpoint, position: u32, size: u32) -> Self {
        Self {
            next: (mix(endpoint.id) % u64::from(size)) as u32,
            skip: (mix(endpoint.id ^ 0x6a09_e667_f3bc_c908) % u64::from(size - 1)) as u32 + 1,
            weight: u64::from(endpoint.weight.max(1)),
            chosen: 0,
            position,
        }
    }

    /// The round in which it takes its next slot. The endpoint with the highest weight takes one in
    /// each round.
    fn round(&self, heaviest: u64) -> u64 {
        ((self.chosen + 1) * heaviest).div_ceil(self.weight)
    }

    fn step(&mut self, size: u32) {
        let rest = size - self.next;
        self.next = if self.skip >= rest {
            self.skip - rest
        } else {
            self.next + self.skip
        };
    }

    /// Takes the next free slot of its permutation.
    fn choose(&mut self, table: &mut [u32]) {
        let size = table.len() as u32;
        while table[self.next as usize] != FREE {
            self.step(size);
        }
        table[self.next as usize] = self.position;
        self.step(size);
        self.chosen += 1;
    }
}

/// Fills the table: endpoints take slots in turn, each in the order of its own permutation, and as
/// often as its weight says. Source: Eisenbud et al., "Maglev", NSDI 2016, 3.4; weights as in
/// Envoy.
fn fill(table: &mut Vec<u32>, size: u32, endpoints: &[Endpoint]) {
    table.clear();
    let Some(heaviest) = endpoints.iter().map(|endpoint| endpoint.weight).max() else {
        return;
    };
    let heaviest = u64::from(heaviest.max(1));
    table.resize(size as usize, FREE);
    let seekers = endpoints.iter().zip(0..);
    let mut seekers: Vec<Seeker> = seekers
        .map(|(endpoint, position)| Seeker::new(endpoint, position, size))
        .collect();
    // The order of turns must not depend on the order of the endpoints, which differs between
    // gateways.
    seekers.sort_unstable_by_key(|seeker| mix(endpoints[seeker.position as usize].id));
    if seekers.iter().all(|seeker| seeker.weight == heaviest) {
        for turn in 0..table.len() {
            let next = turn % seekers.len();
            seekers[next].choose(table);
        }
        return;
    }
    let total: u64 = seekers.iter().map(|seeker| seeker.weight).sum();
    if heaviest * seekers.len() as u64 <= total * EVEN {
        fill_by_rounds(table, &mut seekers, heaviest);
        return;
    }
    let turns = seekers.iter().zip(0_u32..);
    let mut turns: BinaryHeap<_> = turns
        .map(|(seeker, order)| Reverse((seeker.round(heaviest), order)))
        .collect();
    for _ in 0..size {
        if let Some(mut turn) = turns.peek_mut() {
            let seeker = &mut seekers[turn.0.1 as usize];
            seeker.choose(table);
            turn.0.0 = seeker.round(heaviest);
        }
    }
}

/// If the highest weight is at most this many times the mean weight, it is faster to visit every
/// endpoint in every round than to keep them sorted by their next round.
const EVEN: u64 = 16;

fn fill_by_rounds(table: &mut [u32], seekers: &mut [Seeker], heaviest: u64) {
    let mut left = table.len();
    // The weight that each endpoint has accumulated for its next slot, in the order of the
    // endpoints.
    let mut credits = vec![0; seekers.len()];
    loop {
        for (seeker, credit) in seekers.iter_mut().zip(&mut credits) {
            *credit += seeker.weight;
            if *credit < heaviest {
                continue;
            }
            *credit -= heaviest;
            seeker.choose(table);
            left -= 1;
            if left == 0 {
                return;
            }
        }
    }
}

fn is_prime(number: u32) -> bool {
    number >= 2
        && (2..)
            .take_while(|d| d * d <= number)
            .all(|d| !number.is_multiple_of(d))
}

guest_sdk::export!(Maglev);

#[cfg(test)]
mod tests;
