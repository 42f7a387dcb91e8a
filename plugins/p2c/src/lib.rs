//! The power of two choices: of two endpoints drawn at random, the less busy one. See README.md.

use guest_sdk::{Balancer, Endpoints, Entropy, Lottery, Request, Zones};
use serde::Deserialize;

/// Draws two endpoints by weight and picks the less busy one.
#[derive(Debug, Default)]
pub struct TwoChoices(Zones<Lottery>);

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Options {
    prefer: Option<String>,
    spill_at: Option<f64>,
}

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
        let options = serde_json::from_str(config);
        let options: Options = options.map_err(|error| error.to_string())?;
        self.0
            .configure(options.prefer.as_deref(), options.spill_at)
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
