//! Picks the first endpoint, always: a switch to it can be seen at once.

use guest_sdk::{Balancer, Endpoints, Request};

#[derive(Default)]
struct First;

impl Balancer for First {
    fn pick(&mut self, _request: &Request, _endpoints: &Endpoints) -> Option<usize> {
        Some(0)
    }
}

guest_sdk::export!(First);
