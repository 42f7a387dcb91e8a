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

fn started(endpoints: &[Endpoint]) -> Ring {
    let mut ring = Ring::default();
    ring.endpoints_changed(endpoints);
    ring
}

fn at(ring: &mut Ring, key: u64) -> usize {
    let request = Request {
        affinity: Some(key),
        ..Request::default()
    };
    ring.pick(&request, &Endpoints::default()).unwrap()
}

const KEYS: u64 = 20_000;

/// The id that each key goes to.
fn ids(ring: &mut Ring, endpoints: &[Endpoint]) -> Vec<u64> {
    (0..KEYS)
        .map(|key| endpoints[at(ring, mix(key))].id)
        .collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    #[test]
    fn only_keys_of_who_left_move_and_only_to_who_joined(
        count in 2_usize..60, gone in 0_usize..60, joined in 0_usize..3, weight in 1_u32..200,
    ) {
        let all = table(&vec![weight; count + joined]);
        let (old, mut new) = (all[..count].to_vec(), all.clone());
        let left = new.remove(gone % count).id;
        new.reverse();
        let mut ring = started(&old);
        let before = ids(&mut ring, &old);
        ring.endpoints_changed(&new);
        let after = ids(&mut ring, &new);
        let moved = before.iter().zip(&after).filter(|(b, a)| a != b).count() as f64 / KEYS as f64;
        // Of n endpoints k changed: no more than k/n + 1 % move.
        let changed = (1 + joined) as f64 / count.min(new.len()).max(1) as f64;
        prop_assert!(moved <= changed + 0.01 + 0.1 * changed, "{moved} {changed}");
        if joined == 0 {
            let others = before.iter().zip(&after).filter(|(b, _)| **b != left);
            let strayed = others.filter(|(b, a)| a != b).count() as f64 / KEYS as f64;
            prop_assert!(strayed <= 0.01, "{strayed}");
        }
        // What is merged is what would be built from nothing, whatever the order.
        let mut anew = started(&new);
        prop_assert_eq!(after, ids(&mut anew, &new));
        let mut reversed = new.clone();
        reversed.reverse();
        prop_assert_eq!(ids(&mut anew, &new), ids(&mut started(&reversed), &reversed));
    }

    #[test]
    fn changed_weights_move_what_they_must(weights in proptest::collection::vec(1_u32..100, 2..20)) {
        let old = table(&vec![10; weights.len()]);
        let new = table(&weights);
        let mut ring = started(&old);
        ring.endpoints_changed(&new);
        prop_assert_eq!(ids(&mut ring, &new), ids(&mut started(&new), &new));
    }
}

#[test]
fn of_a_hundred_endpoints_none_has_over_a_third_more_than_its_share() {
    let all = table(&[1; 100]);
    let mut ring = started(&all);
    let mut counts = vec![0.0; 100];
    for key in 0..1_000_000 {
        counts[at(&mut ring, mix(key))] += 1.0;
    }
    let peak = counts.into_iter().fold(0.0, f64::max) / 10_000.0;
    assert!(peak <= 1.33, "{peak}");
}

#[test]
fn weights_are_shares() {
    let all = table(&[100, 200, 300]);
    let mut ring = started(&all);
    let mut counts = [0.0_f64; 3];
    for key in 0..60_000 {
        counts[at(&mut ring, mix(key))] += 1.0 / 60_000.0;
    }
    for (count, share) in counts.iter().zip([1.0_f64 / 6.0, 2.0 / 6.0, 3.0 / 6.0]) {
        assert!((count - share).abs() < 0.05, "{counts:?}");
    }
}

#[test]
fn tables_of_none_and_one_and_the_ends_of_the_ring() {
    let mut ring = Ring::default();
    assert_eq!(ring.pick(&Request::default(), &Endpoints::default()), None);
    ring.endpoints_changed(&table(&[3]));
    for key in [0, 1, u64::MAX / 2, u64::MAX - 1, u64::MAX] {
        assert_eq!(at(&mut ring, key), 0);
    }
    ring.endpoints_changed(&[]);
    assert_eq!(ring.pick(&Request::default(), &Endpoints::default()), None);
}

#[test]
fn settings_are_checked() {
    assert!(Ring::default().configure(r#"{"slots": 100}"#).is_ok());
    assert!(Ring::default().configure(r#"{"slot": 100}"#).is_err());
}
