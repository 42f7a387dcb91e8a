//! Picks by the clocks of the machine, which a balancer must not see: two instances make the same
//! picks only if the host shows both the same time.

use std::time::{Instant, SystemTime, UNIX_EPOCH};

use guest_sdk::{Balancer, Endpoints, Request};

#[derive(Default)]
struct Clock {
    started: Option<Instant>,
}

impl Balancer for Clock {
    fn pick(&mut self, _request: &Request, endpoints: &Endpoints) -> Option<usize> {
        let elapsed = self.started.get_or_insert_with(Instant::now).elapsed();
        let date = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        ((elapsed + date).as_nanos() as usize).checked_rem(endpoints.len())
    }
}

guest_sdk::export!(Clock);
