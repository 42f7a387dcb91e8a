//! Logs a line of each level when it gets a table of endpoints, and picks the first endpoint.

use guest_sdk::{Balancer, Endpoints, Request};

#[derive(Default)]
struct Says;

impl Balancer for Says {
    fn endpoints_changed(&mut self, endpoints: &Endpoints) {
        guest_sdk::trace!("a trace");
        guest_sdk::debug!("a bug less");
        guest_sdk::info!("{} endpoints", endpoints.len());
        guest_sdk::warn!("a warning");
        guest_sdk::error!("an error");
        println!("printed");
    }

    fn pick(&mut self, _request: &Request, _endpoints: &Endpoints) -> Option<usize> {
        Some(0)
    }
}

guest_sdk::export!(Says);
