//! Writes a lot to standard error on each pick, and then panics.

use guest_sdk::{Balancer, Endpoints, Request};

#[derive(Default)]
struct PanicsAfterMuch;

impl Balancer for PanicsAfterMuch {
    fn pick(&mut self, request: &Request, _endpoints: &Endpoints) -> Option<usize> {
        for line in 0..1000 {
            eprintln!("line {line} of what nobody has to know");
        }
        panic!("what went wrong in the end: {}", request.attempt)
    }
}

guest_sdk::export!(PanicsAfterMuch);
