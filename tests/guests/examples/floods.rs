//! Prints 16 MiB on each pick, in lines of 1 KiB, then picks the first endpoint.

use guest_sdk::{Balancer, Endpoints, Request};

#[derive(Default)]
struct Floods;

impl Balancer for Floods {
    fn pick(&mut self, _request: &Request, _endpoints: &Endpoints) -> Option<usize> {
        let line = "x".repeat(1023);
        for _ in 0..16 * 1024 {
            println!("{line}");
        }
        Some(0)
    }
}

guest_sdk::export!(Floods);
