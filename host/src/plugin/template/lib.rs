//! Endpoints take turns by weight; an endpoint that is much busier than the others is skipped.

use std::collections::HashMap;

use guest_sdk::{Balancer, Column, Endpoints, Request};

guest_sdk::settings! {
    /// The settings in `pointsman.balancer_config` of an upstream. Operators are shown what is said
    /// about each; the gateway checks what they set.
    struct Settings {
        /// Requests in flight that an endpoint may have, in percent of its share of all. An
        /// endpoint with more is skipped. At least 100, so that there always is one that is not
        /// skipped.
        limit: u32 = 150, "minimum": 100, "maximum": 100_000;
    }
}

/// The balancer. There is one instance for each upstream. The gateway calls it one call at a time,
/// and its fields keep its state between calls.
#[derive(Debug, Default)]
struct Turns {
    settings: Settings,
    /// How long each endpoint has waited for its turn, in the order of the table. It grows by the
    /// endpoint's weight with each pick, and the endpoint that has waited longest is picked.
    waited: Vec<i64>,
    /// The ids of the table. State of an endpoint is kept by its id, because positions change.
    ids: Vec<u64>,
}

impl Balancer for Turns {
    const CONFIG_SCHEMA: &'static str = Settings::SCHEMA;

    /// The load columns that `pick` reads. A balancer without any is cheaper.
    const COLUMNS: &'static [Column] = &[Column::InFlight];

    fn configure(&mut self, config: &str) -> Result<(), String> {
        self.settings = Settings::read(config)?;
        Ok(())
    }

    fn endpoints_changed(&mut self, endpoints: &Endpoints) {
        let known: HashMap<u64, i64> = self.ids.drain(..).zip(self.waited.drain(..)).collect();
        self.ids
            .extend(endpoints.iter().map(|endpoint| endpoint.id));
        // An endpoint that joins has not waited yet.
        let waited = |id: &u64| known.get(id).copied().unwrap_or(0);
        self.waited.extend(self.ids.iter().map(waited));
    }

    fn pick(&mut self, _request: &Request, endpoints: &Endpoints) -> Option<usize> {
        let weights: u64 = endpoints
            .iter()
            .map(|endpoint| u64::from(endpoint.weight))
            .sum();
        let in_flight: u64 = endpoints
            .column(Column::InFlight)
            .iter()
            .map(|&count| u64::from(count))
            .sum();
        // Requests in flight for each unit of weight, including this one. WebAssembly's floating
        // point is the same on every machine, so the same calls still give the same picks.
        let mean = (in_flight + 1) as f64 / weights as f64;
        let most = mean * f64::from(self.settings.limit) / 100.0;

        let mut chosen: Option<usize> = None;
        let mut waiting = 0;
        for (position, endpoint) in endpoints.iter().enumerate() {
            let busy = f64::from(endpoints.in_flight(position)) > most * f64::from(endpoint.weight);
            if busy {
                continue;
            }
            self.waited[position] += i64::from(endpoint.weight);
            waiting += i64::from(endpoint.weight);
            if chosen.is_none_or(|best| self.waited[position] > self.waited[best]) {
                chosen = Some(position);
            }
        }
        let chosen = chosen?;
        // The sum of all waiting times stays the same, so no endpoint falls more than a round
        // behind.
        self.waited[chosen] -= waiting;
        Some(chosen)
    }
}

guest_sdk::export!(Turns);

#[cfg(test)]
mod tests;
