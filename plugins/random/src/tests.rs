#![expect(clippy::unwrap_used, reason = "a test may fail by panicking")]

use proptest::prelude::*;

use guest_sdk::Endpoint;

use super::*;

fn table(weights: &[u32]) -> Vec<Endpoint> {
    let ids = weights.iter().zip(1_u64..);
    ids.map(|(&weight, id)| Endpoint {
        id: id.wrapping_mul(0x9e37_79b9_7f4a_7c15),
        weight,
    })
    .collect()
}

proptest! {
    #[test]
    fn shares_are_proportional_to_weights(weights in proptest::collection::vec(1_u32..1000, 1..20), seed: u64) {
        let mut balancer = Random::default();
        balancer.endpoints_changed(&Endpoints::new(table(&weights)));
        let mut entropy = Entropy::of(&Request { entropy: seed, ..Request::default() });
        let picks = 20_000;
        let mut counts = vec![0_u32; weights.len()];
        for _ in 0..picks {
            let request = Request { entropy: entropy.next_u64(), ..Request::default() };
            counts[balancer.pick(&request, &Endpoints::default()).unwrap()] += 1;
        }
        let total: u32 = weights.iter().sum();
        for (count, weight) in counts.iter().zip(&weights) {
            let share = f64::from(*weight) / f64::from(total);
            // Six standard deviations of a binomial distribution.
            let bound = 6.0 * (f64::from(picks) * share * (1.0 - share)).sqrt() + 1.0;
            prop_assert!((f64::from(*count) - f64::from(picks) * share).abs() <= bound);
        }
    }
}

#[test]
fn an_empty_table_has_no_pick() {
    assert_eq!(
        Random::default().pick(&Request::default(), &Endpoints::default()),
        None
    );
}
