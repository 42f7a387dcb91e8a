//! Writes a lot to standard error on each pick, and then panics.

use guest_sdk::{Balancer, Endpoints, Request};

#[derive(Default)]
struct PanicsAfterMuch;

impl Balancer for PanicsAfterMuch {
    fn pick(&mut self, request: &Request, _endpoints: &Endpoints) -> Option<usize> {
        eprintln!("{}", "what nobody has to know, ".repeat(400));
        panic!("what went wrong in the end: {}", request.attempt)
    }
}

guest_sdk::export!(PanicsAfterMuch);
