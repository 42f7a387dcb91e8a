//! Prequal ("Load is not what you should balance", NSDI 2024): probes a few endpoints for each
//! pick, and picks the best of those probed lately. See README.md.

mod pool;
mod window;

use guest_sdk::{Balancer, Column, Endpoints, Entropy, Lottery, Request, Zones};

use pool::{Pool, Probe};
use window::Window;

/// After this many picks, the load from which on an endpoint is hot is computed again.
const REVIEW: u32 = 64;

/// Picks from a pool of endpoints that were probed lately.
#[derive(Debug, Default)]
pub struct Prequal {
    options: Options,
    zones: Zones<Probed>,
}

/// Some endpoints, and those of them that were probed lately.
#[derive(Debug, Default)]
struct Probed {
    lottery: Lottery,
    pool: Pool,
    /// For each position, what one more request adds to its load.
    steps: Vec<Load>,
    /// Loads of the endpoints that were probed last.
    seen: Window,
    /// An endpoint with more than this load is hot.
    hot: Load,
    picks: u32,
}

/// Requests in flight for each unit of weight, in units of 2^-20.
type Load = u64;

/// The result of a look at an endpoint.
struct Seen {
    in_flight: u32,
    latency: u32,
    full: bool,
}

guest_sdk::settings! {
    /// What operators may set.
    struct Options {
        /// Endpoints to choose from at a time
        pool_size: usize = 16, "minimum": 2, "maximum": 128;
        /// Endpoints that each pick probes
        probes: u32 = 2, "minimum": 1, "maximum": 16;
        /// Picks that one probe may serve
        max_uses: u32 = 3, "minimum": 1, "maximum": 1000;
        /// Age at which a probe is discarded, in milliseconds
        max_age_ms: u64 = 1000, "minimum": 1, "maximum": 60_000;
        /// Quantile of the recently probed loads above which an endpoint is hot; 0: all by load, 1:
        /// all by latency
        hot_quantile: f64 = 0.84, "minimum": 0, "maximum": 1;
        /// Endpoints that report a utilization above this (1 = full capacity) are hot as well;
        /// without it, reports are not read
        hot_load: Option<f64>, "exclusiveMinimum": 0, "maximum": 100;
    } with zones
}

impl Balancer for Prequal {
    const CONFIG_SCHEMA: &'static str = Options::SCHEMA;

    fn configure(&mut self, config: &str) -> Result<(), String> {
        self.options = Options::read(config)?;
        let prefer = self.options.prefer.as_deref();
        self.zones.configure(prefer, self.options.spill_at)
    }

    fn endpoints_changed(&mut self, endpoints: &Endpoints) {
        let size = self.options.pool_size;
        self.zones
            .endpoints_changed(endpoints, |part, before: Probed| before.about(part, size));
    }

    fn pick(&mut self, request: &Request, endpoints: &Endpoints) -> Option<usize> {
        let mut entropy = Entropy::of(request);
        let (options, now) = (&self.options, request.now);
        self.zones.pick(endpoints, |probed, part| {
            probed.choose(options, now, &mut entropy, part)
        })
    }
}

impl Probed {
    /// The same for another table, with a pool of this size.
    fn about(mut self, endpoints: &Endpoints, pool_size: usize) -> Self {
        self.lottery = Lottery::new(endpoints);
        self.pool.clear(pool_size, endpoints.len());
        let weights = endpoints.iter().map(|endpoint| endpoint.weight.max(1));
        self.steps = weights
            .map(|weight| (1 << 20) / Load::from(weight))
            .collect();
        self
    }

    /// Probes some endpoints at `now`, and returns the position of the best one of the pool.
    fn choose(
        &mut self,
        options: &Options,
        now: u64,
        entropy: &mut Entropy,
        endpoints: &Endpoints,
    ) -> Option<usize> {
        self.pool.expire(now, options.max_age_ms * 1000);
        let mut probes = options.probes;
        while probes > 0 {
            let first = self.lottery.draw(entropy)?;
            let second = match probes {
                1 => first,
                _ => self.lottery.draw(entropy)?,
            };
            let [one, other] = look(endpoints, [first, second], options.hot_load);
            self.take(first, &one, now);
            if probes > 1 {
                self.take(second, &other, now);
            }
            probes = probes.saturating_sub(2);
        }
        self.picks = self.picks.wrapping_add(1);
        if self.picks.is_multiple_of(REVIEW) || self.seen.len() < REVIEW as usize {
            self.hot = self.seen.quantile(options.hot_quantile);
            self.pool.judge(self.hot);
        }
        let chosen = self.pool.choose(options.max_uses, self.hot, &self.steps);
        chosen.map(|position| position as usize)
    }

    /// Records the result for a position in the window and in the pool.
    fn take(&mut self, position: usize, seen: &Seen, now: u64) {
        let step = self.steps[position];
        let probe = Probe {
            position: position as u32,
            load: u64::from(seen.in_flight) * step,
            latency: seen.latency,
            full: seen.full,
            uses: 0,
        };
        self.seen.note(probe.load);
        self.pool.put(probe, now, self.hot);
    }
}

/// Probes two endpoints; with a `hot_load` also what they report.
fn look(endpoints: &Endpoints, positions: [usize; 2], hot_load: Option<f64>) -> [Seen; 2] {
    let load = endpoints.look([Column::InFlight, Column::LatencyAtLoad], positions);
    let full = match hot_load {
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

guest_sdk::export!(Prequal);

#[cfg(test)]
mod tests;
