//! Picks the endpoint of the greatest weight, the first of several: the target of a request shows
//! that this balancer made the pick.

use guest_sdk::{Balancer, Endpoints, Request};

#[derive(Default)]
struct Heaviest;

impl Balancer for Heaviest {
    fn pick(&mut self, _request: &Request, endpoints: &Endpoints) -> Option<usize> {
        (0..endpoints.len()).rev().max_by_key(|&position| endpoints[position].weight)
    }
}

guest_sdk::export!(Heaviest);
