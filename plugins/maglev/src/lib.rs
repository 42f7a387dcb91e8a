//! Maglev hashing: a table in which every endpoint has its share of places. See README.md.

use guest_sdk::{Balancer, Endpoint, Endpoints, Request};
use serde::Deserialize;

/// Looks the key up.
#[derive(Debug, Default)]
pub struct Maglev {
    options: Options,
    /// The position of the endpoint for each remainder of a key.
    table: Vec<u32>,
}

#[derive(Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Options {
    table_size: u32,
}

impl Default for Options {
    fn default() -> Self {
        Self { table_size: 65_537 }
    }
}

impl Balancer for Maglev {
    const CONFIG_SCHEMA: &'static str = r#"{
        "type": "object",
        "properties": {
            "table_size": {
                "type": "integer", "minimum": 2, "maximum": 5000011, "default": 65537,
                "description": "Places in the table, a prime; a hundred for each endpoint keep shares within 1 %"
            }
        },
        "additionalProperties": false
    }"#;

    fn configure(&mut self, config: &str) -> Result<(), String> {
        self.options = serde_json::from_str(config).map_err(|error| error.to_string())?;
        let size = self.options.table_size;
        if !is_prime(size) || size > 5_000_011 {
            return Err(format!(
                "table_size: expected a prime of at most 5000011, such as 65537, found {size}"
            ));
        }
        Ok(())
    }

    fn endpoints_changed(&mut self, endpoints: &[Endpoint]) {
        self.table = fill(endpoints, self.options.table_size);
    }

    fn pick(&mut self, request: &Request, _: &Endpoints) -> Option<usize> {
        // A request without a key belongs nowhere; a retry belongs elsewhere.
        let key = match (request.affinity, request.attempt) {
            (Some(key), 0) => key,
            (Some(key), attempt) => mix(key.wrapping_add(u64::from(attempt))),
            (None, _) => request.entropy,
        };
        let place = key.checked_rem(self.table.len() as u64)?;
        self.table
            .get(place as usize)
            .map(|&position| position as usize)
    }
}

/// Lets endpoints choose places in turn, each by its own permutation, as often as its weight says.
/// Source: Eisenbud et al., "Maglev", NSDI 2016, 3.4; weights as in Envoy.
fn fill(endpoints: &[Endpoint], size: u32) -> Vec<u32> {
    const FREE: u32 = u32::MAX;
    let Some(heaviest) = endpoints.iter().map(|endpoint| endpoint.weight).max() else {
        return Vec::new();
    };
    struct Seeker {
        next: u32,
        skip: u32,
        weight: u32,
        /// Grows by the weight each round; a place is due each time that it passes the heaviest weight.
        credit: u32,
        position: u32,
    }
    let mut seekers: Vec<Seeker> = endpoints
        .iter()
        .zip(0..)
        .map(|(endpoint, position)| Seeker {
            next: (mix(endpoint.id) % u64::from(size)) as u32,
            skip: (mix(endpoint.id ^ 0x6a09_e667_f3bc_c908) % u64::from(size - 1)) as u32 + 1,
            weight: endpoint.weight,
            credit: 0,
            position,
        })
        .collect();
    // The order of turns must not depend on the order of the table, which differs between gateways.
    seekers.sort_unstable_by_key(|seeker| mix(endpoints[seeker.position as usize].id));
    let mut table = vec![FREE; size as usize];
    let mut left = size;
    loop {
        for seeker in &mut seekers {
            seeker.credit += seeker.weight;
            if seeker.credit < heaviest {
                continue;
            }
            seeker.credit -= heaviest;
            while table[seeker.next as usize] != FREE {
                seeker.step(size);
            }
            table[seeker.next as usize] = seeker.position;
            seeker.step(size);
            left -= 1;
            if left == 0 {
                return table;
            }
        }
    }
    impl Seeker {
        fn step(&mut self, size: u32) {
            let rest = size - self.next;
            self.next = if self.skip >= rest {
                self.skip - rest
            } else {
                self.next + self.skip
            };
        }
    }
}

/// Spreads the bits of a number. Source: SplitMix64 (Steele, Lea, Flood 2014).
fn mix(number: u64) -> u64 {
    let z = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ z >> 31
}

fn is_prime(number: u32) -> bool {
    number >= 2
        && (2..)
            .take_while(|d| d * d <= number)
            .all(|d| !number.is_multiple_of(d))
}

guest_sdk::export!(Maglev);

#[cfg(test)]
mod tests;
