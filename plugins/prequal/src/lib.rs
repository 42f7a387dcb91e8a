//! Prequal: load is not what you should balance. See README.md.

use std::collections::VecDeque;

use guest_sdk::{Balancer, Column, Endpoints, Entropy, Lottery, Request};
use serde::Deserialize;

/// Loads that the quantile is taken from, and picks after which it is taken anew.
const SEEN: usize = 128;
const REVIEW: u32 = 64;

/// Chooses from a pool of endpoints that were looked at lately.
#[derive(Debug, Default)]
pub struct Prequal {
    options: Options,
    lottery: Lottery,
    pool: Vec<Probe>,
    /// Where in the pool each endpoint is, by position; [`NOWHERE`] for most.
    places: Vec<u8>,
    /// No probe of the pool is older.
    oldest: u64,
    /// Loads of the endpoints looked at last.
    seen: VecDeque<Load>,
    /// From this load on an endpoint is hot.
    hot: Load,
    picks: u32,
}

/// Not in the pool, which has 128 probes at most.
const NOWHERE: u8 = u8::MAX;

/// Requests in flight for each unit of weight, in 2^-20ths.
type Load = u64;

/// What was seen of an endpoint.
#[derive(Debug, Clone, Copy)]
struct Probe {
    position: u32,
    load: Load,
    /// What one request more adds to it.
    step: Load,
    latency: u32,
    /// Whether it says itself that it has too much to do.
    full: bool,
    at: u64,
    uses: u32,
}

/// What is seen of an endpoint.
struct Seen {
    in_flight: u32,
    latency: u32,
    full: bool,
}

#[derive(Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Options {
    pool_size: usize,
    probes: u32,
    max_uses: u32,
    max_age_ms: u64,
    hot_quantile: f64,
    hot_load: Option<f64>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            pool_size: 16,
            probes: 2,
            max_uses: 3,
            max_age_ms: 1000,
            hot_quantile: 0.84,
            hot_load: None,
        }
    }
}

impl Balancer for Prequal {
    const CONFIG_SCHEMA: &'static str = r#"{
        "type": "object",
        "properties": {
            "pool_size": {
                "type": "integer", "minimum": 2, "maximum": 128, "default": 16,
                "description": "Endpoints to choose from at a time"
            },
            "probes": {
                "type": "integer", "minimum": 1, "maximum": 16, "default": 2,
                "description": "Endpoints that every pick looks at anew"
            },
            "max_uses": {
                "type": "integer", "minimum": 1, "maximum": 1000, "default": 3,
                "description": "Picks that one look may serve"
            },
            "max_age_ms": {
                "type": "integer", "minimum": 1, "maximum": 60000, "default": 1000,
                "description": "How long a look is believed, in milliseconds"
            },
            "hot_quantile": {
                "type": "number", "minimum": 0, "maximum": 1, "default": 0.84,
                "description": "Endpoints with more in flight than this share of what was seen lately are hot; with 0 all are chosen by load, with 1 all by latency"
            },
            "hot_load": {
                "type": "number", "exclusiveMinimum": 0, "maximum": 100,
                "description": "Endpoints that report more than this share of what they can do are hot as well; without it, reports are not read"
            }
        },
        "additionalProperties": false
    }"#;

    fn configure(&mut self, config: &str) -> Result<(), String> {
        self.options = serde_json::from_str(config).map_err(|error| error.to_string())?;
        Ok(())
    }

    fn endpoints_changed(&mut self, endpoints: &Endpoints) {
        self.lottery = Lottery::new(endpoints);
        // Positions have shifted.
        self.pool.clear();
        self.places.clear();
        self.places.resize(endpoints.len(), NOWHERE);
    }

    fn pick(&mut self, request: &Request, endpoints: &Endpoints) -> Option<usize> {
        let mut entropy = Entropy::of(request);
        let limit = self.options.max_age_ms * 1000;
        if request.now.saturating_sub(self.oldest) > limit {
            self.drop_old(request.now, limit);
        }
        let mut probes = self.options.probes;
        while probes > 0 {
            let first = self.lottery.draw(&mut entropy)?;
            let second = match probes {
                1 => first,
                _ => self.lottery.draw(&mut entropy)?,
            };
            let [one, other] = self.look(endpoints, [first, second]);
            self.take(endpoints, first, &one, request.now);
            if probes > 1 {
                self.take(endpoints, second, &other, request.now);
            }
            probes = probes.saturating_sub(2);
        }
        self.picks += 1;
        if self.picks.is_multiple_of(REVIEW) || self.seen.len() < REVIEW as usize {
            self.hot = self.quantile();
        }
        let chosen = self.choose()?;
        let probe = &mut self.pool[chosen];
        let position = probe.position as usize;
        probe.uses += 1;
        // The next pick is to know of this request, which the look was too early for.
        probe.load += probe.step;
        if probe.uses >= self.options.max_uses {
            self.remove(chosen);
        }
        Some(position)
    }
}

impl Prequal {
    fn look(&self, endpoints: &Endpoints, positions: [usize; 2]) -> [Seen; 2] {
        let load = endpoints.look([Column::InFlight, Column::LatencyAtLoad], positions);
        let full = match self.options.hot_load {
            None => [false; 2],
            Some(limit) => {
                let reported = endpoints.look([Column::ReportedLoad; 2], positions);
                reported.map(|[thousandths, _]| f64::from(thousandths) > limit * 1000.0)
            }
        };
        let seen = |index: usize| Seen {
            in_flight: load[index][0],
            latency: load[index][1],
            full: full[index],
        };
        [seen(0), seen(1)]
    }

    /// Takes note of what was seen at a position.
    fn take(&mut self, endpoints: &Endpoints, position: usize, seen: &Seen, now: u64) {
        let step = (1 << 20) / u64::from(endpoints[position].weight).max(1);
        let probe = Probe {
            position: position as u32,
            load: u64::from(seen.in_flight) * step,
            step,
            latency: seen.latency,
            full: seen.full,
            at: now,
            uses: 0,
        };
        if self.seen.len() == SEEN {
            self.seen.pop_front();
        }
        self.seen.push_back(probe.load);
        let place = usize::from(self.places[position]);
        if let Some(old) = self.pool.get_mut(place) {
            *old = probe;
            return;
        }
        if self.pool.len() >= self.options.pool_size {
            self.forget();
        }
        if self.pool.is_empty() {
            self.oldest = now;
        }
        self.places[position] = self.pool.len() as u8;
        self.pool.push(probe);
    }

    /// Takes a probe out of the pool. The last one takes its place.
    fn remove(&mut self, place: usize) {
        let gone = self.pool.swap_remove(place);
        self.places[gone.position as usize] = NOWHERE;
        if let Some(moved) = self.pool.get(place) {
            self.places[moved.position as usize] = place as u8;
        }
    }

    /// Takes out what is believed no longer.
    fn drop_old(&mut self, now: u64, limit: u64) {
        let mut place = 0;
        while let Some(probe) = self.pool.get(place) {
            if now.saturating_sub(probe.at) > limit {
                self.remove(place);
            } else {
                place += 1;
            }
        }
        let ages = self.pool.iter().map(|probe| probe.at);
        self.oldest = ages.min().unwrap_or(now);
    }

    /// Makes room: the oldest and the worst leave in turn, so that a pool does not fill with what nobody
    /// would choose.
    fn forget(&mut self) {
        let probes = self.pool.iter().enumerate();
        let leaves = if self.picks.is_multiple_of(2) {
            probes.min_by_key(|(_, probe)| probe.at)
        } else {
            probes.max_by_key(|(_, probe)| self.rank(probe))
        };
        if let Some((place, _)) = leaves {
            self.remove(place);
        }
    }

    /// The lower the better: cold ones by latency, and by load where that is the same, then hot ones by
    /// load. One number, since it is compared for all of the pool.
    fn rank(&self, probe: &Probe) -> u64 {
        const HOT: u64 = 1 << 63;
        if probe.full || probe.load > self.hot {
            HOT | probe.load
        } else {
            u64::from(probe.latency) << 31 | probe.load.min((1 << 31) - 1)
        }
    }

    fn choose(&self) -> Option<usize> {
        let probes = self.pool.iter().enumerate();
        probes
            .min_by_key(|(_, probe)| self.rank(probe))
            .map(|(position, _)| position)
    }

    /// The load that the hot ones are above.
    fn quantile(&self) -> Load {
        let mut loads: Vec<Load> = self.seen.iter().copied().collect();
        if loads.is_empty() {
            return 0;
        }
        let rank = ((loads.len() - 1) as f64 * self.options.hot_quantile) as usize;
        *loads.select_nth_unstable(rank).1
    }
}

guest_sdk::export!(Prequal);

#[cfg(test)]
mod tests;
