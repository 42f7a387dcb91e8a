//! Traps on each pick, without a message.

use guest_sdk::{Balancer, Endpoints, Request};

#[derive(Default)]
struct Traps;

impl Balancer for Traps {
    fn pick(&mut self, _request: &Request, _endpoints: &Endpoints) -> Option<usize> {
        std::process::abort()
    }
}

guest_sdk::export!(Traps);
