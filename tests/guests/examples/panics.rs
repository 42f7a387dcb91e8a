//! Panics with a message on each pick.

use guest_sdk::{Balancer, Endpoints, Request};

#[derive(Default)]
struct Panics;

impl Balancer for Panics {
    fn pick(&mut self, _request: &Request, _endpoints: &Endpoints) -> Option<usize> {
        panic!("this balancer always panics")
    }
}

guest_sdk::export!(Panics);
