//! Allocates 1 MiB more with each pick, and picks the first endpoint while there is memory.

use guest_sdk::{Balancer, Endpoints, Request};

#[derive(Default)]
struct EatsMemory {
    held: Vec<Vec<u8>>,
}

impl Balancer for EatsMemory {
    fn pick(&mut self, _request: &Request, _endpoints: &Endpoints) -> Option<usize> {
        self.held.push(vec![1; 1 << 20]);
        Some(0)
    }
}

guest_sdk::export!(EatsMemory);
