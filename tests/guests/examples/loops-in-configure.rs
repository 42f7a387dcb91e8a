//! Never returns from `configure`.

use guest_sdk::{Balancer, Endpoints, Request};

#[derive(Default)]
struct LoopsInConfigure;

impl Balancer for LoopsInConfigure {
    fn configure(&mut self, _config: &str) -> Result<(), String> {
        loop {
            std::hint::black_box(0);
        }
    }

    fn pick(&mut self, _request: &Request, _endpoints: &Endpoints) -> Option<usize> {
        Some(0)
    }
}

guest_sdk::export!(LoopsInConfigure);
