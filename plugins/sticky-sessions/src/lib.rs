//! Sessions stay where they began. See README.md.

use std::collections::HashMap;

use guest_sdk::{Balancer, Endpoint, Endpoints, Entropy, Lottery, Request};

/// Finds the endpoint of a session, and a not too busy one for a new session.
#[derive(Debug, Default)]
pub struct StickySessions {
    positions: HashMap<u64, usize>,
    lottery: Lottery,
}

impl Balancer for StickySessions {
    fn endpoints_changed(&mut self, endpoints: &[Endpoint]) {
        let ids = endpoints.iter().map(|endpoint| endpoint.id);
        self.positions = ids.zip(0..).collect();
        self.lottery = Lottery::new(endpoints);
    }

    fn pick(&mut self, request: &Request, endpoints: &Endpoints) -> Option<usize> {
        // A retry is for an endpoint that did not answer its session.
        if request.attempt == 0
            && let Some(position) = request.affinity.and_then(|id| self.positions.get(&id))
        {
            return Some(*position);
        }
        let (first, second) = self.lottery.draw_two(&mut Entropy::of(request))?;
        let busy = |position: usize| u64::from(endpoints.look(position).in_flight);
        let weight = |position: usize| u64::from(endpoints[position].weight);
        let less = busy(second) * weight(first) < busy(first) * weight(second);
        Some(if less { second } else { first })
    }
}

guest_sdk::export!(StickySessions);

#[cfg(test)]
mod tests;
