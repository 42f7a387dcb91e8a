//! Writes much text to standard error on each pick, and then panics.

use guest_sdk::{Balancer, Endpoints, Request};

#[derive(Default)]
struct PanicsAfterMuch;

impl Balancer for PanicsAfterMuch {
    fn pick(&mut self, request: &Request, _endpoints: &Endpoints) -> Option<usize> {
        eprintln!("{}", "some text of no interest, ".repeat(400));
        panic!("what went wrong in the end: {}", request.attempt)
    }
}

guest_sdk::export!(PanicsAfterMuch);
