//! Picks the position just past the end of the table.

use guest_sdk::{Balancer, Endpoints, Request};

#[derive(Default)]
struct OutOfRange;

impl Balancer for OutOfRange {
    fn pick(&mut self, _request: &Request, endpoints: &Endpoints) -> Option<usize> {
        Some(endpoints.len())
    }
}

guest_sdk::export!(OutOfRange);
