//! The power of two choices: of two endpoints drawn at random, the less busy one. See README.md.

use guest_sdk::{Balancer, Endpoints, Entropy, Lottery, Request};

/// Draws two endpoints by weight and picks the less busy one.
#[derive(Debug, Default)]
pub struct TwoChoices(Lottery);

impl Balancer for TwoChoices {
    fn endpoints_changed(&mut self, endpoints: &Endpoints) {
        self.0 = Lottery::new(endpoints);
    }

    fn pick(&mut self, request: &Request, endpoints: &Endpoints) -> Option<usize> {
        self.0.less_busy(&mut Entropy::of(request), endpoints)
    }
}

guest_sdk::export!(TwoChoices);

#[cfg(test)]
mod tests;
