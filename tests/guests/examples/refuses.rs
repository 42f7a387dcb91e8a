//! Refuses every request.

use guest_sdk::{Balancer, Endpoints, Request};

#[derive(Default)]
struct Refuses;

impl Balancer for Refuses {
    fn pick(&mut self, _request: &Request, _endpoints: &Endpoints) -> Option<usize> {
        None
    }
}

guest_sdk::export!(Refuses);
