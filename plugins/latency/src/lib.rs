//! Peak EWMA: of two endpoints drawn by chance, the one that would answer sooner. See README.md.

use guest_sdk::{Balancer, Column, Endpoints, Entropy, Lottery, Request};

/// What an endpoint is taken to need, in microseconds, that has a request and has not answered any yet.
const UNKNOWN: u32 = 1_000_000;

/// Draws two, takes the quicker one.
#[derive(Debug, Default)]
pub struct PeakEwma(Lottery);

/// How long a request would take: what the others in front of it take, one after another.
fn cost([in_flight, latency]: [u32; 2]) -> f64 {
    let latency = match (in_flight, latency) {
        // One that nothing is known of is tried at once, by one request.
        (0, _) => latency,
        (_, 0) => UNKNOWN,
        _ => latency,
    };
    f64::from(latency) * (f64::from(in_flight) + 1.0)
}

impl Balancer for PeakEwma {
    fn endpoints_changed(&mut self, endpoints: &Endpoints) {
        self.0 = Lottery::new(endpoints);
    }

    fn pick(&mut self, request: &Request, endpoints: &Endpoints) -> Option<usize> {
        let (first, second) = self.0.draw_two(&mut Entropy::of(request))?;
        let load = endpoints.look([Column::InFlight, Column::Latency], [first, second]);
        let [one, other] = load.map(cost);
        let weight = |position: usize| f64::from(endpoints[position].weight);
        let less = other * weight(first) < one * weight(second);
        Some(if less { second } else { first })
    }
}

guest_sdk::export!(PeakEwma);

#[cfg(test)]
mod tests;
