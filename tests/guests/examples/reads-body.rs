//! Picks the position given by the last byte that it can read of a body, 0 if it can read none, and
//! logs how much it can read.

use guest_sdk::{Balancer, Endpoints, Request, facts, info};

#[derive(Default)]
struct ReadsBody;

impl Balancer for ReadsBody {
    fn configure(&mut self, _config: &str) -> Result<(), String> {
        assert_eq!(facts::body_start(1), None, "there is no request now");
        Ok(())
    }

    fn pick(&mut self, request: &Request, endpoints: &Endpoints) -> Option<usize> {
        let start = facts::body_start(u32::MAX);
        let seen = |start: &Option<Vec<u8>>| match start {
            None => "none".into(),
            Some(start) => start.len().to_string(),
        };
        info!("{} {} {}", request.attempt, seen(&start), seen(&facts::body_start(2)));
        let last = start.and_then(|start| start.last().copied());
        Some(usize::from(last.unwrap_or(b'0')) % endpoints.len())
    }
}

guest_sdk::export!(ReadsBody);
