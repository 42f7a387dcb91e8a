#![expect(clippy::unwrap_used, reason = "a test may fail by panicking")]

use proptest::prelude::*;

use guest_sdk::{Column, Endpoint};

use super::*;

fn table(weights: &[u32]) -> Vec<Endpoint> {
    let ids = weights.iter().zip(1_u64..);
    ids.map(|(&weight, id)| Endpoint {
        id: id.wrapping_mul(0x9e37_79b9_7f4a_7c15),
        weight,
    })
    .collect()
}

#[test]
fn a_configuration_has_the_settings_of_zones_and_no_others() {
    let configure = |config: &str| TwoChoices::default().configure(config);
    assert_eq!(configure("{}"), Ok(()));
    assert_eq!(configure(r#"{"prefer": "zone:a", "spill_at": 2}"#), Ok(()));
    for (config, wrong) in [
        (r#"{"spill_at": 2}"#, "needs prefer"),
        (r#"{"prefer": ":a"}"#, "such as zone:a"),
        (r#"{"zone": "a"}"#, "unknown field `zone`"),
    ] {
        let said = configure(config).unwrap_err();
        assert!(said.contains(wrong), "{config}: {said}");
    }
}

/// Throws balls into bins by this balancer, or at random, and returns the load of the fullest bin.
fn fullest(bins: usize, balls: usize, seed: u64, two: bool) -> u32 {
    let table = table(&vec![1; bins]);
    let mut balancer = TwoChoices::default();
    balancer.endpoints_changed(&Endpoints::new(table.clone()));
    let lottery = Lottery::new(&table);
    let mut entropy = Entropy::of(&Request {
        entropy: seed,
        ..Request::default()
    });
    let mut load = vec![0; bins];
    for _ in 0..balls {
        let request = Request {
            entropy: entropy.next_u64(),
            ..Request::default()
        };
        let bin = if two {
            let endpoints = Endpoints::new(table.clone()).with_column(Column::InFlight, &load);
            balancer.pick(&request, &endpoints)
        } else {
            lottery.draw(&mut Entropy::of(&request))
        };
        load[bin.unwrap()] += 1;
    }
    load.into_iter().max().unwrap()
}

#[test]
fn the_most_loaded_endpoint_has_less_than_with_random_picks() {
    for seed in 0..5 {
        // Two choices: ln ln n / ln 2 + O(1) above the mean. Random: sqrt(2 m ln n / n) above it.
        let (two, chance) = (
            fullest(100, 1000, seed, true),
            fullest(100, 1000, seed, false),
        );
        assert!(two <= 10 + 4, "{two}");
        assert!(chance > two, "{chance} {two}");
    }
}

proptest! {
    #[test]
    fn requests_in_flight_are_proportional_to_weights(weights in proptest::collection::vec(1_u32..10, 2..8), seed: u64) {
        let table = table(&weights);
        let mut balancer = TwoChoices::default();
        balancer.endpoints_changed(&Endpoints::new(table.clone()));
        let mut load = vec![0; weights.len()];
        let mut entropy = Entropy::of(&Request { entropy: seed, ..Request::default() });
        let total: u32 = weights.iter().sum();
        for _ in 0..total * 100 {
            let endpoints = Endpoints::new(table.clone()).with_column(Column::InFlight, &load);
            let request = Request { entropy: entropy.next_u64(), ..Request::default() };
            load[balancer.pick(&request, &endpoints).unwrap()] += 1;
        }
        for (load, weight) in load.iter().zip(&weights) {
            prop_assert!((f64::from(*load) / f64::from(*weight) - 100.0).abs() < 40.0, "{load} {weight}");
        }
    }
}

#[test]
fn a_table_may_have_no_or_one_endpoint() {
    let mut balancer = TwoChoices::default();
    let request = Request::default();
    assert_eq!(balancer.pick(&request, &Endpoints::default()), None);
    balancer.endpoints_changed(&Endpoints::new(table(&[5])));
    assert_eq!(
        balancer.pick(&request, &Endpoints::new(table(&[5]))),
        Some(0)
    );
}
