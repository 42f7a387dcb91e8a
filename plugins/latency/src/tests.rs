#![expect(clippy::unwrap_used, reason = "a test may fail by panicking")]

use proptest::prelude::*;

use super::*;

fn table(weights: &[u32]) -> Vec<Endpoint> {
    let ids = weights.iter().zip(1_u64..);
    ids.map(|(&weight, id)| Endpoint {
        id: id.wrapping_mul(0x9e37_79b9_7f4a_7c15),
        weight,
    })
    .collect()
}
use guest_sdk::Column;

fn pick(in_flight: &[u32], latency: &[u32], entropy: u64) -> usize {
    let table = table(&vec![1; latency.len()]);
    let mut balancer = PeakEwma::default();
    balancer.endpoints_changed(&table);
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
    fn of_two_the_one_with_the_lower_product_wins(
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

#[test]
fn one_that_nothing_is_known_of_gets_one_request_and_no_more() {
    for entropy in 0..20 {
        assert_eq!(pick(&[0, 0], &[1000, 0], entropy), 1);
        assert_eq!(pick(&[0, 1], &[1000, 0], entropy), 0);
    }
}

#[test]
fn tables_of_none_and_one() {
    let none = PeakEwma::default().pick(&Request::default(), &Endpoints::default());
    assert_eq!(none, None);
    assert_eq!(pick(&[9], &[9], 1), 0);
}
