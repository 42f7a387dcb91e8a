//! Sticky sessions: requests of a session go to the endpoint of its first request. See README.md.

use std::collections::HashMap;

use guest_sdk::{Balancer, Endpoints, Entropy, Lottery, Request};

/// Picks the endpoint of a session; for a new session, the less busy of two drawn endpoints.
#[derive(Debug, Default)]
pub struct StickySessions {
    positions: HashMap<u64, usize>,
    lottery: Lottery,
}

impl Balancer for StickySessions {
    fn endpoints_changed(&mut self, endpoints: &Endpoints) {
        let ids = endpoints.iter().map(|endpoint| endpoint.id);
        self.positions = ids.zip(0..).collect();
        self.lottery = Lottery::new(endpoints);
    }

    fn pick(&mut self, request: &Request, endpoints: &Endpoints) -> Option<usize> {
        // A retry is not bound to the session's endpoint, because that endpoint has failed the
        // request.
        if request.attempt == 0
            && let Some(position) = request.affinity.and_then(|id| self.positions.get(&id))
        {
            return Some(*position);
        }
        self.lottery.less_busy(&mut Entropy::of(request), endpoints)
    }
}

guest_sdk::export!(StickySessions);

#[cfg(test)]
mod tests;
