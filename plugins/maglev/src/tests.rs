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

fn filled(endpoints: &[Endpoint], size: u32) -> Vec<u32> {
    let mut table = Vec::new();
    fill(&mut table, size, endpoints);
    table
}

fn shares(weights: &[u32], size: u32) -> Vec<f64> {
    let mut counts = vec![0_u32; weights.len()];
    for position in filled(&table(weights), size) {
        counts[position as usize] += 1;
    }
    counts
        .iter()
        .map(|&count| f64::from(count) / f64::from(size))
        .collect()
}

#[test]
fn shares_of_a_hundred_endpoints_are_at_most_five_percent_too_large() {
    let peak = shares(&[1; 100], 65_537).into_iter().fold(0.0, f64::max);
    assert!(peak * 100.0 <= 1.05, "{peak}");
}

#[test]
fn shares_are_proportional_to_weights() {
    let shares = shares(&[100, 200, 300, 50], 65_537);
    for (share, weight) in shares.iter().zip([100.0, 200.0, 300.0, 50.0]) {
        assert!((share - weight / 650.0).abs() < 0.001, "{shares:?}");
    }
}

/// The share of keys whose endpoint, by its id, is another one after the change.
fn moved(before: &[Endpoint], after: &[Endpoint], size: u32) -> f64 {
    let (old, new) = (filled(before, size), filled(after, size));
    let moved = old
        .iter()
        .zip(&new)
        .filter(|(old, new)| before[**old as usize].id != after[**new as usize].id);
    moved.count() as f64 / f64::from(size)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]
    #[test]
    fn few_keys_move_and_the_order_of_the_table_has_no_effect(
        count in 20_usize..100, gone in 1_usize..3, weight in 1_u32..100,
    ) {
        let all = table(&vec![weight; count]);
        let mut fewer = all[gone..].to_vec();
        fewer.reverse();
        // Maglev moves a few more keys than necessary, because it prefers even shares (see the
        // paper).
        let least = gone as f64 / count as f64;
        let moved_now = moved(&all, &fewer, 65_537);
        prop_assert!(moved_now <= least + 0.04, "{moved_now} {least}");
        let mut reversed = all.clone();
        reversed.reverse();
        prop_assert_eq!(moved(&all, &reversed, 65_537), 0.0);
    }
}

#[test]
fn a_key_keeps_its_endpoint_and_a_retry_goes_to_another() {
    let mut balancer = Maglev::default();
    balancer.configure("{}").unwrap();
    balancer.endpoints_changed(&Endpoints::new(table(&[1; 50])));
    let at = |balancer: &mut Maglev, attempt| {
        let request = Request {
            affinity: Some(77),
            attempt,
            ..Request::default()
        };
        balancer.pick(&request, &Endpoints::default())
    };
    let first = at(&mut balancer, 0);
    assert_eq!(at(&mut balancer, 0), first);
    assert!((1..4).any(|attempt| at(&mut balancer, attempt) != first));
}

#[test]
fn a_table_may_have_no_endpoint_or_more_endpoints_than_slots() {
    let mut balancer = Maglev::default();
    assert_eq!(
        balancer.pick(&Request::default(), &Endpoints::default()),
        None
    );
    assert_eq!(filled(&table(&[1; 20]), 7).len(), 7);
    balancer.configure("{}").unwrap();
    balancer.endpoints_changed(&Endpoints::default());
    assert_eq!(
        balancer.pick(&Request::default(), &Endpoints::default()),
        None
    );
}

#[test]
fn a_size_that_is_not_prime_is_refused() {
    let error = Maglev::default()
        .configure(r#"{"table_size": 65536}"#)
        .unwrap_err();
    assert!(error.contains("65537"), "{error}");
    assert!(Maglev::default().configure(r#"{"size": 7}"#).is_err());
}

proptest! {
    /// Filling by rounds and filling with sorted endpoints give the same table.
    #[test]
    fn both_ways_to_fill_give_the_same_table(weights in proptest::collection::vec(1_u32..30, 1..30)) {
        let mut heavy = weights.clone();
        // With one weight far above the mean, `fill` keeps the endpoints sorted.
        heavy.push(100_000 / 16);
        for weights in [weights, heavy] {
            let endpoints = table(&weights);
            let heaviest = u64::from(*weights.iter().max().unwrap());
            let mut by_rounds = vec![FREE; 1009];
            let mut seekers: Vec<Seeker> = endpoints
                .iter()
                .zip(0..)
                .map(|(endpoint, position)| Seeker::new(endpoint, position, 1009))
                .collect();
            seekers.sort_unstable_by_key(|seeker| mix(endpoints[seeker.position as usize].id));
            fill_by_rounds(&mut by_rounds, &mut seekers, heaviest);
            prop_assert_eq!(by_rounds, filled(&endpoints, 1009));
        }
    }
}
