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

proptest! {
    #[test]
    fn a_session_stays_while_its_endpoint_is_in_the_table(
        count in 2_usize..50,
        session in 0_usize..50,
        gone in 0_usize..50,
        entropy: u64,
    ) {
        let mut all = table(&vec![1; count]);
        let id = all[session % count].id;
        let mut balancer = StickySessions::default();
        let request = Request { affinity: Some(id), entropy, ..Request::default() };
        balancer.endpoints_changed(&Endpoints::new(all.clone()));
        let endpoints = Endpoints::new(all.clone());
        prop_assert_eq!(all[balancer.pick(&request, &endpoints).unwrap()].id, id);
        all.remove(gone % count);
        all.reverse();
        balancer.endpoints_changed(&Endpoints::new(all.clone()));
        let endpoints = Endpoints::new(all.clone());
        let chosen = all[balancer.pick(&request, &endpoints).unwrap()].id;
        prop_assert_eq!(chosen == id, gone % count != session % count);
        // A retry may go to any endpoint.
        let retry = Request { attempt: 1, ..request };
        prop_assert!(balancer.pick(&retry, &endpoints).is_some());
    }
}

proptest! {
    #[test]
    fn new_sessions_are_proportional_to_weights(weights in proptest::collection::vec(1_u32..10, 2..8), seed: u64) {
        let all = table(&weights);
        let mut balancer = StickySessions::default();
        balancer.endpoints_changed(&Endpoints::new(all.clone()));
        let mut load = vec![0; weights.len()];
        let mut entropy = Entropy::of(&Request { entropy: seed, ..Request::default() });
        for _ in 0..weights.iter().sum::<u32>() * 100 {
            let endpoints = Endpoints::new(all.clone()).with_column(Column::InFlight, &load);
            let request = Request { entropy: entropy.next_u64(), ..Request::default() };
            load[balancer.pick(&request, &endpoints).unwrap()] += 1;
        }
        for (load, weight) in load.iter().zip(&weights) {
            prop_assert!((f64::from(*load) / f64::from(*weight) - 100.0).abs() < 40.0, "{load} {weight}");
        }
    }
}

#[test]
fn an_empty_table_has_no_pick() {
    let request = Request {
        affinity: Some(1),
        ..Request::default()
    };
    assert_eq!(
        StickySessions::default().pick(&request, &Endpoints::default()),
        None
    );
}
