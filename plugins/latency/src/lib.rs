//! Peak EWMA: of two endpoints drawn at random, the one that is expected to answer sooner. See
//! README.md.

use guest_sdk::{Balancer, Column, Endpoints, Entropy, Lottery, Request, Zones};

/// The latency in microseconds that is assumed for an endpoint that has a request in flight and has
/// not answered any request yet.
const UNKNOWN: u32 = 1_000_000;

/// Draws two endpoints by weight and picks the one with the lower cost for its weight.
#[derive(Debug, Default)]
pub struct PeakEwma(Zones<Lottery>);

/// The expected time until a request is answered: its own latency and that of each request in
/// flight before it, one after another.
fn cost([in_flight, latency]: [u32; 2]) -> f64 {
    let latency = match (in_flight, latency) {
        // An idle endpoint of unknown latency costs 0, so it gets one request at once.
        (0, _) => latency,
        (_, 0) => UNKNOWN,
        _ => latency,
    };
    f64::from(latency) * (f64::from(in_flight) + 1.0)
}

/// Of two endpoints drawn by weight, the one with the lower cost.
fn choose(lottery: &Lottery, entropy: &mut Entropy, endpoints: &Endpoints) -> Option<usize> {
    let (first, second) = lottery.draw_two(entropy)?;
    let load = endpoints.look([Column::InFlight, Column::Latency], [first, second]);
    let [one, other] = load.map(cost);
    let weight = |position: usize| f64::from(endpoints[position].weight);
    let less = other * weight(first) < one * weight(second);
    Some(if less { second } else { first })
}

guest_sdk::settings! {
    /// What operators may set.
    struct Options {} with zones
}

impl Balancer for PeakEwma {
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
            choose(lottery, &mut entropy, part)
        })
    }
}

guest_sdk::export!(PeakEwma);

#[cfg(test)]
mod tests;
