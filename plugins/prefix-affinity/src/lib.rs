//! Prefix affinity: a request goes to an endpoint that probably has its prefix in its cache, unless
//! that endpoint has too much load. See README.md.

use guest_sdk::prefix::{HOLDERS, Memory, of_path, thinned};
use guest_sdk::{Balancer, Column, Endpoints, Entropy, Lottery, Request, facts};

/// The search for a fit endpoint with a matching prefix stops after this many that are not fit.
const ASKED: usize = 2 * HOLDERS;

/// Remembers which endpoints had which prefixes, and the requests in flight at each endpoint.
#[derive(Debug, Default)]
pub struct PrefixAffinity {
    options: Options,
    index: Memory,
    lottery: Lottery,
    in_flight: Vec<u32>,
    /// The sums of requests in flight and of weights.
    total: u64,
    weights: u64,
}

/// The result of a look at an endpoint.
#[derive(Debug, Clone, Copy)]
struct Seen {
    position: usize,
    /// Requests in flight plus the requests that it reports as waiting, for each unit of weight, in
    /// units of 2^-20.
    load: u64,
    /// Whether it has fewer requests in flight than `balance_factor` allows for requests with a
    /// cached prefix.
    within: bool,
    /// Whether it reports a queue above `max_queue` or a load above `max_load`.
    full: bool,
}

guest_sdk::settings! {
    /// What operators may set.
    struct Options {
        /// Bytes of a block of a prompt; as many as a block of the servers' caches has, or less
        block_size: usize = 64, "minimum": 1, "maximum": 4096;
        /// Blocks of a request, or segments of a path, that are compared at most
        max_blocks: usize = 4096, "minimum": 1, "maximum": 16_384;
        /// Pairs of a block and an endpoint that are remembered, 32 bytes each: about as many
        /// blocks as all caches hold
        capacity: usize = 131_072, "minimum": 0, "maximum": 4_194_304;
        /// An endpoint that has this many times its share by weight of all requests in flight gets
        /// no request for its cached prefix
        balance_factor: f64 = 1.5, "minimum": 1, "maximum": 1000;
        /// Reported queue length above which an endpoint gets no request for its cached prefix
        max_queue: u32 = 20, "minimum": 0, "maximum": 4_294_967_295;
        /// Reported utilization (1 = full capacity) above which an endpoint gets no request for its
        /// cached prefix; unset: utilization is ignored
        max_load: Option<f64>, "minimum": 0, "maximum": 100;
    }
}

impl Balancer for PrefixAffinity {
    const CONFIG_SCHEMA: &'static str = Options::SCHEMA;

    fn configure(&mut self, config: &str) -> Result<(), String> {
        self.options = Options::read(config)?;
        self.index = Memory::new(self.options.capacity, self.options.block_size);
        Ok(())
    }

    fn endpoints_changed(&mut self, endpoints: &Endpoints) {
        self.index.endpoints_changed(endpoints);
        self.lottery = Lottery::new(endpoints);
        self.weights = endpoints.iter().map(|e| u64::from(e.weight)).sum();
        self.in_flight.clear();
        self.in_flight.resize(endpoints.len(), 0);
        self.total = 0;
        self.learn(endpoints);
    }

    fn pick(&mut self, request: &Request, endpoints: &Endpoints) -> Option<usize> {
        self.learn(endpoints);
        self.index.set_seed(request.entropy);
        let beginnings = self.beginnings();
        // A retry does not look for a cached prefix: it would find the endpoint that has failed the
        // request.
        let known = match request.attempt {
            0 => &beginnings[..],
            _ => &[],
        };
        let chosen = match self.cached(known, endpoints, |seen| seen.within && !seen.full) {
            Ok(cached) => cached,
            Err(best) => {
                let other = self.less_busy(&mut Entropy::of(request), endpoints)?;
                self.settle(best, other, known, endpoints)
            }
        };
        self.index.used(&beginnings, chosen.position);
        Some(chosen.position)
    }

    fn save(&self) -> Vec<u8> {
        self.index.save()
    }

    fn restore(&mut self, saved: &[u8]) -> Result<(), String> {
        self.index.restore(saved)
    }
}

impl PrefixAffinity {
    /// Reads the numbers of requests in flight that have changed.
    fn learn(&mut self, endpoints: &Endpoints) {
        endpoints.each_change(|position, in_flight| {
            let known = &mut self.in_flight[position];
            self.total = self.total - u64::from(*known) + u64::from(in_flight);
            *known = in_flight;
        });
    }

    /// The hashes of all prefixes of the request, the shortest first; empty if there is neither a
    /// prompt nor a path.
    fn beginnings(&self) -> Vec<u64> {
        let (size, most) = (self.options.block_size, self.options.max_blocks);
        if let Some(hashes) = facts::prefix_hashes(size as u32, most as u32) {
            return thinned(hashes);
        }
        let Some(path) = facts::path() else {
            return Vec::new();
        };
        thinned(of_path(&path, facts::query().as_deref(), most))
    }

    /// Of the endpoints that have a prefix of the request and are fit, those with the longest
    /// prefix, and of these the least busy one.
    ///
    /// # Errors
    /// If no endpoint that has a prefix is fit: the least busy of the endpoints with the longest
    /// prefix, or none if no endpoint has a prefix.
    fn cached(
        &self,
        beginnings: &[u64],
        endpoints: &Endpoints,
        fit: impl Fn(&Seen) -> bool,
    ) -> Result<Seen, Option<Seen>> {
        let mut passed = Vec::new();
        let mut best = None;
        let mut longest = beginnings.len();
        while passed.len() < ASKED {
            let others = |holder: &usize| !passed.contains(holder);
            // A shorter prefix has more holders.
            longest = beginnings[..longest]
                .partition_point(|hash| self.index.holders(*hash).any(|holder| others(&holder)));
            let Some(hash) = longest.checked_sub(1).map(|last| beginnings[last]) else {
                break;
            };
            let holders = self.index.holders(hash).filter(others);
            let seen: Vec<Seen> = holders.map(|holder| self.look(endpoints, holder)).collect();
            let least = |found: &&Seen| found.load;
            if let Some(chosen) = seen.iter().filter(|seen| fit(seen)).min_by_key(least) {
                return Ok(*chosen);
            }
            best = best.or(seen.iter().min_by_key(least).copied());
            passed.extend(seen.iter().map(|seen| seen.position));
        }
        Err(best)
    }

    /// Chooses if no endpoint that has a prefix is fit: `best`, which has the longest prefix, or
    /// `other`, which was drawn by weight and would have to compute the whole prompt again.
    fn settle(
        &self,
        best: Option<Seen>,
        other: Seen,
        beginnings: &[u64],
        endpoints: &Endpoints,
    ) -> Seen {
        match best {
            // A cache miss is only worth it at a less busy endpoint.
            Some(best) if best.load <= other.load => best,
            // If `other` is full as well, probably all endpoints are, so the reports are ignored.
            Some(_) if other.full => self
                .cached(beginnings, endpoints, |seen| seen.within)
                .unwrap_or(other),
            _ => other,
        }
    }

    /// The less busy of two endpoints that are drawn by weight.
    fn less_busy(&self, entropy: &mut Entropy, endpoints: &Endpoints) -> Option<Seen> {
        let (first, second) = self.lottery.draw_two(entropy)?;
        let [first, second] = self.look_at_two(endpoints, [first, second]);
        Some(if second.load < first.load {
            second
        } else {
            first
        })
    }

    fn look(&self, endpoints: &Endpoints, position: usize) -> Seen {
        let [seen, _] = self.look_at_two(endpoints, [position; 2]);
        seen
    }

    /// Two endpoints in one call of the gateway.
    fn look_at_two(&self, endpoints: &Endpoints, positions: [usize; 2]) -> [Seen; 2] {
        let columns = [Column::ReportedQueue, Column::ReportedLoad];
        let [one, other] = endpoints.look(columns, positions);
        [
            self.seen(endpoints, positions[0], one),
            self.seen(endpoints, positions[1], other),
        ]
    }

    /// What is known of an endpoint with this queue and load.
    fn seen(&self, endpoints: &Endpoints, position: usize, [queue, load]: [u32; 2]) -> Seen {
        let in_flight = u64::from(self.in_flight[position]);
        let weight = u64::from(endpoints[position].weight).max(1);
        // Its share of all requests in flight, including this request.
        let share = (self.total + 1) as f64 * weight as f64 / self.weights as f64;
        let options = &self.options;
        Seen {
            position,
            load: ((in_flight + u64::from(queue)) << 20) / weight,
            within: (in_flight as f64) < share * options.balance_factor,
            full: queue > options.max_queue
                || options
                    .max_load
                    .is_some_and(|most| f64::from(load) > most * 1000.0),
        }
    }
}

guest_sdk::export!(PrefixAffinity);

#[cfg(test)]
mod tests;
