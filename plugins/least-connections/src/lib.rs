//! Least connections: the endpoint with the fewest requests in flight for each unit of weight. See
//! README.md.

use std::collections::HashMap;

use guest_sdk::{Balancer, Endpoints, Request, Zones};

/// The virtual time that a turn of an endpoint of weight 1 takes.
const TURN: u64 = 1 << 32;

/// When the virtual time exceeds this, it is reset to 0, long before it overflows.
const LATE: u64 = 1 << 62;

/// The first byte of the saved state, which is its format. After it come `now`, and for each
/// endpoint its id and its turn, all of 8 bytes and little-endian.
const FORM: u8 = 1;

/// Picks the least busy endpoint. Equally busy endpoints take turns by weight.
#[derive(Debug, Default)]
pub struct LeastConnections {
    zones: Zones<Tournament>,
    /// The virtual time at which the latest turn of all began.
    now: u64,
    /// Ids and turns of a saved state, until the first table.
    restored: Vec<(u64, u64)>,
}

/// Some endpoints with their ranks, and the best one of them.
#[derive(Debug, Default)]
struct Tournament {
    ranks: Vec<Rank>,
    /// For each position, the virtual time that a turn takes, and the weight.
    steps: Vec<(u64, u32)>,
    ids: Vec<u64>,
    /// A tournament tree over all positions: each node has the better one of the two nodes below
    /// it. The root, with the best position of all, has index 1; index 0 is unused. When the rank
    /// of an endpoint changes, only the nodes above it are compared again.
    winners: Vec<u32>,
}

/// Endpoints are compared by this; the lowest is the best.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
struct Rank {
    /// Requests in flight for each unit of weight.
    busy: u64,
    /// The virtual time at which its last turn ends, and its next one is due (start-time fair
    /// queueing, Goyal 1996).
    turn: u64,
}

guest_sdk::settings! {
    /// What operators may set.
    struct Options {} with zones
}

impl Balancer for LeastConnections {
    const CONFIG_SCHEMA: &'static str = Options::SCHEMA;

    fn configure(&mut self, config: &str) -> Result<(), String> {
        let options = Options::read(config)?;
        self.zones
            .configure(options.prefer.as_deref(), options.spill_at)
    }

    fn endpoints_changed(&mut self, endpoints: &Endpoints) {
        let mut known: HashMap<u64, u64> = self.restored.drain(..).collect();
        known.extend(self.zones.parts().flat_map(Tournament::turns));
        let now = self.now;
        let turn = |id: u64| known.get(&id).copied().unwrap_or(now);
        self.zones
            .endpoints_changed(endpoints, |part, _| Tournament::new(part, &turn));
    }

    fn pick(&mut self, _: &Request, endpoints: &Endpoints) -> Option<usize> {
        let now = &mut self.now;
        let choose = |tree: &mut Tournament, part: &Endpoints| tree.choose(part, now);
        let position = self.zones.pick(endpoints, choose)?;
        if self.now > LATE {
            self.start_anew();
        }
        Some(position)
    }

    fn save(&self) -> Vec<u8> {
        let turns = self.zones.parts().flat_map(Tournament::turns);
        let numbers = turns.flat_map(|(id, turn)| [id, turn]);
        let numbers = std::iter::once(self.now).chain(numbers);
        let bytes = numbers.flat_map(u64::to_le_bytes);
        std::iter::once(FORM).chain(bytes).collect()
    }

    fn restore(&mut self, saved: &[u8]) -> Result<(), String> {
        let understood = saved.split_first().filter(|(form, _)| **form == FORM);
        let numbers = understood.map(|(_, rest)| rest.as_chunks::<8>());
        let numbers = match numbers {
            Some((numbers, [])) if numbers.len() % 2 == 1 => numbers,
            _ => return Err("what was saved is in another form than this version's".into()),
        };
        let mut numbers = numbers.iter().map(|bytes| u64::from_le_bytes(*bytes));
        self.now = numbers.next().unwrap_or(0);
        // The next call of `endpoints_changed` takes over these turns, as for any other change.
        while let (Some(id), Some(turn)) = (numbers.next(), numbers.next()) {
            self.restored.push((id, turn));
        }
        let latest = self.restored.iter().map(|(_, turn)| *turn).max();
        if self.now.max(latest.unwrap_or(0)) > LATE + TURN {
            return Err("what was saved is of a time that never comes".into());
        }
        Ok(())
    }
}

/// Requests in flight for each unit of weight. Two different ratios differ by at least 2^-32,
/// because weights have 16 bits, so 33 bits after the binary point keep them different.
fn busy(in_flight: u32, weight: u32) -> u64 {
    (u64::from(in_flight.min(i32::MAX as u32)) << 33) / u64::from(weight)
}

impl LeastConnections {
    /// Resets the virtual time to 0, and subtracts the time that has passed from all turns.
    fn start_anew(&mut self) {
        for tree in self.zones.parts_mut() {
            for rank in &mut tree.ranks {
                rank.turn = rank.turn.saturating_sub(self.now);
            }
            tree.play_all();
        }
        self.now = 0;
    }
}

impl Tournament {
    /// The endpoints of a table, whose turns are those of `turn`.
    fn new(endpoints: &Endpoints, turn: &impl Fn(u64) -> u64) -> Self {
        let ids: Vec<u64> = endpoints.iter().map(|endpoint| endpoint.id).collect();
        let rank = |id: &u64| Rank {
            // `each_change` sets it below.
            busy: 0,
            turn: turn(*id),
        };
        let steps = endpoints.iter().map(|endpoint| endpoint.weight.max(1));
        let steps = steps.map(|weight| (TURN / u64::from(weight), weight));
        let mut tree = Self {
            ranks: ids.iter().map(rank).collect(),
            steps: steps.collect(),
            winners: vec![0; ids.len()],
            ids,
        };
        // Reads the requests in flight here, so that the first pick need not wait for it.
        endpoints.each_change(|position, in_flight| {
            tree.ranks[position].busy = busy(in_flight, tree.steps[position].1);
        });
        tree.play_all();
        tree
    }

    /// Ids and turns.
    fn turns(&self) -> impl Iterator<Item = (u64, u64)> {
        let turns = self.ranks.iter().map(|rank| rank.turn);
        self.ids.iter().copied().zip(turns)
    }

    /// The best position, which then takes its turn.
    // It is called for each part of a table with zones, so the compiler would not compile it into
    // the pick of a table without.
    #[inline(always)]
    fn choose(&mut self, endpoints: &Endpoints, now: &mut u64) -> Option<usize> {
        endpoints.each_change(|position, in_flight| {
            self.ranks[position].busy = busy(in_flight, self.steps[position].1);
            self.play(position);
        });
        if self.ranks.is_empty() {
            return None;
        }
        let position = self.at(1) as usize;
        let rank = &mut self.ranks[position];
        *now = (*now).max(rank.turn);
        rank.turn = *now + self.steps[position].0;
        self.play(position);
        Some(position)
    }

    /// The position at a node. The nodes after those in `winners` are the leaves: one for each
    /// position, in order.
    fn at(&self, place: usize) -> u32 {
        match place.checked_sub(self.winners.len()) {
            Some(position) => position as u32,
            None => self.winners[place],
        }
    }

    /// The better of the two positions below a node; the lower position if they are equal.
    fn winner(&self, place: usize) -> u32 {
        let (left, right) = (self.at(2 * place), self.at(2 * place + 1));
        let rank = |position: u32| (self.ranks[position as usize], position);
        if rank(right) < rank(left) {
            right
        } else {
            left
        }
    }

    fn play_all(&mut self) {
        for place in (1..self.winners.len()).rev() {
            self.winners[place] = self.winner(place);
        }
    }

    /// Compares again on the way from a position, whose rank has changed, to the root.
    fn play(&mut self, position: usize) {
        let mut place = (position + self.winners.len()) / 2;
        while place > 0 {
            let winner = self.winner(place);
            let before = std::mem::replace(&mut self.winners[place], winner);
            if winner == before && winner as usize != position {
                // This position was not the winner here before, and is not now: nothing above
                // depends on it.
                break;
            }
            place /= 2;
        }
    }
}

guest_sdk::export!(LeastConnections);

#[cfg(test)]
mod tests;
