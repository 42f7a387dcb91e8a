//! The power of two choices: of two endpoints drawn by chance, the less busy one. See README.md.

use guest_sdk::{Balancer, Endpoint, Endpoints, Entropy, Lottery, Request};

/// Draws two, takes one.
#[derive(Debug, Default)]
pub struct TwoChoices(Lottery);

impl Balancer for TwoChoices {
    fn endpoints_changed(&mut self, endpoints: &[Endpoint]) {
        self.0 = Lottery::new(endpoints);
    }

    fn pick(&mut self, request: &Request, endpoints: &Endpoints) -> Option<usize> {
        let (first, second) = self.0.draw_two(&mut Entropy::of(request))?;
        let busy = |position: usize| u64::from(endpoints.look(position).in_flight);
        let weight = |position: usize| u64::from(endpoints[position].weight);
        // Requests in flight for each unit of weight, multiplied out.
        let less = busy(second) * weight(first) < busy(first) * weight(second);
        Some(if less { second } else { first })
    }
}

guest_sdk::export!(TwoChoices);

#[cfg(test)]
mod tests;
