//! Reads the load of a position outside of the table.

use guest_sdk::{Balancer, Column, Endpoints, Request};

#[derive(Default)]
struct LooksOutside;

impl Balancer for LooksOutside {
    fn pick(&mut self, _request: &Request, endpoints: &Endpoints) -> Option<usize> {
        let load = endpoints.look([Column::InFlight; 2], [0, endpoints.len()]);
        Some(load[0][0] as usize)
    }
}

guest_sdk::export!(LooksOutside);
