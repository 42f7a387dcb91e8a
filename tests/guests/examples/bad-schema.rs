//! Describes its settings by text that is not JSON.

use guest_sdk::{Balancer, Endpoints, Request};

#[derive(Default)]
struct BadSchema;

impl Balancer for BadSchema {
    const CONFIG_SCHEMA: &'static str = "{ type: object";

    fn pick(&mut self, _request: &Request, _endpoints: &Endpoints) -> Option<usize> {
        Some(0)
    }
}

guest_sdk::export!(BadSchema);
