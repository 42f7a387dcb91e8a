//! Picks by the order in which a hash map yields its keys, which depends on the seed that the
//! standard library asks the host for: two instances make the same picks only if the host gives
//! them the same seed.

use std::collections::HashMap;

use guest_sdk::{Balancer, Endpoints, Request};

#[derive(Default)]
struct HashOrder {
    positions: HashMap<u64, usize>,
    picks: usize,
}

impl Balancer for HashOrder {
    fn endpoints_changed(&mut self, endpoints: &Endpoints) {
        self.positions = endpoints
            .iter()
            .enumerate()
            .map(|(at, endpoint)| (endpoint.id, at))
            .collect();
    }

    fn pick(&mut self, _request: &Request, endpoints: &Endpoints) -> Option<usize> {
        self.picks += 1;
        self.positions
            .values()
            .nth(self.picks.checked_rem(endpoints.len())?)
            .copied()
    }
}

guest_sdk::export!(HashOrder);
