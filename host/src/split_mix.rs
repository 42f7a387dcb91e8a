//! Deterministic random bits, for code that has to be repeatable. Source: SplitMix64 (Steele, Lea,
//! Flood 2014).

/// The increment of the state for each number.
pub(crate) const STEP: u64 = 0x9e37_79b9_7f4a_7c15;

/// The number of a state. The mapping is one to one.
pub(crate) fn finish(state: u64) -> u64 {
    let z = (state ^ state >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ z >> 31
}

/// 32 bits that are derived from a number, and are independent of the other bits that are drawn
/// from it.
pub(crate) fn mixed(number: u64) -> u64 {
    finish(number) >> 32
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The first numbers of the reference implementation from seed 1234567.
    #[test]
    fn the_numbers_are_those_of_the_reference() {
        let numbers = (1..4).map(|n| finish(1_234_567_u64.wrapping_add(STEP.wrapping_mul(n))));
        let known = [
            6_457_827_717_110_365_317,
            3_203_168_211_198_807_973,
            9_817_491_932_198_370_423,
        ];
        assert_eq!(numbers.collect::<Vec<u64>>(), known);
    }
}
