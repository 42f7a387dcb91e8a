//! The power of two choices: of two endpoints drawn at random, the less busy one. See README.md.

use guest_sdk::{Balancer, Endpoints, Entropy, Lottery, Request, Zones};

/// Draws two endpoints by weight and picks the less busy one.
#[derive(Debug, Default)]
pub struct TwoChoices(Zones<Lottery>);

guest_sdk::settings! {
    /// What operators may set.
    struct Options {} with zones
}

impl Balancer for TwoChoices {
    const CONFIG_SCHEMA: &'static str = Options::SCHEMA;

    fn configure(&mut self, config: &str) -> Result<(), String> {
        let options = Options::read(config)?;
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
