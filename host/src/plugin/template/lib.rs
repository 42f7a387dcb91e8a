//! Endpoints take turns by weight, and one that is much busier than the others is passed over.

use std::collections::HashMap;

use guest_sdk::{Balancer, Column, Endpoints, Request};
use serde::Deserialize;

/// What `pointsman.balancer_config` of an upstream may say.
#[derive(Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Settings {
    /// Requests in flight that an endpoint may have, in percent of its share of them all. One that has
    /// more is passed over. At least 100, so that there always is one that is not.
    limit: u32,
}

impl Default for Settings {
    fn default() -> Self {
        Self { limit: 150 }
    }
}

/// The balancer. There is one for each upstream, its calls come one at a time, and its fields are what
/// it remembers from one to the next.
#[derive(Debug, Default)]
struct Turns {
    settings: Settings,
    /// How long each endpoint has waited for its turn: it grows by the endpoint's weight with each pick,
    /// and the one that has waited longest is chosen. In the order of the table.
    waited: Vec<i64>,
    /// The ids of the table. What is remembered of an endpoint belongs to its id, since positions shift.
    ids: Vec<u64>,
}

impl Balancer for Turns {
    /// Checked before `configure` sees any settings.
    const CONFIG_SCHEMA: &'static str = r#"{
        "type": "object",
        "properties": {
            "limit": {
                "type": "integer",
                "minimum": 100,
                "maximum": 100000,
                "default": 150,
                "description": "requests in flight that an endpoint may have, in percent of its share"
            }
        },
        "additionalProperties": false
    }"#;

    /// What `pick` reads of the load. A balancer that reads none is cheaper.
    const COLUMNS: &'static [Column] = &[Column::InFlight];

    fn configure(&mut self, config: &str) -> Result<(), String> {
        self.settings = serde_json::from_str(config).map_err(|error| error.to_string())?;
        Ok(())
    }

    fn endpoints_changed(&mut self, endpoints: &Endpoints) {
        let known: HashMap<u64, i64> = self.ids.drain(..).zip(self.waited.drain(..)).collect();
        self.ids
            .extend(endpoints.iter().map(|endpoint| endpoint.id));
        // Who joins has not waited yet.
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
        // Requests in flight for each unit of weight, this one among them. Floating point is the same
        // on every machine here, so the same calls still give the same picks.
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
        // What all have waited stays the same in sum, so nobody has more to catch up on than a round.
        self.waited[chosen] -= waiting;
        Some(chosen)
    }
}

guest_sdk::export!(Turns);

#[cfg(test)]
mod tests;
