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
    ring.endpoints_changed(&Endpoints::new(endpoints.to_vec()));
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

/// The id of the endpoint that each key goes to.
fn ids(ring: &mut Ring, endpoints: &[Endpoint]) -> Vec<u64> {
    (0..KEYS)
        .map(|key| endpoints[at(ring, mix(key))].id)
        .collect()
}

/// The share of keys that moved, and the share of keys that moved without need: neither their old
/// nor their new endpoint has changed.
fn moved(old: &[Endpoint], new: &[Endpoint]) -> (f64, f64) {
    let mut ring = started(old);
    let before = ids(&mut ring, old);
    ring.endpoints_changed(&Endpoints::new(new.to_vec()));
    let after = ids(&mut ring, new);
    // The merged ring equals a ring that is built from nothing.
    assert_eq!(after, ids(&mut started(new), new));
    let stays = |id: u64| {
        let of = |table: &[Endpoint]| table.iter().find(|e| e.id == id).copied();
        of(old) == of(new)
    };
    let moved = before.iter().zip(&after).filter(|(b, a)| b != a);
    let strayed = moved.clone().filter(|(b, a)| stays(**b) && stays(**a));
    let share = |count: usize| count as f64 / KEYS as f64;
    (share(moved.count()), share(strayed.count()))
}

/// The random deviation that is allowed for the share of keys of `changed` of `count` endpoints:
/// three and a half times the standard deviation of the part of a ring that a thousand points for
/// each endpoint have, and of so many keys.
fn luck(changed: f64, count: f64) -> f64 {
    let variance = changed / count * (1.0 - changed / count).max(0.0);
    3.5 * (variance / (1000.0 * count) + variance / KEYS as f64).sqrt()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    /// If k of n endpoints change, at most k/n + 1 % of the keys move.
    #[test]
    fn few_keys_move(count in 30_usize..80, gone in 0_usize..4, joined in 0_usize..4, weight in 1_u32..200) {
        let all = table(&vec![weight; count + joined]);
        let (old, mut new) = (&all[..count], all[gone..].to_vec());
        new.reverse();
        let (moved, strayed) = moved(old, &new);
        let changed = (gone + joined) as f64 / count.min(new.len()) as f64;
        prop_assert!(moved <= changed + 0.01, "{moved} {changed}");
        prop_assert_eq!(strayed, 0.0);
    }

    /// With few endpoints, whose shares differ more, only keys of the endpoints that changed move.
    #[test]
    fn only_keys_of_endpoints_that_leave_or_join_move(
        count in 2_usize..30, gone in 0_usize..2, joined in 0_usize..3, weight in 1_u32..200,
    ) {
        let all = table(&vec![weight; count + joined]);
        let (moved, strayed) = moved(&all[..count], &all[gone..]);
        let (changed, least) = ((gone + joined) as f64, count.min(count + joined - gone) as f64);
        let luck = luck(changed.min(least), least);
        prop_assert!(moved <= changed / least + 0.01 + luck, "{moved} {changed} {least}");
        prop_assert_eq!(strayed, 0.0);
    }

    #[test]
    fn the_order_of_the_table_has_no_effect(weights in proptest::collection::vec(1_u32..100, 2..20)) {
        let old = table(&vec![10; weights.len()]);
        let new = table(&weights);
        moved(&old, &new);
        let mut reversed = new.clone();
        reversed.reverse();
        prop_assert_eq!(ids(&mut started(&new), &new), ids(&mut started(&reversed), &reversed));
    }
}

#[test]
fn an_endpoint_of_unusual_weight_moves_only_its_own_keys() {
    // An endpoint that ramps up, and one with a high weight.
    for odd in [10, 1000] {
        let mut weights = vec![100; 9];
        let before = table(&weights);
        weights.push(odd);
        let with = table(&weights);
        for (old, new) in [(&before, &with), (&with, &before)] {
            let (moved, strayed) = moved(old, new);
            assert_eq!(strayed, 0.0, "{odd}");
            let share = f64::from(odd) / f64::from(900 + odd);
            assert!((moved - share).abs() < 0.02, "{odd}: {moved} {share}");
        }
    }
}

#[test]
fn one_more_endpoint_beside_ten_thousand_moves_at_most_one_percent_of_the_keys() {
    let all = table(&vec![100; 10_083]);
    let (moved, _) = moved(&all[..10_082], &all);
    assert!(moved <= 0.0101, "{moved}");
}

/// The bound that the README states.
#[test]
fn shares_of_a_hundred_endpoints_are_at_most_an_eighth_too_large() {
    let all = table(&[1; 100]);
    let mut ring = started(&all);
    let mut counts = vec![0.0; 100];
    for key in 0..1_000_000 {
        counts[at(&mut ring, mix(key))] += 1.0;
    }
    let peak = counts.into_iter().fold(0.0, f64::max) / 10_000.0;
    assert!(peak <= 1.125, "{peak}");
}

#[test]
fn shares_are_proportional_to_weights() {
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
fn a_table_may_have_no_or_one_endpoint_and_keys_at_the_ends_are_found() {
    let mut ring = Ring::default();
    assert_eq!(ring.pick(&Request::default(), &Endpoints::default()), None);
    ring.endpoints_changed(&Endpoints::new(table(&[3])));
    for key in [0, 1, u64::MAX / 2, u64::MAX - 1, u64::MAX] {
        assert_eq!(at(&mut ring, key), 0);
    }
    ring.endpoints_changed(&Endpoints::default());
    assert_eq!(ring.pick(&Request::default(), &Endpoints::default()), None);
}

#[test]
fn settings_are_checked() {
    assert!(Ring::default().configure(r#"{"slots": 100}"#).is_ok());
    assert!(Ring::default().configure(r#"{"slot": 100}"#).is_err());
}
