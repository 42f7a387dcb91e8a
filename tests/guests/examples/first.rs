//! Always picks the first endpoint, so that a switch to it shows at once.

use guest_sdk::{Balancer, Endpoints, Request};

#[derive(Default)]
struct First;

impl Balancer for First {
    fn pick(&mut self, _request: &Request, _endpoints: &Endpoints) -> Option<usize> {
        Some(0)
    }
}

guest_sdk::export!(First);
