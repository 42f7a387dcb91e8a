//! Logs 1,000 lines on each pick, the first of half a mebibyte, and picks the first endpoint.

use guest_sdk::{Balancer, Endpoints, Request};

#[derive(Default)]
struct SaysTooMuch;

impl Balancer for SaysTooMuch {
    fn pick(&mut self, _request: &Request, _endpoints: &Endpoints) -> Option<usize> {
        guest_sdk::warn!("{}", "x".repeat(1 << 19));
        for line in 1..1000 {
            guest_sdk::info!("line {line}");
        }
        Some(0)
    }
}

guest_sdk::export!(SaysTooMuch);
