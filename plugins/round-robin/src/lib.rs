//! Smooth weighted round robin: endpoints take turns, each as often as its weight says, and its
//! turns are spread as evenly as possible. See README.md.

use std::cmp::Ordering;
use std::collections::{BinaryHeap, HashMap};

use guest_sdk::{Balancer, Endpoints, Request};

/// When an endpoint has had this many turns, the numbers of all turns are reduced, so that no
/// product below overflows: 2 × 2^40 × 65535 is less than 2^64.
const RECOUNT: u64 = 1 << 40;

/// The longest cycle that is stored, in picks: 16 KiB with the picks in front of it. A cycle of a
/// thousand endpoints with two weights fits.
const LONGEST_CYCLE: u64 = 4096;

/// The first byte of the saved state, which is its format. After it comes a row for each endpoint,
/// in the order of the table: its id, the number of its next turn (both 8 bytes) and its weight (4
/// bytes), little-endian.
const FORM: u8 = 1;
const ROW: usize = 20;

/// Endpoints in the order of their next turns.
///
/// One unit of time divided by the greatest common divisor of the weights is one cycle: an endpoint
/// has the same number of turns in every cycle, so the order of turns repeats. When the table
/// changes, a short cycle is stored, and a pick then reads the next position from it. In front of
/// the cycle, as many picks are stored again: after a change, turns that are due at the same time
/// may have been taken in another order than the one that repeats.
#[derive(Debug, Default)]
pub struct RoundRobin {
    /// The next turns as of the start of `written`; if `written` is empty, as of now.
    turns: BinaryHeap<Turn>,
    /// The first half has the positions before the cycle, the second half those of the cycle.
    written: Vec<u16>,
    /// The index of the next pick in `written`.
    next: usize,
}

/// The next turn of an endpoint. Its `n`th one, from 0, is due at `(2n + 1) / (2 × weight)`: in the
/// middle of the `n`th of the equal parts that the weight cuts each unit of time into.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Turn {
    number: u64,
    weight: u64,
    position: u32,
    id: u64,
}

impl Turn {
    fn cmp_due(&self, other: &Self) -> Ordering {
        ((2 * self.number + 1) * other.weight).cmp(&((2 * other.number + 1) * self.weight))
    }
}

impl Ord for Turn {
    /// The turn that is due first is the greatest, because the heap has the greatest on top. Of two
    /// turns that are due at the same time, the one with the lower position comes first.
    fn cmp(&self, other: &Self) -> Ordering {
        other
            .cmp_due(self)
            .then_with(|| other.position.cmp(&self.position))
    }
}

impl PartialOrd for Turn {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Balancer for RoundRobin {
    /// Endpoints that stay with the same weight keep their turn. All others join as if they had
    /// been in the table all the time, so a change favours no endpoint.
    fn endpoints_changed(&mut self, endpoints: &Endpoints) {
        for _ in 0..std::mem::take(&mut self.next) {
            self.turn();
        }
        let now = self.turns.peek().copied();
        let known: HashMap<u64, Turn> = self.turns.drain().map(|turn| (turn.id, turn)).collect();
        let turns = endpoints.iter().zip(0..).map(|(endpoint, position)| {
            let (id, weight) = (endpoint.id, u64::from(endpoint.weight));
            let number = match (known.get(&id), now) {
                (Some(turn), _) if turn.weight == weight => turn.number,
                (_, Some(now)) => first_turn_from(&now, weight),
                (_, None) => 0,
            };
            Turn {
                number,
                weight,
                position,
                id,
            }
        });
        self.turns = turns.collect();
        self.write_down();
    }

    fn pick(&mut self, _: &Request, _: &Endpoints) -> Option<usize> {
        let Some(&position) = self.written.get(self.next) else {
            return self.turn();
        };
        self.next += 1;
        if self.next == self.written.len() {
            self.next /= 2;
        }
        Some(usize::from(position))
    }

    fn save(&self) -> Vec<u8> {
        let mut now = Self {
            turns: self.turns.clone(),
            ..Self::default()
        };
        for _ in 0..self.next {
            now.turn();
        }
        let mut turns = now.turns.into_vec();
        turns.sort_unstable_by_key(|turn| turn.position);
        let mut saved = vec![FORM];
        for turn in turns {
            saved.extend(turn.id.to_le_bytes());
            saved.extend(turn.number.to_le_bytes());
            saved.extend((turn.weight as u32).to_le_bytes());
        }
        saved
    }

    fn restore(&mut self, saved: &[u8]) -> Result<(), String> {
        let turns = match saved.split_first() {
            Some((&FORM, rows)) => rows.chunks(ROW).zip(0..).map(turn_of).collect(),
            _ => None,
        };
        // The next call of `endpoints_changed` takes over these turns, as for any other change.
        self.turns = turns.ok_or("what was saved is in another form than this version's")?;
        Ok(())
    }
}

/// Reads the turn of a saved row for this position; none if the row has another format.
fn turn_of((row, position): (&[u8], u32)) -> Option<Turn> {
    let (&id, row) = row.split_first_chunk()?;
    let (&number, row) = row.split_first_chunk()?;
    let turn = Turn {
        number: u64::from_le_bytes(number),
        weight: u32::from_le_bytes(row.try_into().ok()?).into(),
        position,
        id: u64::from_le_bytes(id),
    };
    // Only values for which no product overflows.
    let fits = turn.number < RECOUNT && (1..=u64::from(u16::MAX)).contains(&turn.weight);
    fits.then_some(turn)
}

impl RoundRobin {
    /// Takes the next turn and returns its position.
    fn turn(&mut self) -> Option<usize> {
        let mut next = self.turns.peek_mut()?;
        let position = next.position;
        next.number += 1;
        let recount = next.number == RECOUNT;
        drop(next);
        if recount {
            self.recount();
        }
        Some(position as usize)
    }

    /// Stores the cycle, if it is short.
    fn write_down(&mut self) {
        self.written.clear();
        let weights = || self.turns.iter().map(|turn| turn.weight);
        let divisor = weights().fold(0, gcd).max(1);
        let length = weights().sum::<u64>() / divisor;
        if length > LONGEST_CYCLE {
            return;
        }
        let start = self.turns.clone();
        self.write(length);
        let mut before = vec![0; self.turns.len()];
        for turn in &self.turns {
            before[turn.position as usize] = turn.number;
        }
        self.write(length);
        // The second part repeats if every endpoint had its share of turns in it.
        let repeats = self
            .turns
            .iter()
            .all(|turn| turn.number - before[turn.position as usize] == turn.weight / divisor);
        self.turns = start;
        if !repeats {
            self.written.clear();
        }
    }

    fn write(&mut self, length: u64) {
        for _ in 0..length {
            // A cycle is at least as long as the table, so the positions of a short cycle fit into
            // `u16`.
            if let Some(Ok(position)) = self.turn().map(u16::try_from) {
                self.written.push(position);
            }
        }
    }

    /// Subtracts the whole units of time that have passed from the number of every turn.
    fn recount(&mut self) {
        let passed = self
            .turns
            .iter()
            .map(|turn| turn.number / turn.weight)
            .min();
        let passed = passed.unwrap_or(0);
        let turns = self.turns.drain().map(|turn| Turn {
            number: turn.number - passed * turn.weight,
            ..turn
        });
        self.turns = turns.collect();
    }
}

fn gcd(a: u64, b: u64) -> u64 {
    if b == 0 { a } else { gcd(b, a % b) }
}

/// The first turn of an endpoint of this weight that is not due before `now`.
fn first_turn_from(now: &Turn, weight: u64) -> u64 {
    // The least n with (2n + 1) / weight >= (2 now.number + 1) / now.weight.
    let due = ((2 * now.number + 1) * weight).div_ceil(now.weight);
    due.saturating_sub(1).div_ceil(2)
}

guest_sdk::export!(RoundRobin);

#[cfg(test)]
mod tests;
