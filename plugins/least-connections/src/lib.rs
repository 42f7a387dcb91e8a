//! The fewest requests in flight, for each unit of weight. See README.md.

use std::collections::HashMap;

use guest_sdk::{Balancer, Column, Endpoint, Endpoints, Request};

/// What a turn of an endpoint of weight 1 takes of the virtual time.
const TURN: u64 = 1 << 32;

/// Takes the least busy one; among equals they take turns by weight.
#[derive(Debug, Default)]
pub struct LeastConnections {
    /// Until when in virtual time an endpoint has had its turns (start-time fair queueing, Goyal 1996).
    turns: Vec<u64>,
    ids: Vec<u64>,
    now: u64,
    /// Whether all weights are equal, so that loads compare as they are.
    plain: bool,
}

impl Balancer for LeastConnections {
    const COLUMNS: &'static [Column] = &[Column::InFlight];

    fn endpoints_changed(&mut self, endpoints: &[Endpoint]) {
        let known: HashMap<u64, u64> = self.ids.drain(..).zip(self.turns.drain(..)).collect();
        self.ids = endpoints.iter().map(|endpoint| endpoint.id).collect();
        let turns = self
            .ids
            .iter()
            .map(|id| known.get(id).copied().unwrap_or(self.now));
        self.turns = turns.collect();
        self.plain = endpoints
            .windows(2)
            .all(|pair| pair[0].weight == pair[1].weight);
    }

    fn pick(&mut self, _: &Request, endpoints: &Endpoints) -> Option<usize> {
        let busy = endpoints.column(Column::InFlight);
        let position = if self.plain {
            let least = *busy.iter().min()?;
            self.first_turn(busy.iter().map(|&busy| busy == least))
        } else {
            let (mut least, mut weight) = (u64::MAX, 1);
            for (&busy, endpoint) in busy.iter().zip(endpoints.iter()) {
                let (busy, own) = (u64::from(busy), u64::from(endpoint.weight));
                if least == u64::MAX || busy * weight < least * own {
                    (least, weight) = (busy, own);
                }
            }
            let both = busy.iter().zip(endpoints.iter());
            self.first_turn(both.map(|(&busy, endpoint)| {
                u64::from(busy) * weight == least * u64::from(endpoint.weight)
            }))
        }?;
        let start = self.turns[position].max(self.now);
        self.now = start;
        self.turns[position] = start + TURN / u64::from(endpoints[position].weight);
        Some(position)
    }
}

impl LeastConnections {
    /// Of the endpoints that are among the least busy, the one whose turn it is.
    fn first_turn(&self, least: impl Iterator<Item = bool>) -> Option<usize> {
        let candidates = least.zip(&self.turns).enumerate();
        let candidates = candidates.filter(|(_, (least, _))| *least);
        let first = candidates.min_by_key(|(_, (_, turn))| (**turn).max(self.now));
        first.map(|(position, _)| position)
    }
}

guest_sdk::export!(LeastConnections);

#[cfg(test)]
mod tests;
