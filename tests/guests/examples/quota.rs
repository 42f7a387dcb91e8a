//! Takes turns among the endpoints that have not asked for a pause: one that answers 429 or 503
//! with `Retry-After` is left out until that time. If all have, the request is refused until the
//! first is back.

use std::collections::HashMap;

use guest_sdk::{Balancer, Ended, Endpoints, Request, refuse};

#[derive(Default)]
struct Quota {
    turn: usize,
    /// When each endpoint that has asked for a pause may be asked again, in microseconds.
    paused: HashMap<u64, u64>,
}

impl Balancer for Quota {
    fn endpoints_changed(&mut self, endpoints: &Endpoints) {
        let known = |id: &u64| endpoints.iter().any(|endpoint| endpoint.id == *id);
        self.paused.retain(|id, _| known(id));
    }

    fn pick(&mut self, request: &Request, endpoints: &Endpoints) -> Option<usize> {
        self.paused.retain(|_, until| *until > request.now);
        let turns = (0..endpoints.len()).map(|step| (self.turn + step) % endpoints.len());
        let mut free = turns.filter(|turn| !self.paused.contains_key(&endpoints[*turn].id));
        let Some(position) = free.next() else {
            let first = self.paused.values().min().copied().unwrap_or(request.now);
            let seconds = (first - request.now).div_ceil(1_000_000);
            return refuse(429, u32::try_from(seconds).ok());
        };
        self.turn = position + 1;
        Some(position)
    }

    fn try_ended(&mut self, ended: &Ended) {
        if let (Some(429 | 503), Some(seconds)) = (ended.status, ended.retry_after) {
            let until = ended.now + u64::from(seconds) * 1_000_000;
            self.paused.insert(ended.endpoint, until);
        }
    }
}

guest_sdk::export!(Quota, outcomes);
