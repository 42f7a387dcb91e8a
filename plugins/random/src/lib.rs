//! Chance: each request goes anywhere, as often as weights say. See README.md.

use guest_sdk::{Balancer, Endpoints, Entropy, Lottery, Request};

/// Draws an endpoint for each request.
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
