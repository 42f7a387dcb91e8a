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

fn pick(in_flight: &[u32], latency: &[u32], entropy: u64) -> usize {
    let table = table(&vec![1; latency.len()]);
    let mut balancer = PeakEwma::default();
    balancer.endpoints_changed(&Endpoints::new(table.clone()));
    let endpoints = Endpoints::new(table)
        .with_column(Column::InFlight, in_flight)
        .with_column(Column::Latency, latency);
    balancer
        .pick(
            &Request {
                entropy,
                ..Request::default()
            },
            &endpoints,
        )
        .unwrap()
}

proptest! {
    #[test]
    fn the_endpoint_with_the_lower_cost_is_picked(
        busy in proptest::array::uniform2(0_u32..1000),
        latency in proptest::array::uniform2(1_u32..10_000_000),
        entropy: u64,
    ) {
        let cost = |p: usize| u64::from(latency[p]) * u64::from(busy[p] + 1);
        prop_assume!(cost(0) != cost(1));
        let better = usize::from(cost(1) < cost(0));
        prop_assert_eq!(pick(&busy, &latency, entropy), better);
    }
}

/// Makes so many picks, without answering any, and returns the requests in flight at each endpoint.
fn load_of(weights: &[u32], picks: u32, seed: u64) -> Vec<u32> {
    let table = table(weights);
    let mut balancer = PeakEwma::default();
    balancer.endpoints_changed(&Endpoints::new(table.clone()));
    let mut entropy = Entropy::of(&Request {
        entropy: seed,
        ..Request::default()
    });
    let mut load = vec![0; weights.len()];
    for _ in 0..picks {
        let endpoints = Endpoints::new(table.clone())
            .with_column(Column::InFlight, &load)
            .with_column(Column::Latency, &vec![1000; weights.len()]);
        let request = Request {
            entropy: entropy.next_u64(),
            ..Request::default()
        };
        load[balancer.pick(&request, &endpoints).unwrap()] += 1;
    }
    load
}

proptest! {
    #[test]
    fn with_equal_latencies_load_is_proportional_to_weights(weights in proptest::collection::vec(1_u32..10, 2..8), seed: u64) {
        let total: u32 = weights.iter().sum();
        let load = load_of(&weights, total * 100, seed);
        for (load, weight) in load.iter().zip(&weights) {
            prop_assert!((f64::from(*load) / f64::from(*weight) - 100.0).abs() < 40.0, "{load} {weight}");
        }
    }
}

#[test]
fn picks_stay_in_the_table_through_changes() {
    let mut balancer = PeakEwma::default();
    for size in [3, 1, 0, 2, 40] {
        let table = table(&vec![1; size]);
        balancer.endpoints_changed(&Endpoints::new(table.clone()));
        for entropy in 0..50 {
            let request = Request {
                entropy,
                ..Request::default()
            };
            let picked = balancer.pick(&request, &Endpoints::new(table.clone()));
            assert_eq!(picked.is_some(), size > 0);
            assert!(picked.is_none_or(|position| position < size));
        }
    }
}

#[test]
fn an_endpoint_of_unknown_latency_gets_one_request_and_no_more() {
    for entropy in 0..20 {
        assert_eq!(pick(&[0, 0], &[1000, 0], entropy), 1);
        assert_eq!(pick(&[0, 1], &[1000, 0], entropy), 0);
    }
}

#[test]
fn a_table_may_have_no_or_one_endpoint() {
    let none = PeakEwma::default().pick(&Request::default(), &Endpoints::default());
    assert_eq!(none, None);
    assert_eq!(pick(&[9], &[9], 1), 0);
}
