//! A stream of random numbers for each purpose: whatever a balancer does, the same requests arrive.

use rand_distr::{Distribution, Exp1, LogNormal, Pareto, StandardNormal, StandardUniform, Zipf};
use rand_pcg::Pcg64;

use super::scenario::Cost;
use crate::split_mix;

/// The purpose of a stream.
#[derive(Debug, Clone, Copy)]
pub(super) enum Stream {
    Arrivals = 1,
    Costs = 2,
    Keys = 3,
    Gateways = 4,
    Entropy = 5,
    Antagonists = 6,
    Calibration = 7,
    Users = 8,
}

/// Uniform random numbers that depend only on a seed and on their purpose.
#[derive(Debug, Clone)]
pub(super) struct Random(Pcg64);

impl Random {
    pub(super) fn new(seed: u64, stream: Stream) -> Self {
        Self(Pcg64::new(u128::from(seed), stream as u128))
    }

    pub(super) fn bits(&mut self) -> u64 {
        StandardUniform.sample(&mut self.0)
    }

    /// A number from 0 to below 1.
    pub(super) fn unit(&mut self) -> f64 {
        StandardUniform.sample(&mut self.0)
    }

    /// An exponentially distributed number with mean 1.
    pub(super) fn exponential(&mut self) -> f64 {
        Exp1.sample(&mut self.0)
    }

    /// A number from 0 to below `count`.
    pub(super) fn below(&mut self, count: usize) -> usize {
        ((u128::from(self.bits()) * count as u128) >> 64) as usize
    }
}

/// Mixes the bits of a number; any good mixing function is suitable.
pub(super) fn mix(number: u64) -> u64 {
    split_mix::finish(number.wrapping_add(1).wrapping_mul(split_mix::STEP))
}

/// Draws the work of requests, in milliseconds.
#[derive(Debug)]
pub(super) struct Costs {
    cost: Cost,
    /// The factor for a draw, so that the mean is the configured one.
    scale: f64,
    random: Random,
}

/// Number of draws that determine [`Costs::scale`].
const CALIBRATION: usize = 1 << 20;

impl Costs {
    pub(super) fn new(cost: Cost, seed: u64) -> Self {
        let scale = match cost {
            // The cut at 0 changes the mean; the new mean has no closed form.
            Cost::Normal { mean, .. } => {
                let mut random = Random::new(0, Stream::Calibration);
                let draws = (0..CALIBRATION).map(|_| draw(cost, &mut random));
                mean * CALIBRATION as f64 / draws.sum::<f64>()
            }
            _ => 1.0,
        };
        Self {
            cost,
            scale,
            random: Random::new(seed, Stream::Costs),
        }
    }

    pub(super) fn draw(&mut self) -> f64 {
        draw(self.cost, &mut self.random) * self.scale
    }
}

fn draw(cost: Cost, random: &mut Random) -> f64 {
    match cost {
        Cost::Constant { mean } => mean,
        Cost::Exponential { mean } => mean * random.exponential(),
        Cost::Normal { mean, deviation } => loop {
            let normal: f64 = StandardNormal.sample(&mut random.0);
            let value = 1.0 + deviation * normal;
            if value > 0.0 {
                return mean * value;
            }
        },
        Cost::LogNormal { mean, deviation } => {
            LogNormal::from_mean_cv(mean, deviation).map_or(mean, |d| d.sample(&mut random.0))
        }
        Cost::Pareto { mean, shape } => {
            let scale = mean * (shape - 1.0) / shape;
            Pareto::new(scale, shape).map_or(mean, |d| d.sample(&mut random.0))
        }
    }
}

/// Draws the keys of requests.
#[derive(Debug)]
pub(super) struct Keys {
    law: Option<Zipf<f64>>,
    random: Random,
}

impl Keys {
    pub(super) fn new(keys: usize, skew: f64, seed: u64) -> Self {
        Self {
            law: Zipf::new(keys as f64, skew).ok(),
            random: Random::new(seed, Stream::Keys),
        }
    }

    /// The number of a key; none if requests have no keys.
    pub(super) fn draw(&mut self) -> Option<usize> {
        let law = self.law.as_ref()?;
        Some(law.sample(&mut self.random.0) as usize - 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn means_are_as_configured() {
        let mean = 20.0;
        for cost in [
            Cost::Constant { mean },
            Cost::Exponential { mean },
            Cost::Normal {
                mean,
                deviation: 1.0,
            },
            Cost::LogNormal {
                mean,
                deviation: 2.0,
            },
            Cost::Pareto { mean, shape: 3.0 },
        ] {
            let mut costs = Costs::new(cost, 1);
            let sum: f64 = (0..400_000).map(|_| costs.draw()).sum();
            let found = sum / 400_000.0;
            assert!((19.7..20.3).contains(&found), "{cost:?}: {found}");
        }
    }

    #[test]
    fn keys_follow_zipfs_law() {
        assert_eq!(Keys::new(0, 0.0, 1).draw(), None);
        let mut keys = Keys::new(100, 1.0, 1);
        let mut counts = [0_usize; 100];
        for _ in 0..100_000 {
            if let Some(key) = keys.draw() {
                counts[key] += 1;
            }
        }
        // The first key has twice as many requests as the second.
        let ratio = counts[0] as f64 / counts[1] as f64;
        assert!((1.9..2.1).contains(&ratio), "{ratio}");
        assert!(counts[99] > 0);
    }
}
