//! Prints a line to standard output and one to standard error on each pick, and picks at random.

use guest_sdk::{Balancer, Endpoints, Request};

#[derive(Default)]
struct Prints;

impl Balancer for Prints {
    fn pick(&mut self, request: &Request, endpoints: &Endpoints) -> Option<usize> {
        println!("a line on standard output");
        eprintln!("a line on standard error");
        let position = request.entropy.checked_rem(endpoints.len() as u64)?;
        Some(position as usize)
    }
}

guest_sdk::export!(Prints);
