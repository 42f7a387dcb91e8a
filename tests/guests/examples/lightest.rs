//! Picks the endpoint of the least weight, the first of several: where it sends a request tells that it was
//! asked.

use guest_sdk::{Balancer, Endpoints, Request};

#[derive(Default)]
struct Lightest;

impl Balancer for Lightest {
    fn pick(&mut self, _request: &Request, endpoints: &Endpoints) -> Option<usize> {
        (0..endpoints.len()).min_by_key(|&position| endpoints[position].weight)
    }
}

guest_sdk::export!(Lightest);
