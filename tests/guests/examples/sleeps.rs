//! Sleeps 300 ms in each pick, then picks the first endpoint.

use guest_sdk::{Balancer, Endpoints, Request};

#[derive(Default)]
struct Sleeps;

impl Balancer for Sleeps {
    fn pick(&mut self, _request: &Request, _endpoints: &Endpoints) -> Option<usize> {
        std::thread::sleep(std::time::Duration::from_millis(300));
        Some(0)
    }
}

guest_sdk::export!(Sleeps);
