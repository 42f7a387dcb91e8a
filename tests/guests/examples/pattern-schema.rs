//! Describes a setting by a regular expression on which a backtracking engine takes exponential
//! time for some texts.

use guest_sdk::{Balancer, Endpoints, Request};

#[derive(Default)]
struct PatternSchema;

impl Balancer for PatternSchema {
    const CONFIG_SCHEMA: &'static str =
        r#"{"properties": {"key": {"type": "string", "pattern": "^(([a-z])+.)+[A-Z]([a-z])+$"}}}"#;

    fn pick(&mut self, _request: &Request, _endpoints: &Endpoints) -> Option<usize> {
        Some(0)
    }
}

guest_sdk::export!(PatternSchema);
