//! Picks the position given by the field `target` of a body, 0 if it has none, and logs what it
//! learns of the body.

use guest_sdk::{Balancer, Endpoints, Request, facts, info};

#[derive(Default)]
struct ScansBody;

impl Balancer for ScansBody {
    fn configure(&mut self, _config: &str) -> Result<(), String> {
        assert_eq!(facts::body_length(), None, "there is no request now");
        assert_eq!(facts::json_field("/target", 8), None, "there is no request now");
        Ok(())
    }

    fn pick(&mut self, request: &Request, endpoints: &Endpoints) -> Option<usize> {
        let hashes = facts::prefix_hashes(64, u32::MAX);
        // Of the longest prefix: equal prompts have equal ones.
        let last = hashes.as_ref().and_then(|hashes| hashes.last()).map_or(0, |hash| hash % 1000);
        info!(
            "{} {:?} {:?} {:?} {last} {:?} {:?}",
            request.attempt,
            facts::body_length(),
            facts::prompt_length(),
            hashes.map(|hashes| hashes.len()),
            facts::json_field("/messages/0/role", 3),
            facts::json_field("/target", 8),
        );
        let target = facts::json_field("/target", 8);
        let target: Option<usize> = target.and_then(|target| target.parse().ok());
        Some(target.unwrap_or(0) % endpoints.len())
    }
}

guest_sdk::export!(ScansBody);
