//! Smooth weighted round robin: endpoints take turns, each as often as its weight says and as evenly
//! spread as it can be. See README.md.

use std::cmp::Ordering;
use std::collections::{BinaryHeap, HashMap};

use guest_sdk::{Balancer, Endpoints, Request};

/// Turns of an endpoint after which all of them are counted anew, so that no product below overflows:
/// 2 × 2^40 × 65535 is less than 2^64.
const RECOUNT: u64 = 1 << 40;

/// Longest cycle that is written down, in picks: 16 KiB with the way to it. A thousand endpoints of two
/// weights fit.
const LONGEST_CYCLE: u64 = 4096;

/// First byte of what is saved; behind it a row for each endpoint: its id, the number of its next turn (both 8
/// bytes) and its weight (4 bytes), little-endian, in the order of the table.
const FORM: u8 = 1;
const ROW: usize = 20;

/// Endpoints in the order of their next turns.
///
/// In each unit of time, divided by the greatest common divisor of the weights, every endpoint has the
/// same number of turns, so their order repeats. A short cycle is written down when the table changes,
/// and a pick then reads the next place of it. In front of it stands as much again: after a change,
/// turns that fall together may have been taken in another order than the one that repeats.
#[derive(Debug, Default)]
pub struct RoundRobin {
    /// The turns as of the start of `written`; as of now where nothing is written down.
    turns: BinaryHeap<Turn>,
    /// The positions on the way to the cycle, and then those of the cycle, in equal parts.
    written: Vec<u16>,
    /// Where in it the next pick is.
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
    /// The turn that is due first is the greatest, since the heap has the greatest on top. Of two at
    /// once, the one with the lower position is first.
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
    /// Endpoints that stay with their weight keep their turn; all others join as if they had been
    /// there all the time, so a change favours nobody.
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
        // The table that comes next takes them over, as at any change.
        self.turns = turns.ok_or("what was saved is in another form than this version's")?;
        Ok(())
    }
}

/// The turn in a row that was saved for this position; none if it is in another form.
fn turn_of((row, position): (&[u8], u32)) -> Option<Turn> {
    let (&id, row) = row.split_first_chunk()?;
    let (&number, row) = row.split_first_chunk()?;
    let turn = Turn {
        number: u64::from_le_bytes(number),
        weight: u32::from_le_bytes(row.try_into().ok()?).into(),
        position,
        id: u64::from_le_bytes(id),
    };
    // As far as the products are known to fit.
    let fits = turn.number < RECOUNT && (1..=u64::from(u16::MAX)).contains(&turn.weight);
    fits.then_some(turn)
}

impl RoundRobin {
    /// The next turn, which is then over.
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

    /// Writes the cycle down, if it is short.
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
        // It is a cycle if every endpoint had its share of turns in it.
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
            // A cycle is at least as long as the table, so positions are small where it is short.
            if let Some(Ok(position)) = self.turn().map(u16::try_from) {
                self.written.push(position);
            }
        }
    }

    /// Takes the whole units of time that have passed off every count.
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
