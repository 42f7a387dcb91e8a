//! Picks the endpoint whose id is in its settings, and refuses requests while no endpoint has it.

use guest_sdk::{Balancer, Endpoints, Request};

#[derive(Default)]
struct PicksConfiguredId {
    id: u64,
}

impl Balancer for PicksConfiguredId {
    const CONFIG_SCHEMA: &str = r#"{
        "type": "object",
        "properties": {"prefer": {"type": "string", "pattern": "^[0-9a-f]{16}$"}},
        "additionalProperties": false
    }"#;

    fn configure(&mut self, config: &str) -> Result<(), String> {
        // `{"prefer":"…"}` by its schema, or nothing.
        if let Some(id) = config.split('"').nth(3) {
            self.id = u64::from_str_radix(id, 16).map_err(|error| error.to_string())?;
        }
        Ok(())
    }

    fn pick(&mut self, _request: &Request, endpoints: &Endpoints) -> Option<usize> {
        endpoints.iter().position(|endpoint| endpoint.id == self.id)
    }
}

guest_sdk::export!(PicksConfiguredId);
