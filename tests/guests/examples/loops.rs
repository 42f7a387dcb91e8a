//! Never returns from a pick.

use guest_sdk::{Balancer, Endpoints, Request};

#[derive(Default)]
struct Loops;

impl Balancer for Loops {
    fn pick(&mut self, _request: &Request, _endpoints: &Endpoints) -> Option<usize> {
        loop {
            std::hint::black_box(0);
        }
    }
}

guest_sdk::export!(Loops);
