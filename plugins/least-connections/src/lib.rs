//! The fewest requests in flight, for each unit of weight. See README.md.

use std::collections::HashMap;

use guest_sdk::{Balancer, Endpoints, Request};

/// What a turn of an endpoint of weight 1 takes of the virtual time.
const TURN: u64 = 1 << 32;

/// Virtual time at which it starts anew, long before the numbers end.
const LATE: u64 = 1 << 62;

/// First byte of what is saved; behind it `now`, and for each endpoint its id and its turn, all of 8 bytes and
/// little-endian.
const FORM: u8 = 1;

/// Takes the least busy one; among equals they take turns by weight.
#[derive(Debug, Default)]
pub struct LeastConnections {
    ranks: Vec<Rank>,
    /// What an endpoint's turn takes, and its weight.
    steps: Vec<(u64, u32)>,
    ids: Vec<u64>,
    /// A tournament among all positions: each place has the better one of the two below it, the second
    /// place (of index 1) the best of all. An endpoint that changes plays its way up anew, and nobody
    /// looks at the others.
    winners: Vec<u32>,
    /// Until when in virtual time turns were taken.
    now: u64,
}

/// What endpoints are compared by; the lower the better.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
struct Rank {
    /// Requests in flight for each unit of weight.
    busy: u64,
    /// Until when in virtual time it has had its turns (start-time fair queueing, Goyal 1996).
    turn: u64,
}

impl Balancer for LeastConnections {
    fn endpoints_changed(&mut self, endpoints: &Endpoints) {
        let turns = self.ranks.iter().map(|rank| rank.turn);
        let known: HashMap<u64, u64> = self.ids.drain(..).zip(turns).collect();
        self.ids = endpoints.iter().map(|endpoint| endpoint.id).collect();
        let turn = |id| known.get(id).copied().unwrap_or(self.now);
        let rank = |id| Rank {
            // The gateway tells who is.
            busy: 0,
            turn: turn(id),
        };
        self.ranks = self.ids.iter().map(rank).collect();
        let steps = endpoints.iter().map(|endpoint| endpoint.weight.max(1));
        self.steps = steps
            .map(|weight| (TURN / u64::from(weight), weight))
            .collect();
        self.winners = vec![0; endpoints.len()];
        // Who has requests already, before the first pick waits for it.
        endpoints.each_change(|position, in_flight| {
            self.ranks[position].busy = busy(in_flight, self.steps[position].1);
        });
        self.play_all();
    }

    fn pick(&mut self, _: &Request, endpoints: &Endpoints) -> Option<usize> {
        endpoints.each_change(|position, in_flight| {
            self.ranks[position].busy = busy(in_flight, self.steps[position].1);
            self.play(position);
        });
        if self.ranks.is_empty() {
            return None;
        }
        let position = self.at(1) as usize;
        let rank = &mut self.ranks[position];
        self.now = self.now.max(rank.turn);
        rank.turn = self.now + self.steps[position].0;
        self.play(position);
        if self.now > LATE {
            self.start_anew();
        }
        Some(position)
    }

    fn save(&self) -> Vec<u8> {
        let turns = self.ids.iter().zip(&self.ranks);
        let numbers = turns.flat_map(|(id, rank)| [*id, rank.turn]);
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
        // The table that comes next takes them over, as at any change.
        while let (Some(id), Some(turn)) = (numbers.next(), numbers.next()) {
            self.ids.push(id);
            self.ranks.push(Rank { busy: 0, turn });
        }
        let latest = self.ranks.iter().map(|rank| rank.turn).max();
        if self.now.max(latest.unwrap_or(0)) > LATE + TURN {
            return Err("what was saved is of a time that never comes".into());
        }
        Ok(())
    }
}

/// Requests in flight for each unit of weight. Two ratios that differ do so by 2^-32 at least, as weights have
/// 16 bits, so 33 bits behind the point keep them apart.
fn busy(in_flight: u32, weight: u32) -> u64 {
    (u64::from(in_flight.min(i32::MAX as u32)) << 33) / u64::from(weight)
}

impl LeastConnections {
    /// Who is at a place: the places after the winners' are the positions themselves.
    fn at(&self, place: usize) -> u32 {
        match place.checked_sub(self.winners.len()) {
            Some(position) => position as u32,
            None => self.winners[place],
        }
    }

    /// The better of the two below a place; among equals the first one.
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

    /// Takes what has passed off all times.
    fn start_anew(&mut self) {
        for rank in &mut self.ranks {
            rank.turn = rank.turn.saturating_sub(self.now);
        }
        self.now = 0;
        self.play_all();
    }

    /// Takes a position whose rank has changed up its way.
    fn play(&mut self, position: usize) {
        let mut place = (position + self.winners.len()) / 2;
        while place > 0 {
            let winner = self.winner(place);
            let before = std::mem::replace(&mut self.winners[place], winner);
            if winner == before && winner as usize != position {
                // It was not this one's, and is not now: nothing above is about it.
                break;
            }
            place /= 2;
        }
    }
}

guest_sdk::export!(LeastConnections);

#[cfg(test)]
mod tests;
