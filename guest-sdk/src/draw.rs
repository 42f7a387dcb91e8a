//! Random numbers and weighted draws, made from the random bits of a request.

use crate::{Column, Endpoint, Endpoints};

/// The increment of SplitMix64: its state grows by this for each number.
const STEP: u64 = 0x9e37_79b9_7f4a_7c15;

/// Mixes the bits of a number. It is a bijection: different numbers stay different. For ids and
/// hashes that are close to each other, or for hash tables that use only a few of the bits. Source:
/// SplitMix64 (Steele, Lea, Flood 2014).
///
/// ```
/// assert_ne!(guest_sdk::mix(1) % 64, guest_sdk::mix(65) % 64);
/// ```
#[must_use]
pub const fn mix(number: u64) -> u64 {
    let z = number.wrapping_add(STEP);
    let z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ z >> 31
}

/// A generator of random numbers for one pick. It makes all of them from the 64 random bits of the
/// request, so the same request gives the same numbers. Source: SplitMix64 (Steele, Lea, Flood
/// 2014).
///
/// ```
/// let mut entropy = guest_sdk::Entropy::of(&guest_sdk::Request { entropy: 7, ..Default::default() });
/// assert!(entropy.below(6) < 6);
/// ```
#[derive(Clone, Debug)]
pub struct Entropy(u64);

impl Entropy {
    /// A generator that starts from the random bits of a request.
    #[must_use]
    pub fn of(request: &crate::Request) -> Self {
        Self(request.entropy)
    }

    /// 64 uniform random bits.
    pub fn next_u64(&mut self) -> u64 {
        let bits = mix(self.0);
        self.0 = self.0.wrapping_add(STEP);
        bits
    }

    /// A uniform number from 0 to `bound` - 1; 0 if the bound is 0.
    pub fn below(&mut self, bound: usize) -> usize {
        scaled(self.next_u64(), bound as u64) as usize
    }
}

/// A uniform number scaled to less than `bound` (Lemire 2019, without the rejection: the bias is
/// less than bound / 2^64).
fn scaled(number: u64, bound: u64) -> u64 {
    ((u128::from(number) * u128::from(bound)) >> 64) as u64
}

/// A uniform number of 32 bits scaled to less than `bound`: WebAssembly has no multiplication with
/// a result of more than 64 bits.
fn scaled_half(number: u32, bound: u32) -> u32 {
    ((u64::from(number) * u64::from(bound)) >> 32) as u32
}

/// Draws positions at random, each with a probability proportional to its weight. A draw takes the
/// same time for any number of endpoints. Source: the alias method (Walker 1977, Vose 1991). It
/// uses integers, so it is exact.
///
/// ```
/// # use guest_sdk::{Endpoint, Entropy, Lottery, Request};
/// let lottery = Lottery::new(&[Endpoint { id: 1, weight: 1 }, Endpoint { id: 2, weight: 3 }]);
/// let mut entropy = Entropy::of(&Request::default());
/// let second = (0..4000).filter(|_| lottery.draw(&mut entropy) == Some(1)).count();
/// assert!((2900..3100).contains(&second));
/// ```
#[derive(Clone, Debug, Default)]
pub struct Lottery {
    /// For each position, the part of its column that is its own, and the position that the rest of
    /// the column belongs to. Every column is as high as the sum of the weights.
    columns: Vec<(u64, u32)>,
    total: u64,
}

impl Lottery {
    /// Prepares draws from these endpoints by their weights.
    #[must_use]
    pub fn new(endpoints: &[Endpoint]) -> Self {
        let total: u64 = endpoints.iter().map(|e| u64::from(e.weight)).sum();
        let count = endpoints.len() as u64;
        // Each column is as high as the sum of the weights, so the shares are integers.
        let mut columns: Vec<(u64, u32)> = endpoints
            .iter()
            .zip(0..)
            .map(|(endpoint, position)| (u64::from(endpoint.weight) * count, position))
            .collect();
        let (mut small, mut large): (Vec<u32>, Vec<u32>) =
            (0..columns.len() as u32).partition(|&position| columns[position as usize].0 < total);
        while let (Some(short), Some(&long)) = (small.pop(), large.last()) {
            columns[short as usize].1 = long;
            let given = total - columns[short as usize].0;
            let long_column = &mut columns[long as usize];
            long_column.0 -= given;
            if long_column.0 < total {
                large.pop();
                small.push(long);
            }
        }
        Self { columns, total }
    }

    /// Draws a position; none if there is no endpoint.
    pub fn draw(&self, entropy: &mut Entropy) -> Option<usize> {
        let count = u32::try_from(self.columns.len()).ok()?;
        let number = entropy.next_u64();
        let position = scaled_half((number >> 32) as u32, count);
        let &(own, other) = self.columns.get(position as usize)?;
        let ticket = match u32::try_from(self.total) {
            Ok(total) => u64::from(scaled_half(number as u32, total)),
            Err(_) => scaled(entropy.next_u64(), self.total),
        };
        Some(if ticket < own { position } else { other } as usize)
    }

    /// Draws two positions and returns the one with fewer requests in flight for each unit of
    /// weight; none if there is no endpoint.
    pub fn less_busy(&self, entropy: &mut Entropy, endpoints: &Endpoints) -> Option<usize> {
        let (first, second) = self.draw_two(entropy)?;
        let in_flight = endpoints.look([Column::InFlight; 2], [first, second]);
        let [one, other] = in_flight.map(|[count, _]| u64::from(count));
        let weight = |position: usize| u64::from(endpoints[position].weight);
        // Compares `other / weight(second)` with `one / weight(first)`, without division.
        let less = other * weight(first) < one * weight(second);
        Some(if less { second } else { first })
    }

    /// Draws two positions, which are different if there are at least two endpoints; none if there
    /// is no endpoint. The better of two random choices is nearly as good as the best of all
    /// (Mitzenmacher 2001).
    pub fn draw_two(&self, entropy: &mut Entropy) -> Option<(usize, usize)> {
        let first = self.draw(entropy)?;
        for _ in 0..4 {
            let second = self.draw(entropy)?;
            if second != first {
                return Some((first, second));
            }
        }
        // One endpoint outweighs all others: draw one of the others uniformly, without regard to
        // their weights.
        let count = self.columns.len();
        let further = 1 + entropy.below(count.saturating_sub(1));
        Some((first, (first + further) % count))
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test may fail by panicking")]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn table(weights: &[u32]) -> Vec<Endpoint> {
        let ids = weights.iter().zip(1..);
        ids.map(|(&weight, id)| Endpoint { id, weight }).collect()
    }

    proptest! {
        #[test]
        fn every_endpoint_has_exactly_its_share(weights in proptest::collection::vec(1_u32..=65_535, 1..50)) {
            let lottery = Lottery::new(&table(&weights));
            let mut held = vec![0; weights.len()];
            for (position, &(own, other)) in lottery.columns.iter().enumerate() {
                let own = own.min(lottery.total);
                held[position] += own;
                held[other as usize] += lottery.total - own;
            }
            let expected: Vec<u64> = weights.iter().map(|&w| u64::from(w) * weights.len() as u64).collect();
            prop_assert_eq!(held, expected);
        }

        #[test]
        fn numbers_stay_below_their_bound(entropy: u64, bound in 1_usize..1 << 40) {
            let mut entropy = Entropy(entropy);
            prop_assert!((0..20).all(|_| entropy.below(bound) < bound));
        }
    }

    #[test]
    fn endpoints_of_small_weight_are_drawn_beside_a_dominant_one() {
        let lottery = Lottery::new(&table(&[1, 1, 65_535, 1, 1]));
        let mut seen = [0; 5];
        for seed in 0..2000 {
            let (first, second) = lottery.draw_two(&mut Entropy(seed)).unwrap();
            assert_ne!(first, second);
            seen[first] += 1;
            seen[second] += 1;
        }
        assert!(seen.iter().all(|&count| count > 300), "{seen:?}");
        let alone = Lottery::new(&table(&[7]));
        assert_eq!(alone.draw_two(&mut Entropy(1)), Some((0, 0)));
    }

    #[test]
    fn an_empty_lottery_draws_nothing() {
        assert_eq!(Lottery::new(&[]).draw(&mut Entropy(1)), None);
        assert_eq!(Entropy(1).below(0), 0);
    }
}
