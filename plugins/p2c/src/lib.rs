//! The power of two choices: of two endpoints drawn at random, the less busy one. See README.md.

use guest_sdk::{Balancer, Endpoints, Entropy, Lottery, Request, Zones};

/// Draws two endpoints by weight and picks the less busy one.
#[derive(Debug, Default)]
pub struct TwoChoices(Zones<Lottery>);

impl Balancer for TwoChoices {
    const CONFIG_SCHEMA: &'static str = concat!(
        r#"{
        "type": "object",
        "properties": {
            "#,
        guest_sdk::zone_properties!(),
        r#"
        },
        "additionalProperties": false
    }"#
    );

    fn configure(&mut self, config: &str) -> Result<(), String> {
        guest_sdk::configure_zones!(self.0, config)
    }

    fn endpoints_changed(&mut self, endpoints: &Endpoints) {
        self.0
            .endpoints_changed(endpoints, |part, _| Lottery::new(part));
    }

    fn pick(&mut self, request: &Request, endpoints: &Endpoints) -> Option<usize> {
        let mut entropy = Entropy::of(request);
        self.0.pick(endpoints, |lottery, part| {
            lottery.less_busy(&mut entropy, part)
        })
    }
}

guest_sdk::export!(TwoChoices);

#[cfg(test)]
mod tests;
