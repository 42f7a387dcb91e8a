//! Picks the endpoint with the fewest requests in flight, the first of several.

use guest_sdk::{Balancer, Column, Endpoints, Request};

#[derive(Default)]
struct LeastInFlight;

impl Balancer for LeastInFlight {
    const COLUMNS: &'static [Column] = &[Column::InFlight];

    fn pick(&mut self, _request: &Request, endpoints: &Endpoints) -> Option<usize> {
        (0..endpoints.len()).min_by_key(|&position| endpoints.in_flight(position))
    }
}

guest_sdk::export!(LeastInFlight);
