//! Token load: a request goes to the endpoint that has the fewest tokens to compute, with those of
//! the request that are not in its cache. See README.md.

use guest_sdk::prefix::{Memory, blocks_of, thinned};
use guest_sdk::{Balancer, Column, Endpoints, Entropy, Lottery, Request, Weighted, facts};

/// The members of a body that limit the tokens of the answer.
const LIMITS: [&str; 3] = [
    "/max_tokens",
    "/max_completion_tokens",
    "/max_output_tokens",
];

/// Places requests by tokens.
#[derive(Debug, Default)]
pub struct TokenLoad {
    options: Options,
    memory: Memory,
    lottery: Lottery,
    /// The positions that a pick compares. Kept, so that no pick allocates them.
    candidates: Vec<usize>,
}

/// What a request asks for.
#[derive(Debug, Default, PartialEq)]
struct Demand {
    /// Tokens of the prompt.
    prompt: u32,
    /// Tokens of the answer.
    answer: u32,
    /// The hashes of the prompt's prefixes, the shortest first.
    hashes: Vec<u64>,
}

guest_sdk::settings! {
    /// What operators may set.
    struct Options {
        /// Bytes of a prompt for each token
        bytes_per_token: f64 = 4.0, "minimum": 0.25, "maximum": 64;
        /// A header of requests whose value is the number of tokens of the prompt; it is estimated
        /// for requests without it
        tokens_header: Option<String>, "minLength": 1, "maxLength": 256;
        /// Tokens of an answer, unless the request limits it to fewer
        answer_tokens: u32 = 256, "minimum": 0, "maximum": 1_000_000;
        /// Weight of an answer token relative to a prompt token
        answer_weight: f64 = 1.0, "minimum": 0, "maximum": 1000;
        /// Endpoints that are compared: all if there are no more, otherwise as many drawn by
        /// weight, and as many that have the beginning of the prompt
        choices: usize = 8, "minimum": 2, "maximum": 64;
        /// Bytes of a block of a prompt; as many as a block of the servers' caches has, or less
        block_size: usize = 64, "minimum": 1, "maximum": 4096;
        /// Pairs of a block and an endpoint that are remembered, 32 bytes each: about as many
        /// blocks as all caches hold; 0 if the servers cache nothing
        capacity: usize = 131_072, "minimum": 0, "maximum": 4_194_304;
    }
}

impl Balancer for TokenLoad {
    const CONFIG_SCHEMA: &'static str = Options::SCHEMA;

    fn configure(&mut self, config: &str) -> Result<(), String> {
        self.options = Options::read(config)?;
        self.memory = Memory::new(self.options.capacity, self.options.block_size);
        Ok(())
    }

    fn endpoints_changed(&mut self, endpoints: &Endpoints) {
        self.memory.endpoints_changed(endpoints);
        self.lottery = Lottery::new(endpoints);
    }

    fn pick(&mut self, request: &Request, endpoints: &Endpoints) -> Option<usize> {
        let pick = self.pick_weighted(request, endpoints)?;
        Some(pick.position)
    }

    fn pick_weighted(&mut self, request: &Request, endpoints: &Endpoints) -> Option<Weighted> {
        self.memory.set_seed(request.entropy);
        let asked = self.asked();
        // A retry does not look for a cached prefix: it would find the endpoint that has failed the
        // request.
        let known = match request.attempt {
            0 => &asked.hashes[..],
            _ => &[],
        };
        let mut candidates = std::mem::take(&mut self.candidates);
        self.draw(&mut candidates, &mut Entropy::of(request), endpoints, known);
        let least = self.least(&candidates, endpoints, &asked, known);
        self.candidates = candidates;
        let (position, first_byte) = least?;
        self.memory.used(&asked.hashes, position);
        Some(Weighted {
            position,
            first_byte,
            rest: asked.answer,
        })
    }

    fn save(&self) -> Vec<u8> {
        self.memory.save()
    }

    fn restore(&mut self, saved: &[u8]) -> Result<(), String> {
        self.memory.restore(saved)
    }
}

impl TokenLoad {
    /// Estimates what the request asks for.
    fn asked(&self) -> Demand {
        let options = &self.options;
        let header = options.tokens_header.as_deref();
        let told = header.and_then(|name| facts::header(name)?.trim().parse().ok());
        let tokens = |bytes: u64| (bytes as f64 / options.bytes_per_token).ceil() as u32;
        let without_prompt = |bytes: u64| Demand {
            prompt: told.unwrap_or_else(|| tokens(bytes)),
            answer: options.answer_tokens,
            hashes: Vec::new(),
        };
        // Asked first, since a request without a body then costs one call of the gateway.
        let Some((seen, has_more)) = facts::body_length() else {
            return without_prompt(0);
        };
        let unseen = || if has_more { unseen(seen) } else { 0 };
        let Some((bytes, is_cut)) = facts::prompt_length() else {
            // A body without a prompt counts in full.
            return without_prompt(seen + unseen());
        };
        let estimated = || tokens(bytes + if is_cut { unseen() } else { 0 });
        let mut limits = LIMITS.iter().filter_map(|name| facts::json_field(name, 16));
        let limit = limits.find_map(|limit| limit.parse().ok());
        let hashes = match options.capacity {
            0 => None,
            _ => facts::prefix_hashes(options.block_size as u32, facts::MAX_HASHES),
        };
        Demand {
            prompt: told.unwrap_or_else(estimated),
            answer: options.answer_tokens.min(limit.unwrap_or(u32::MAX)),
            hashes: hashes.map_or_else(Vec::new, thinned),
        }
    }

    /// Draws the positions that are compared: those that have the longest known prefix, and all
    /// others if they are few, or some that are drawn by weight.
    fn draw(
        &self,
        drawn: &mut Vec<usize>,
        entropy: &mut Entropy,
        endpoints: &Endpoints,
        hashes: &[u64],
    ) {
        let (count, most) = (endpoints.len(), self.options.choices);
        drawn.clear();
        if count <= most {
            // From a random one on, since of equal ones the first is picked.
            let first = entropy.below(count);
            drawn.extend((first..count).chain(0..first));
            return;
        }
        for _ in 0..most {
            drawn.extend(self.lottery.draw(entropy));
        }
        let longest = hashes.partition_point(|hash| self.memory.holders(*hash).next().is_some());
        if let Some(last) = longest.checked_sub(1) {
            drawn.extend(self.memory.holders(hashes[last]).take(most));
        }
    }

    /// The candidate that has the fewest tokens to compute for its weight, with those of the
    /// request that it does not have in its cache, and the number of these.
    fn least(
        &self,
        candidates: &[usize],
        endpoints: &Endpoints,
        asked: &Demand,
        hashes: &[u64],
    ) -> Option<(usize, u32)> {
        let mut least: Option<(f64, usize, u32)> = None;
        let columns = [Column::InFlightCost, Column::UnansweredCost];
        endpoints.look_at(columns, candidates, |position, [all, unanswered]| {
            let missing = self.missing(asked, hashes, position);
            let answers = f64::from(all.saturating_sub(unanswered));
            let tokens =
                f64::from(unanswered) + f64::from(missing) + answers * self.options.answer_weight;
            let load = tokens / f64::from(endpoints[position].weight.max(1));
            if least.is_none_or(|(least, ..)| load < least) {
                least = Some((load, position, missing));
            }
        });
        least.map(|(_, position, missing)| (position, missing))
    }

    /// The tokens of a prompt that an endpoint has to compute.
    fn missing(&self, asked: &Demand, hashes: &[u64], position: usize) -> u32 {
        if hashes.is_empty() {
            return asked.prompt.max(1);
        }
        let known = blocks_of(self.memory.known(hashes, position));
        let bytes = known * self.options.block_size;
        let cached = (bytes as f64 / self.options.bytes_per_token) as u32;
        // The last one is computed in any case, because the answer begins with it.
        asked.prompt.saturating_sub(cached).max(1)
    }
}

/// The bytes of the body after those that were seen, as far as its length is known.
fn unseen(seen: u64) -> u64 {
    let length = facts::header("content-length");
    let length: Option<u64> = length.and_then(|length| length.parse().ok());
    length.map_or(0, |length| length.saturating_sub(seen))
}

guest_sdk::export!(TokenLoad, weighted);

#[cfg(test)]
mod tests;
