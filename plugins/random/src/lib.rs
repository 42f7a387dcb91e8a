//! Weighted random: each request goes to a random endpoint, drawn by weight. See README.md.

use guest_sdk::{Balancer, Endpoints, Entropy, Lottery, Request};

/// Draws an endpoint by weight for each request.
#[derive(Debug, Default)]
pub struct Random(Lottery);

impl Balancer for Random {
    fn endpoints_changed(&mut self, endpoints: &Endpoints) {
        self.0 = Lottery::new(endpoints);
    }

    fn pick(&mut self, request: &Request, _: &Endpoints) -> Option<usize> {
        self.0.draw(&mut Entropy::of(request))
    }
}

guest_sdk::export!(Random);

#[cfg(test)]
mod tests;
